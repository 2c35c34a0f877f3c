"""The policies that play a world: each is three pure functions on a state, with its settings as data.

A policy sees what the engine would see: the candidates' features and its own past outcomes; never the truth.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from bandit.policy.randomness import Uniforms
from bandit.policy.thompson import Choice
from bandit.posterior import Gaussian


class Request(NamedTuple):
    """One impression to be filled.

    Attributes:
        features: design rows of the candidates; width 0 in a world whose arms differ by name only.
        eligible: which candidates may be shown.
    """

    features: Float[Array, "arms dim"]
    eligible: Bool[Array, "arms"]


class Outcomes(NamedTuple):
    """What happened on one batch of impressions."""

    features: Float[Array, "batch dim"]
    chosen: Int[Array, "batch"]
    clicks: Float[Array, "batch"]


class Policy(NamedTuple):
    """A way to choose.

    Attributes:
        name: what tables call it.
        start: its state before the first impression.
        choose: (state, request, uniforms) -> Choice.
        learn: (state, outcomes) -> state.
        tell: (state, request, uniforms) -> what `choose` gives, and the chosen arm's expected click rate;
            None for a policy that expects none.
    """

    name: str
    start: Any
    choose: Callable[[Any, Request, Uniforms], Choice]
    learn: Callable[[Any, Outcomes], Any]
    tell: Callable[[Any, Request, Uniforms], tuple[Choice, Array]] | None = None


class Counts(NamedTuple):
    """Impressions and clicks of each arm."""

    impressions: Float[Array, "arms"]
    clicks: Float[Array, "arms"]

    def plus(self, outcomes: Outcomes) -> "Counts":
        """Return the counts with a batch added."""
        return Counts(
            self.impressions.at[outcomes.chosen].add(1.0),
            self.clicks.at[outcomes.chosen].add(outcomes.clicks),
        )


def no_counts(n_arms: int) -> Counts:
    """Return counts of zero."""
    return Counts(jnp.zeros(n_arms), jnp.zeros(n_arms))


def beta_thompson(n_arms: int) -> Policy:
    """Return Thompson sampling with an independent Beta(1, 1) prior on each arm's click rate."""

    def decide(state: Counts, request: Request, uniforms: Uniforms) -> Choice:
        key = key_of(uniforms, 1)
        rates = _beta(key, 1 + state.clicks, 1 + state.impressions - state.clicks)
        return certain(rates, request.eligible)

    return Policy("beta-thompson", no_counts(n_arms), decide, Counts.plus)


def ucb1(n_arms: int, scale: Array | float) -> Policy:
    """Return UCB1 with a scaled bonus: clicks/n + scale √(2 ln t / n); an arm never shown comes first."""

    def decide(state: Counts, request: Request, uniforms: Uniforms) -> Choice:
        total = jnp.maximum(state.impressions.sum(), 2.0)
        shown = jnp.maximum(state.impressions, 1.0)
        index = state.clicks / shown + scale * jnp.sqrt(2 * jnp.log(total) / shown)
        return certain(jnp.where(state.impressions > 0, index, jnp.inf), request.eligible)

    return Policy("ucb1", no_counts(n_arms), decide, Counts.plus)


def uniform(n_arms: int) -> Policy:
    """Return the policy that shows every candidate equally often."""

    def decide(state: Counts, request: Request, uniforms: Uniforms) -> Choice:
        weights = request.eligible / request.eligible.sum()
        chosen = jax.random.categorical(key_of(uniforms, 2), jnp.log(weights))
        return Choice(weights, chosen, jnp.zeros(()))

    return Policy("uniform", no_counts(n_arms), decide, Counts.plus)


def oracle() -> Policy:
    """Return the policy that is shown the truth: the first feature of each candidate is its click rate."""

    def decide(state: tuple[()], request: Request, uniforms: Uniforms) -> Choice:
        return certain(request.features[:, 0], request.eligible)

    return Policy("oracle", (), decide, lambda state, outcomes: state)


def key_of(uniforms: Uniforms, purpose: int) -> Array:
    """Return a random key of a decision for policies that draw otherwise than the engine; from 64 bits."""
    high = (uniforms.point * 2.0**32).astype(jnp.uint32)
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(purpose), uniforms.point_set), high)


def certain(score: Array, eligible: Array) -> Choice:
    """Return the choice of the eligible arm with the highest score, the first of equals."""
    chosen = jnp.argmax(jnp.where(eligible, score, -jnp.inf))
    return Choice(jax.nn.one_hot(chosen, score.shape[0], dtype=score.dtype), chosen, jnp.zeros(()))


def _beta(key: Array, a: Array, b: Array) -> Array:
    """Draw from Beta(a, b) for a, b ≥ 1, by two gammas."""
    key_a, key_b = jax.random.split(key)
    first, second = _gamma(key_a, a), _gamma(key_b, b)
    return first / (first + second)


def _gamma(key: Array, shape: Array, tries: int = 3) -> Array:
    """Draw from Gamma(shape ≥ 1) by rejection, unrolled; three tries fail for less than one draw in 8,000.

    `jax.random.gamma` loops until the slowest element of a batch accepts, ten times as slow here.

    References:
        G. Marsaglia, W. W. Tsang, "A simple method for generating gamma variables", ACM TOMS 26, 2000.
    """
    d = shape.astype(jnp.float32) - 1 / 3
    key_normal, key_uniform = jax.random.split(key)
    z = jax.random.normal(key_normal, (tries, *shape.shape), jnp.float32)
    u = jax.random.uniform(key_uniform, (tries, *shape.shape), jnp.float32, 1e-12)
    v = (1 + z / jnp.sqrt(9 * d)) ** 3
    accepted = (v > 0) & (jnp.log(u) < 0.5 * z**2 + d - d * v + d * jnp.log(jnp.maximum(v, 1e-12)))
    return d * jnp.maximum(jnp.take_along_axis(v, jnp.argmax(accepted, axis=0)[None], axis=0)[0], 1e-12)


class Problems(NamedTuple):
    """Many tests as bandit problems, padded to one number of arms.

    Attributes:
        truth: click rates, 0 for padding.
        eligible: False for padding.
        prior: the engine's joint posterior of the logits before the first impression.
        past_rate: clicks per impression in the history.
    """

    truth: Float[Array, "tests arms"]
    eligible: Bool[Array, "tests arms"]
    prior: Gaussian
    past_rate: Float[Array, "tests"]
