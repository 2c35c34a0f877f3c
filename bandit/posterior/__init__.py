"""The model in pure JAX: no ids, no clock, no I/O. Call it in double precision.

In: a posterior, design rows, counts, priors.
Out: the next posterior, joint logits, learnt scales, summaries.
"""

from bandit.posterior.change import Change, OwnRows, apply, own_rows, place, with_shared
from bandit.posterior.decomposition import Parts, decompose
from bandit.posterior.empirical_bayes import (
    EffectScales,
    learn_effect_scales,
    learn_prior,
    learn_scales,
    learn_weight_scales,
    rescale,
    rescale_weights,
)
from bandit.posterior.forgetting import forget
from bandit.posterior.refit import (
    Fit,
    RefitInfo,
    begin,
    fitted,
    is_unsettled,
    moved,
    refit,
    rescaled,
    stepped,
)
from bandit.posterior.schur import eliminate
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
from bandit.posterior.update import Rows, absorb, learn, update

__all__ = [
    "Change",
    "EffectScales",
    "Fit",
    "Gaussian",
    "OwnRows",
    "Parts",
    "Prior",
    "RefitInfo",
    "Rows",
    "SiteInfo",
    "Sites",
    "State",
    "Summary",
    "absorb",
    "apply",
    "averaged_rate",
    "begin",
    "condition",
    "decompose",
    "effects",
    "eliminate",
    "find_sites",
    "fitted",
    "forget",
    "grow",
    "initial_state",
    "is_unsettled",
    "learn",
    "learn_effect_scales",
    "learn_prior",
    "learn_scales",
    "learn_weight_scales",
    "moved",
    "own_rows",
    "place",
    "predict",
    "predict_marginals",
    "refit",
    "rescale",
    "rescale_weights",
    "rescaled",
    "stepped",
    "summarise",
    "update",
    "with_shared",
]
