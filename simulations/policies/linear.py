"""LinUCB, LinTS and ε-greedy: ridge regressions of the click on what is known of request and creative.

Whatever a model knows is linear in the context: z_a(x) = x̃ B_a with x̃ = [1, x]. So one code serves models
with weights of their own for each arm (disjoint), with weights that all arms share, and with both (hybrid).

References:
    L. Li, W. Chu, J. Langford, R. E. Schapire, "A contextual-bandit approach to personalized news article
    recommendation", WWW 2010, algorithms 1 and 2.
    S. Agrawal, N. Goyal, "Thompson sampling for contextual bandits with linear payoffs", ICML 2013,
    algorithm 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from bandit.features.design import N_CONTENT, N_CONTEXT, design_row, group_mask
from bandit.policy.randomness import Uniforms
from bandit.policy.thompson import Choice
from bandit.posterior.linalg import cholesky, solve, solve_lower
from simulations.policies.base import Outcomes, Policy, Request, certain, key_of

N_SLOTS = 1 + N_CONTEXT


class Basis(NamedTuple):
    """What a model knows of each arm in a context: z_a(x) = x̃ B_a.

    Attributes:
        loading: B.
        group: whose weights each arm uses.
        n_groups: how many sets of weights there are.
    """

    loading: Float[Array, "arms slots dim"]
    group: Int[Array, "arms"]
    n_groups: int


def disjoint_basis(n_arms: int, n_slots: int = N_SLOTS) -> Basis:
    """Return the basis of models that give each arm weights of its own: z_a(x) = x̃."""
    return Basis(jnp.broadcast_to(jnp.eye(n_slots), (n_arms, n_slots, n_slots)), jnp.arange(n_arms), n_arms)


def contents_loading(
    content: Float[Array, "arms content"], mean: Float[Array, "content"]
) -> Float[Array, "arms slots dim"]:
    """Return B of the engine's own features: φ_a(x) = x̃ B_a."""
    contexts = jnp.concatenate([jnp.zeros((1, N_CONTEXT)), jnp.eye(N_CONTEXT)])
    over_contexts = jax.vmap(design_row, in_axes=(0, None, None))
    rows = jax.vmap(over_contexts, in_axes=(None, 0, None))(contexts, content, mean)
    return jnp.concatenate([rows[:, :1], rows[:, 1:] - rows[:, :1]], axis=1)


def shared_basis(content: Float[Array, "arms content"]) -> Basis:
    """Return the basis of models whose weights all arms share: the engine's own features φ.

    Without the campaign's mean content, which is the same for all arms of a campaign, as the 1 is.
    """
    known = np.flatnonzero(group_mask("campaign_mean") == 0)
    loading = contents_loading(content, jnp.zeros(N_CONTENT))
    return Basis(loading[:, :, known], jnp.zeros(len(content), int), 1)


def hybrid_basis(content: Float[Array, "arms content"]) -> Basis:
    """Return the basis of models with both: shared weights of φ, and weights of its own for each arm."""
    n_arms = content.shape[0]
    own = jnp.einsum("ab,st->asbt", jnp.eye(n_arms), jnp.eye(N_SLOTS)).reshape(n_arms, N_SLOTS, -1)
    shared = shared_basis(content)
    return shared._replace(loading=jnp.concatenate([shared.loading, own], axis=2))


class LinearState(NamedTuple):
    """The ridge regressions so far: A = λI + Σ z zᵀ and b = A₀w₀ + Σ r z."""

    precision: Float[Array, "groups dim dim"]
    information: Float[Array, "groups dim"]


class Lines(NamedTuple):
    """The score of each arm as a function of the context.

    Attributes:
        mean: the score's mean is mean · x̃.
        half: H; arms of one group score mean · x̃ + ζ · H x̃, ζ ~ N(0, I), where weights are w + A^(-½) ζ.
        covariance: HᵀH; the score's variance is x̃ · covariance · x̃.
    """

    mean: Float[Array, "arms slots"]
    half: Float[Array, "arms dim slots"]
    covariance: Float[Array, "arms slots slots"]


def lines(basis: Basis, precision: Array, weights: Array) -> Lines:
    """Return the scores of all arms under weights with this mean [groups, dim] and precision."""
    factor = jax.vmap(cholesky)(precision)[basis.group]
    half = jax.vmap(solve_lower)(factor, jnp.swapaxes(basis.loading, 1, 2))
    mean = jnp.einsum("asd,ad->as", basis.loading, weights[basis.group])
    return Lines(mean, half, jnp.swapaxes(half, 1, 2) @ half)


def augmented(features: Float[Array, "*rows dim"], n_slots: int) -> Float[Array, "*rows slots"]:
    """Return x̃ = [1, x], where a design row φ starts with it."""
    return features[..., :n_slots]


def slots_of(basis: Basis) -> int:
    """Return the length of x̃."""
    return basis.loading.shape[1]


