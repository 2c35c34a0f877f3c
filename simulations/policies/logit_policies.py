"""What the engine is compared with: policies that others would use, each a rule on counts or on the logits.

Their settings are tuned by the grids of `registry`; who picks by an index keeps to one arm during a batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtri
from jaxtyping import Float

from bandit.policy.randomness import Uniforms
from bandit.policy.thompson import Choice
from bandit.posterior import Gaussian
from bandit.posterior.linalg import cholesky
from simulations.policies.base import (
    Counts,
    Policy,
    Request,
    beta_thompson,
    certain,
    key_of,
    no_counts,
)
from simulations.policies.engine import Design, EngineState, LogitState, engine, engine_on_logits

BISECTIONS = 30  # of an interval of click rates: to 1e-9


def scaled_thompson(prior: Gaussian, scale: Array | float) -> Policy:
    """Return Thompson sampling whose draws have their standard deviation scaled: θ = m + scale L ζ, C = L Lᵀ.

    Args:
        prior: joint logits of the arms before the campaign.
        scale: 1 is plain Thompson sampling, 0 greedy.
    """

    def decide(state: LogitState, request: Request, uniforms: Uniforms) -> Choice:
        factor = cholesky(state.logits.covariance)
        zeta = jax.random.normal(key_of(uniforms, 3), state.logits.mean.shape, float)
        return certain(state.logits.mean + scale * (factor @ zeta), request.eligible)

    return _on_logits("scaled-thompson", prior, decide)


def bayes_ucb(prior: Gaussian, scale: Array | float, power: Array | float, horizon: Array) -> Policy:
    """Return Bayes-UCB on the joint posterior: the arm with the highest upper quantile.

        m_a + scale z sd_a    z = Φ⁻¹(1 − 1/(t (log T)^c))

    Args:
        prior: joint logits of the arms before the campaign.
        scale: of the bonus; 1 is the paper's rule.
        power: c; the paper proves its bound for 5 and recommends 0.
        horizon: T, impressions in all.

    References:
        E. Kaufmann, O. Cappé, A. Garivier, "On Bayesian upper confidence bounds for bandit problems",
        AISTATS 2012, algorithm 1.
    """

    def decide(state: LogitState, request: Request, uniforms: Uniforms) -> Choice:
        index = upper_quantiles(state.logits, state.so_far, horizon, scale, power)
        return certain(index, request.eligible)

    return _on_logits("bayes-ucb", prior, decide)


def bayes_ucb_in_contexts(
    design: Design, horizon: Array | float, scale: Array | float, power: Array | float, room: int
) -> Policy:
    """Return `bayes_ucb` on the engine's posterior in a world with contexts; args as those of both."""

    def decide(state: EngineState, request: Request, uniforms: Uniforms) -> Choice:
        logits = design.logits(state.posterior, request)
        index = upper_quantiles(logits, state.so_far, jnp.asarray(horizon), scale, power)
        return certain(index, request.eligible)

    return engine(design, horizon, name="bayes-ucb", room=room)._replace(choose=decide, tell=None)


def upper_quantiles(
    logits: Gaussian, so_far: Array, horizon: Array, scale: Array | float, power: Array | float
) -> Float[Array, "arms"]:
    """Return the index of Bayes-UCB, see `bayes_ucb`, at impression t = so_far + 1."""
    level = jnp.maximum(1 - 1 / ((so_far + 1) * jnp.log(horizon) ** power), 0.5)
    return logits.mean + scale * ndtri(level) * jnp.sqrt(jnp.diagonal(logits.covariance))


def epsilon_greedy_on_logits(prior: Gaussian, epsilon: Array | float) -> Policy:
    """Return the policy that shows the best posterior mean, and any arm with probability ε.

    Args:
        prior: joint logits of the arms before the campaign.
        epsilon: share of the traffic that all arms share alike.
    """

    def decide(state: LogitState, request: Request, uniforms: Uniforms) -> Choice:
        greedy, random = certain(state.logits.mean, request.eligible), _any(uniforms.order, request.eligible)
        return Choice(
            epsilon * random.propensities + (1 - epsilon) * greedy.propensities,
            jnp.where(uniforms.branch < epsilon, random.chosen, greedy.chosen),
            jnp.zeros(()),
        )

    return _on_logits("epsilon-greedy", prior, decide)


