"""Logistic Thompson sampling: an online logistic regression for each arm, by Laplace's approximation.

References:
    O. Chapelle, L. Li, "An empirical evaluation of Thompson sampling", NIPS 2011, algorithm 3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from bandit.policy.randomness import Uniforms
from bandit.policy.thompson import Choice
from bandit.posterior.linalg import solve
from simulations.policies.base import Outcomes, Policy, Request, certain
from simulations.policies.linear import N_SLOTS, augmented, disjoint_basis, lines, sampled

MAX_PASSES = 50
TOLERANCE = 1e-7  # of a weight; Newton's next step is of its square
LARGEST_STEP = 2.0  # logits a pass; keeps the first clicks from overshooting to where p(1 − p) is 0


class LogisticState(NamedTuple):
    """Each arm's Gaussian belief about its weights: mean and precision."""

    weights: Float[Array, "arms slots"]
    precision: Float[Array, "arms slots slots"]


def logistic_ts(
    n_arms: int,
    scale: Array | float,
    ridge: Array | float,
    base_rate: float = 0.5,
    *,
    is_diagonal: bool = True,
    n_slots: int = N_SLOTS,
) -> Policy:
    """Return Thompson sampling on one logistic regression per arm.

    Args:
        n_arms: number of arms.
        scale: factor on the posterior's standard deviation, the paper's α; 1 is Thompson sampling.
        ridge: λ, prior precision of each weight.
        base_rate: expected click rate before any data; the published algorithm has ½.
        is_diagonal: whether the precision keeps its diagonal only, as published, or all of it.
        n_slots: length of x̃.
    """
    basis = disjoint_basis(n_arms, n_slots)
    weights = jnp.zeros((n_arms, n_slots)).at[:, 0].set(jnp.log(base_rate) - jnp.log1p(-base_rate))
    start = LogisticState(weights, jnp.broadcast_to(ridge * jnp.eye(n_slots), (n_arms, n_slots, n_slots)))

    def decide(state: LogisticState, request: Request, uniforms: Uniforms) -> Choice:
        known = lines(basis, state.precision, state.weights)
        context = augmented(request.features[0], n_slots)
        return certain(sampled(known, basis, context, scale, uniforms), request.eligible)

    def learn(state: LogisticState, outcomes: Outcomes) -> LogisticState:
        after = fit(state, augmented(outcomes.features, n_slots), outcomes.chosen, outcomes.clicks)
        return after._replace(precision=after.precision * jnp.eye(n_slots)) if is_diagonal else after

    return Policy("logistic-ts", start, decide, learn)


def fit(state: LogisticState, contexts: Array, chosen: Array, clicks: Array) -> LogisticState:
    """Return mode and curvature of each arm's posterior after one batch, by Newton's method.

        min over w of ½ (w − m)ᵀ Q (w − m) + Σ log(1 + exp(x̃·w)) − c x̃·w        Q += Σ p (1 − p) x̃ x̃ᵀ

    Args:
        state: m and Q of each arm.
        contexts: x̃, [batch, slots].
        chosen: the arm shown, [batch].
        clicks: c, [batch].
    """
    n_arms = state.weights.shape[0]
    member = jax.nn.one_hot(chosen, n_arms, dtype=contexts.dtype, axis=0)
    squares = (contexts[:, :, None] * contexts[:, None, :]).reshape(len(contexts), -1)

    def curved(weights: Array) -> tuple[Array, Array]:
        """Return p of each row and the precision at these weights."""
        p = jax.nn.sigmoid(jnp.sum(contexts * weights[chosen], axis=1))
        return p, state.precision + (member * (p * (1 - p)) @ squares).reshape(state.precision.shape)

    def one_pass(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        weights, passes, _ = carry
        p, precision = curved(weights)
        gradient = jnp.einsum("ast,at->as", state.precision, weights - state.weights)
        gradient += member * (p - clicks) @ contexts
        step = jax.vmap(solve)(precision, gradient)
        largest = jnp.max(jnp.abs(step), axis=1, keepdims=True)
        step = step * jnp.minimum(1.0, LARGEST_STEP / jnp.maximum(largest, LARGEST_STEP))
        return weights - step, passes + 1, jnp.max(largest)

    def unsettled(carry: tuple[Array, Array, Array]) -> Array:
        return (carry[2] >= TOLERANCE) & (carry[1] < MAX_PASSES)

    weights, _, _ = jax.lax.while_loop(unsettled, one_pass, (state.weights, jnp.array(0), jnp.array(jnp.inf)))
    return LogisticState(weights, curved(weights)[1])
