"""The engine's policy in a world of known contents: the same choices as `thompson_on_weights`, much faster.

In one campaign every row is φ_a(x) = φ_a(0) + Σ_j (1, contents)_aj (x in block j), so the logits of all
candidates in all contexts follow from one small Gram matrix a batch, where `predict` solves a triangular
system for each request.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jax import Array
from jaxtyping import Float

from bandit.features import DIM, N_CONTENT, N_CONTEXT, N_INTERACTING, design_row
from bandit.posterior import Gaussian, State, effects
from bandit.thompson import KAPPA, UNIFORM_SHARE, Choice, Exploration, choose
from simulations.policies import ContextualState, Policy, Request, thompson_on_weights

_FIRST_INTERACTION = 1 + N_CONTEXT + 2 * N_CONTENT


class LogitMap(NamedTuple):
    """The joint posterior of one campaign's logits as a function of the context x, in 5 blocks of slots.

        m(x) = mean + Z (Mᵀ x)    C(x) = within + P Zᵀ + Z Pᵀ + Z Q Zᵀ    P = cross · x    Q = x · between · x

    Attributes:
        mean: m(0).
        slope: M, posterior mean weight of each slot in each block.
        loading: Z, 1 and the interacting contents of each arm.
        within: C(0).
        cross: covariance of m(0)'s rows with the slots' weights.
        between: covariance of the slots' weights.
    """

    mean: Float[Array, "arms"]
    slope: Float[Array, "slots blocks"]
    loading: Float[Array, "arms blocks"]
    within: Float[Array, "arms arms"]
    cross: Float[Array, "arms slots blocks"]
    between: Float[Array, "slots slots blocks blocks"]

    def at(self, context: Float[Array, "slots"]) -> Gaussian:
        """Return the joint logits in one context."""
        mean = self.mean + self.loading @ (context @ self.slope)
        across = jnp.einsum("s,asj->aj", context, self.cross) @ self.loading.T
        pairs = jnp.outer(context, context).ravel()
        blocks = self.loading.shape[1]
        between = (pairs @ self.between.reshape(-1, blocks * blocks)).reshape(blocks, blocks)
        return Gaussian(mean, self.within + across + across.T + self.loading @ between @ self.loading.T)


def map_logits(state: State, content: Float[Array, "arms content"]) -> LogitMap:
    """Return the logits of the arms 0, 1, … of campaign 0 as a function of the context.

    Args:
        state: the posterior.
        content: content features of the arms.

    Returns:
        `predict` of the same rows, for any context.
    """
    n_arms, n_blocks = content.shape[0], 1 + N_INTERACTING
    arms = jnp.arange(n_arms)
    own = effects(state, arms, jnp.zeros_like(arms))
    rows = jax.vmap(design_row, in_axes=(None, 0, None))(jnp.zeros(N_CONTEXT), content, content.mean(axis=0))
    # Block 0 holds a slot's own weight, block j its weight with content j: slots × blocks unit vectors of φ.
    places = jnp.concatenate(
        [
            1 + jnp.arange(N_CONTEXT)[:, None],
            _FIRST_INTERACTION + jnp.arange(N_CONTEXT * N_INTERACTING).reshape(N_CONTEXT, N_INTERACTING),
        ],
        axis=1,
    )
    units = jax.nn.one_hot(places.ravel(), DIM, dtype=rows.dtype)
    half = jsl.solve_triangular(state.factor, jnp.concatenate([rows - own.offset, units]).T, lower=True)
    gram = half.T @ half
    shared = own.shrinkage[:, None] * own.shrinkage[None, :] / state.campaign_precision[0]
    between = gram[n_arms:, n_arms:].reshape(N_CONTEXT, n_blocks, N_CONTEXT, n_blocks)
    return LogitMap(
        mean=rows @ state.weights + own.campaign + own.arm,
        slope=state.weights[places],
        loading=jnp.concatenate([jnp.ones((n_arms, 1)), content[:, :N_INTERACTING]], axis=1),
        within=gram[:n_arms, :n_arms] + shared + jnp.diag(1 / state.arm_precision[:n_arms]),
        cross=gram[:n_arms, n_arms:].reshape(n_arms, N_CONTEXT, n_blocks),
        between=between.transpose(0, 2, 1, 3),
    )


def thompson_on_contents(
    name: str,
    posterior: State,
    content: Float[Array, "arms content"],
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
        horizon: impressions expected in all; infinite for plain Thompson sampling.
        points: point sets for the number of candidates.
        kappa: κ of the lookahead; 0 is greedy.
        uniform_share: ε.
    """

    def decide(state: ContextualState, request: Request, words: Array) -> Choice:
        # The map does not depend on the request: mapped over a batch, it is computed once.
        logits = map_logits(state.posterior, content).at(request.features[0, 1 : 1 + N_CONTEXT])
        n_active = jnp.sum(request.eligible)
        settings = (jnp.asarray(kappa), jnp.asarray(uniform_share), n_active)
        exploration = Exploration(horizon, state.so_far, *settings)
        return choose(logits, exploration, request.eligible, points, words, 0)

    slow = thompson_on_weights(name, posterior, horizon, points, kappa, uniform_share)
    return slow._replace(choose=decide)
