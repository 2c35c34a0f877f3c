"""The model in pure JAX: arrays in, arrays out; no ids, no clock, no I/O. Call it in double precision."""

from bandit.posterior.explain import Parts, decompose
from bandit.posterior.forgetting import forget
from bandit.posterior.refit import RefitInfo, eliminate, refit
from bandit.posterior.scales import (
    EffectScales,
    learn_effect_scales,
    learn_scales,
    learn_weight_scales,
    rescale,
    rescale_weights,
)
from bandit.posterior.sites import SiteInfo, Sites, averaged_rate, condition, find_sites
from bandit.posterior.state import (
    Gaussian,
    Prior,
    State,
    effects,
    grow,
    initial_state,
    predict,
    predict_marginals,
)
from bandit.posterior.summary import Summary, summarise
from bandit.posterior.update import Rows, absorb, update

__all__ = [
    "EffectScales",
    "Gaussian",
    "Parts",
    "Prior",
    "RefitInfo",
    "Rows",
    "SiteInfo",
    "Sites",
    "State",
    "Summary",
    "absorb",
    "averaged_rate",
    "condition",
    "decompose",
    "effects",
    "eliminate",
    "find_sites",
    "forget",
    "grow",
    "initial_state",
    "learn_effect_scales",
    "learn_scales",
    "learn_weight_scales",
    "predict",
    "predict_marginals",
    "refit",
    "rescale",
    "rescale_weights",
    "summarise",
    "update",
]