def sampled(known: Lines, basis: Basis, context: Array, scale: Array | float, uniforms: Uniforms) -> Array:
    """Return the arms' scores under weights drawn from N(w, scale² A⁻¹), [arms]."""
    key = key_of(uniforms, 3)
    n_arms, dim, _ = known.half.shape
    if (
        basis.n_groups == n_arms
    ):  # scores of arms without common weights are independent: a number each will do
        noise = spread(known, context) * jax.random.normal(key, (n_arms,), jnp.float32)
    else:
        noise = jax.random.normal(key, (basis.n_groups, dim), jnp.float32)
        noise = jnp.einsum("ad,ads->as", noise[basis.group].astype(float), known.half) @ context
    return known.mean @ context + scale * noise


def spread(known: Lines, context: Array) -> Array:
    """Return the standard deviation of each arm's score, [arms]."""
    return jnp.sqrt(jnp.einsum("s,ast,t->a", context, known.covariance, context))


def lin_ucb(basis: Basis, bonus: Array | float, ridge: Array | float, base_rate: float = 0.0) -> Policy:
    """Return LinUCB: the arm with the largest z·w + α √(z A⁻¹ z).

    Args:
        basis: what z is; the published algorithm 1 has the disjoint one.
        bonus: α.
        ridge: λ; the published algorithm has 1.
        base_rate: expected click rate before any data; the published algorithm has 0.
    """

    def decide(state: LinearState, request: Request, uniforms: Uniforms) -> Choice:
        known, context = _lines(basis, state), augmented(request.features[0], slots_of(basis))
        return certain(known.mean @ context + bonus * spread(known, context), request.eligible)

    return Policy("lin-ucb", _start(basis, ridge, base_rate), decide, _learner(basis))


def lin_ts(basis: Basis, scale: Array | float, ridge: Array | float, base_rate: float = 0.0) -> Policy:
    """Return LinTS: the arm with the largest z·w̃, w̃ ~ N(w, v² A⁻¹), drawn anew for each request.

    Args:
        basis: what z is.
        scale: v.
        ridge: λ; the published algorithm has 1.
        base_rate: expected click rate before any data; the published algorithm has 0.
    """

    def decide(state: LinearState, request: Request, uniforms: Uniforms) -> Choice:
        context = augmented(request.features[0], slots_of(basis))
        return certain(sampled(_lines(basis, state), basis, context, scale, uniforms), request.eligible)

    return Policy("lin-ts", _start(basis, ridge, base_rate), decide, _learner(basis))


def epsilon_greedy(
    basis: Basis, share: Array | float, ridge: Array | float, base_rate: float = 0.0
) -> Policy:
    """Return ε-greedy: with probability ε any eligible arm, else the one with the largest z·w.

    Args:
        basis: what z is.
        share: ε.
        ridge: λ.
        base_rate: expected click rate before any data.
    """

    def decide(state: LinearState, request: Request, uniforms: Uniforms) -> Choice:
        key = key_of(uniforms, 4)
        key_branch, key_arm = jax.random.split(key)
        greedy = _lines(basis, state).mean @ augmented(request.features[0], slots_of(basis))
        anything = jax.random.uniform(key_arm, greedy.shape)
        explores = jax.random.uniform(key_branch) < share
        return certain(jnp.where(explores, anything, greedy), request.eligible)

    return Policy("epsilon-greedy", _start(basis, ridge, base_rate), decide, _learner(basis))


def _lines(basis: Basis, state: LinearState) -> Lines:
    """Return the lines of the ridge regressions; the same for all requests of a batch, so computed once."""
    weights = jax.vmap(solve)(state.precision, state.information)
    return lines(basis, state.precision, weights)


def _start(basis: Basis, ridge: Array | float, base_rate: float) -> LinearState:
    dim = basis.loading.shape[2]
    precision = jnp.broadcast_to(ridge * jnp.eye(dim), (basis.n_groups, dim, dim))
    return LinearState(precision, jnp.zeros((basis.n_groups, dim)).at[:, 0].set(ridge * base_rate))


def _learner(basis: Basis) -> Callable[[LinearState, Outcomes], LinearState]:
    def learn(state: LinearState, outcomes: Outcomes) -> LinearState:
        contexts = augmented(outcomes.features, slots_of(basis))
        rows = jnp.einsum("ns,nsd->nd", contexts, basis.loading[outcomes.chosen])
        # Rows × groups of zeros and ones: with one group these are plain matrix products.
        member = jax.nn.one_hot(basis.group[outcomes.chosen], basis.n_groups, dtype=rows.dtype)
        return LinearState(
            state.precision + jnp.einsum("ng,nd,ne->gde", member, rows, rows),
            state.information + jnp.einsum("ng,nd,n->gd", member, rows, outcomes.clicks),
        )

    return learn
