"""Where a logit comes from: its posterior split into the parts that add up to it."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from bandit.posterior.linalg import solve_lower
from bandit.posterior.state import State, effects, predict_marginals


class Parts(NamedTuple):
    """A logit and its parts.

    Attributes:
        mean: posterior mean of each part, in logits; they sum to the logit's.
        sd: posterior standard deviation of each part alone; parts are correlated, so squares do not sum.
        logit_mean: posterior mean of the logit.
        logit_variance: posterior variance of the logit.
    """

    mean: Float[Array, "parts"]
    sd: Float[Array, "parts"]
    logit_mean: Float[Array, ""]
    logit_variance: Float[Array, ""]


def decompose(state: State, weighted: Array, shared: Array, arm: Array, campaign: Array) -> Parts:
    """Split the logit of one arm in one request.

        logit = Σ_i φ_i·w + (φ_g·w + b_g) + e_a
        Var(φ_g·w + b) = |L⁻¹(φ_g − v/c)|² + 1/c    Var e = |L⁻¹(u/q − s v/(q c))|² + s²/(q² c) + 1/q

    Args:
        state: the posterior.
        weighted: φ_i, the parts of φ that belong to this request and arm, [parts, dim].
        shared: φ_g, the part of φ that all arms of the campaign share, [dim].
        arm: index of the arm, scalar.
        campaign: index of its campaign, scalar.

    Returns:
        The parts in the order given, then the campaign's, then the arm's own.
    """
    own = effects(state, arm[None], campaign[None])
    q, u = state.arm_precision[arm], state.arm_cross[arm]
    c, v = state.campaign_precision[campaign], state.campaign_cross[campaign]
    seen = (q - state.prior.arm_scale**-2) / q
    along = jnp.concatenate([weighted, (shared - v / c)[None], (u / q - seen * v / c)[None]])
    half = solve_lower(state.factor, along.T)
    beside = jnp.zeros(along.shape[0]).at[-2].set(1 / c).at[-1].set(seen**2 / c + 1 / q)
    features = jnp.sum(weighted, axis=0) + shared
    logit_mean, logit_variance = predict_marginals(state, features[None], arm[None], campaign[None])
    return Parts(
        mean=jnp.concatenate([weighted @ state.weights, shared @ state.weights + own.campaign, own.arm]),
        sd=jnp.sqrt(jnp.sum(half**2, axis=0) + beside),
        logit_mean=logit_mean[0],
        logit_variance=logit_variance[0],
    )
