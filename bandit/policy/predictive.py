"""The logits of some candidates as a function of the context.

Every row is φ_a(x) = φ_a(0) + Σ_j (1, contents)_aj (x in block j), so the logits of all candidates in all
contexts follow from one small Gram matrix, where `predict` solves a triangular system for each request.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from bandit.features.design import DIM, N_CONTENT, N_CONTEXT, N_INTERACTING, design_row
from bandit.posterior import Gaussian, State, effects
from bandit.posterior.linalg import solve_lower

_FIRST_INTERACTION = 1 + N_CONTEXT + 2 * N_CONTENT
_N_BLOCKS = 1 + N_INTERACTING


class SlotMap(NamedTuple):
    """What the context does whoever the candidates are, in 5 blocks of slots.

    Attributes:
        slope: M, posterior mean weight of each slot in each block.
        half: L⁻¹ of the slots' unit vectors, LLᵀ the precision of the weights.
        between: covariance of the slots' weights.
    """

    slope: Float[Array, "slots blocks"]
    half: Float[Array, "dim weights"]
    between: Float[Array, "slots slots blocks blocks"]


class LogitMap(NamedTuple):
    """The joint posterior of some candidates' logits as a function of the context x.

        m(x) = mean + Z (Mᵀ x)    C(x) = within + P Zᵀ + Z Pᵀ + Z Q Zᵀ    P = cross · x    Q = x · between · x

    Attributes:
        mean: m(0).
        loading: Z, 1 and the interacting contents of each candidate.
        within: C(0).
        cross: covariance of m(0)'s rows with the slots' weights.
    """

    mean: Float[Array, "candidates"]
    loading: Float[Array, "candidates blocks"]
    within: Float[Array, "candidates candidates"]
    cross: Float[Array, "candidates slots blocks"]

    def at(self, slots: SlotMap, context: Float[Array, "slots"]) -> Gaussian:
        """Return the joint logits in one context."""
        mean = self.mean + self.loading @ (context @ slots.slope)
        pairs = jnp.outer(context, context).ravel()
        between = (pairs @ slots.between.reshape(-1, _N_BLOCKS**2)).reshape(_N_BLOCKS, _N_BLOCKS)
        # P Zᵀ + ½ Z Q Zᵀ and its transpose: Q is symmetric.
        cross = jnp.einsum("s,asj->aj", context, self.cross)
        across = (cross + 0.5 * self.loading @ between) @ self.loading.T
        return Gaussian(mean, self.within + across + across.T)


def map_slots(state: State) -> SlotMap:
    """Return what contexts do under a posterior."""
    # Block 0 holds a slot's own weight, block j its weight with content j.
    places = jnp.concatenate(
        [
            1 + jnp.arange(N_CONTEXT)[:, None],
            _FIRST_INTERACTION + jnp.arange(N_CONTEXT * N_INTERACTING).reshape(N_CONTEXT, N_INTERACTING),
        ],
        axis=1,
    )
    units = jax.nn.one_hot(places.ravel(), DIM, dtype=state.factor.dtype)
    half = solve_lower(state.factor, units.T)
    between = (half.T @ half).reshape(N_CONTEXT, _N_BLOCKS, N_CONTEXT, _N_BLOCKS)
    return SlotMap(state.weights[places], half, between.transpose(0, 2, 1, 3))


def map_logits(
    state: State,
    slots: SlotMap,
    content: Float[Array, "candidates content"],
    mean_content: Float[Array, "content"],
    arm: Array,
    campaign: Array,
) -> LogitMap:
    """Return the logits of one campaign's candidates as a function of the context.

    Args:
        state: the posterior.
        slots: its `map_slots`.
        content: content features of the candidates.
        mean_content: mean content of their campaign.
        arm: index of each candidate's arm, [candidates]; padding may repeat one.
        campaign: index of the campaign.

    Returns:
        `predict` of the same rows, for any context; padding's own rows hold nothing of use.
    """
    n = content.shape[0]
    own = effects(state, arm, jnp.broadcast_to(campaign, arm.shape))
    rows = jax.vmap(design_row, in_axes=(None, 0, None))(
        jnp.zeros(N_CONTEXT, content.dtype), content, mean_content
    )
    half = solve_lower(state.factor, (rows - own.offset).T)
    shared = own.shrinkage[:, None] * own.shrinkage[None, :] / state.campaign_precision[campaign]
    return LogitMap(
        mean=rows @ state.weights + own.campaign + own.arm,
        loading=jnp.concatenate([jnp.ones((n, 1), content.dtype), content[:, :N_INTERACTING]], axis=1),
        within=half.T @ half + shared + jnp.diag(1 / state.arm_precision[arm]),
        cross=(half.T @ slots.half).reshape(n, N_CONTEXT, _N_BLOCKS),
    )