def lola(prior: Gaussian, strength: Array | float, scale: Array | float) -> Policy:
    """Return UCB that counts a text's predicted click rate as impressions it never had.

        (p⁰_a n⁰ + clicks_a)/(n⁰ + n_a) + scale √(2 ln t/(n⁰ + n_a))

    Args:
        prior: joint logits of the arms before the campaign; p⁰ is the rate at their mean.
        strength: n⁰, what a prediction weighs, in impressions.
        scale: of the bonus.

    References:
        Z. Ye, H. Yoganarasimhan, Y. Zheng, "LOLA: LLM-assisted online learning algorithm for content
        experiments", 2024. Their prediction comes from a language model; ours is the engine's own.
    """
    predicted = jax.nn.sigmoid(prior.mean)

    def decide(state: Counts, request: Request, uniforms: Uniforms) -> Choice:
        shown = strength + state.impressions
        total = jnp.maximum(jnp.sum(jnp.where(request.eligible, shown, 0.0)), 2.0)
        index = (strength * predicted + state.clicks) / shown + scale * jnp.sqrt(2 * jnp.log(total) / shown)
        return certain(index, request.eligible)

    return Policy("lola", no_counts(prior.mean.shape[0]), decide, Counts.plus)


def informed_beta(n_arms: int, clicks: Array | float, rate: Array) -> Policy:
    """Return Thompson sampling with the prior Beta(k, k (1 − r)/r): the past's rate, worth k clicks.

    Args:
        n_arms: arms, padding included.
        clicks: k, at least 1.
        rate: r, clicks per impression in the past.
    """
    plain = beta_thompson(n_arms)  # adds 1 click and 1 impression without click to its counts
    known = Counts(jnp.full(n_arms, clicks / rate - 2), jnp.full(n_arms, clicks - 1.0))
    return plain._replace(name="informed-beta", start=known)


def kl_ucb(n_arms: int, scale: Array | float) -> Policy:
    """Return KL-UCB with a scaled bound: the highest q with n KL(clicks/n, q) ≤ scale ln t.

    An arm never shown comes first.

    References:
        A. Garivier, O. Cappé, "The KL-UCB algorithm for bounded stochastic bandits and beyond", COLT 2011.
    """

    def divergence(p: Array, q: Array) -> Array:
        def term(part: Array, of: Array) -> Array:
            return jnp.where(part > 0, part * jnp.log(jnp.maximum(part, 1e-12) / of), 0.0)

        return term(p, q) + term(1 - p, 1 - q)

    def decide(state: Counts, request: Request, uniforms: Uniforms) -> Choice:
        n = jnp.maximum(state.impressions, 1.0)
        rate = state.clicks / n
        bound = scale * jnp.log(jnp.maximum(state.impressions.sum(), 2.0)) / n

        def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            middle = (ends[0] + ends[1]) / 2
            is_inside = divergence(rate, middle) <= bound
            return jnp.where(is_inside, middle, ends[0]), jnp.where(is_inside, ends[1], middle)

        index, _ = jax.lax.fori_loop(0, BISECTIONS, halve, (rate, jnp.ones(n_arms)))
        return certain(jnp.where(state.impressions > 0, index, jnp.inf), request.eligible)

    return Policy("kl-ucb", no_counts(n_arms), decide, Counts.plus)


def ab_then_commit(n_arms: int, share: Array | float, horizon: Array) -> Policy:
    """Return the classic A/B test: all arms alike on a share of the traffic, then the best click rate seen.

    Args:
        n_arms: arms, padding included.
        share: of the traffic that the test takes.
        horizon: impressions in all.
    """

    def decide(state: Counts, request: Request, uniforms: Uniforms) -> Choice:
        random = _any(uniforms.order, request.eligible)
        best = certain(state.clicks / jnp.maximum(state.impressions, 1.0), request.eligible)
        is_test = state.impressions.sum() < share * horizon
        return jax.tree.map(lambda test, rest: jnp.where(is_test, test, rest), random, best)

    return Policy("ab-then-commit", no_counts(n_arms), decide, Counts.plus)


def _on_logits(
    name: str, prior: Gaussian, decide: Callable[[LogitState, Request, Uniforms], Choice]
) -> Policy:
    """Return a policy that learns as the engine does."""
    return engine_on_logits(prior, jnp.inf, name=name)._replace(choose=decide)


def _any(place: Float[Array, ""], eligible: Array) -> Choice:
    """Return the eligible arm at a place in [0, 1)."""
    rank = jnp.floor(place * eligible.sum())
    chosen = jnp.argmax(eligible & (jnp.cumsum(eligible) > rank))
    return Choice(eligible / eligible.sum(), chosen, jnp.zeros(()))
