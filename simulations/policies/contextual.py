"""Policies on the engine's posterior in a world of known contents: as `thompson_on_weights`, much faster."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from bandit.features.design import N_CONTEXT
from bandit.policy.predictive import map_logits, map_slots
from bandit.policy.randomness import Uniforms
from bandit.policy.thompson import KAPPA, UNIFORM_SHARE, Choice, Exploration, choose
from bandit.posterior import Gaussian, State
from simulations.calibration import expected_rate
from simulations.policies.base import ContextualState, Policy, Request, certain, thompson_on_weights
from simulations.policies.logit_policies import upper_quantiles


def thompson_on_contents(
    name: str,
    posterior: State,
    content: Float[Array, "arms content"],
    mean_content: Float[Array, "content"],
    horizon: Array,
    points: Array,
    kappa: Array | float = KAPPA,
    uniform_share: Array | float = UNIFORM_SHARE,
) -> Policy:
    """Return `policies.thompson_on_weights` for a campaign whose contents are known beforehand.

    Args:
        name: what tables call it.
        posterior: its belief before the first impression.
        content: content features of the candidates; the requests' features must be made of these.
        mean_content: their campaign's mean content, likewise.
        horizon: impressions expected in all; infinite for plain Thompson sampling.
        points: point sets for the number of candidates.
        kappa: κ of the lookahead; 0 is greedy.
        uniform_share: ε.
    """

    def tell(state: ContextualState, request: Request, uniforms: Uniforms) -> tuple[Choice, Array]:
        logits = _logits(state, request, content, mean_content)
        n_active = jnp.sum(request.eligible)
        settings = (jnp.asarray(kappa), jnp.asarray(uniform_share), n_active)
        exploration = Exploration(horizon, state.so_far, *settings)
        choice = choose(logits, exploration, request.eligible, points, uniforms)
        return choice, expected_rate(logits, choice.chosen)

    slow = thompson_on_weights(name, posterior, horizon, points, kappa, uniform_share)
    return slow._replace(choose=lambda *request: tell(*request)[0], tell=tell)


def bayes_ucb_on_contents(
    posterior: State,
    content: Float[Array, "arms content"],
    mean_content: Float[Array, "content"],
    horizon: Array,
    scale: Array | float,
    power: Array | float,
) -> Policy:
    """Return `archive_rivals.bayes_ucb` on the engine's posterior in a world with contexts; args as there."""

    def decide(state: ContextualState, request: Request, uniforms: Uniforms) -> Choice:
        logits = _logits(state, request, content, mean_content)
        return certain(upper_quantiles(logits, state.so_far, horizon, scale, power), request.eligible)

    learner = thompson_on_weights("bayes-ucb", posterior, horizon, jnp.zeros((1, len(content), 1)))
    return learner._replace(choose=decide, tell=None)


def _logits(state: ContextualState, request: Request, content: Array, mean_content: Array) -> Gaussian:
    """Return the candidates' joint logits in one request's context."""
    # The map does not depend on the request: mapped over a batch, it is computed once.
    arms = jnp.arange(content.shape[0])
    slots = map_slots(state.posterior)
    known = map_logits(state.posterior, slots, content, mean_content, arms, jnp.zeros((), int))
    return known.at(slots, request.features[0, 1 : 1 + N_CONTEXT])
