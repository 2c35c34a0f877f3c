"""Estimators of a target policy's mean reward: each returns terms whose ratio of sums is the estimate.

With weights w_i = π(a_i | x_i) / μ(a_i | x_i), target π, logging policy μ and reward model q.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int


class LoggedBatch(NamedTuple):
    """Logged decisions with what the target policy and a reward model say about them.

    Attributes:
        action: a, the action taken.
        reward: r, 0 or 1.
        propensity: μ(a | x) of the action taken.
        logging: μ of every action; NaN where the log does not say.
        eligible: what the logging policy could take.
        target: π of every action; each row sums to 1.
        estimates: q, the model's expected reward of every action, between 0 and 1.
        cluster: c, the cluster of every action; None where there are none.
    """

    action: Int[Array, "rows"]
    reward: Float[Array, "rows"]
    propensity: Float[Array, "rows"]
    logging: Float[Array, "rows actions"]
    eligible: Bool[Array, "rows actions"]
    target: Float[Array, "rows actions"]
    estimates: Float[Array, "rows actions"]
    cluster: Int[Array, "actions"] | None = None


class Terms(NamedTuple):
    """What each row adds: the estimate is Σ numerator / Σ denominator; means have denominators of 1."""

    numerator: Float[Array, "rows"]
    denominator: Float[Array, "rows"]


def value_of(terms: Terms) -> Array:
    """Return the estimate, NaN when nothing counts."""
    return jnp.sum(terms.numerator) / jnp.sum(terms.denominator)


def weights_of(batch: LoggedBatch) -> Array:
    """Return w of each row."""
    return _taken(batch.target, batch) / batch.propensity


def largest_weight(batch: LoggedBatch) -> Array:
    """Return the largest w that any row could have had; NaN where the log does not say all propensities."""
    possible = jnp.where(batch.eligible, batch.target / batch.logging, 0.0)
    # A maximum alone may lose NaN on the way.
    return jnp.where(jnp.any(jnp.isnan(possible)), jnp.nan, jnp.max(possible))


def ips(batch: LoggedBatch, clip: Array | float = jnp.inf) -> Terms:
    """Inverse propensity scoring; unbiased where the log supports the target and nothing is clipped.

        V = 1/n Σ min(w_i, clip) r_i

    Args:
        batch: the log.
        clip: the largest weight; √n loses least for its variance.

    References:
        D. G. Horvitz, D. J. Thompson, "A generalization of sampling without replacement from a finite
        universe", JASA 47, 1952; E. L. Ionides, "Truncated importance sampling", JCGS 17, 2008.
    """
    return _mean(jnp.minimum(weights_of(batch), clip) * batch.reward)


def snips(batch: LoggedBatch) -> Terms:
    """Self-normalised inverse propensity scoring: consistent, and never beyond the rewards seen.

        V = Σ w_i r_i / Σ w_i

    References:
        A. Swaminathan, T. Joachims, "The self-normalized estimator for counterfactual learning", NIPS 2015.
    """
    weights = weights_of(batch)
    return Terms(weights * batch.reward, weights)


def direct_method(batch: LoggedBatch) -> Terms:
    """The reward model alone: as biased as the model is.

    V = 1/n Σ_i Σ_a π(a | x_i) q(x_i, a)
    """
    return _mean(jnp.sum(batch.target * batch.estimates, axis=1))


def doubly_robust(batch: LoggedBatch) -> Terms:
    """The reward model, corrected by weighted residuals; unbiased where the log supports the target.

        V = DM + 1/n Σ w_i (r_i − q(x_i, a_i))

    References:
        M. Dudík, J. Langford, L. Li, "Doubly robust policy evaluation and learning", ICML 2011, eq. 1.
    """
    return _corrected(batch, weights_of(batch))


def switch_dr(batch: LoggedBatch, threshold: Array | float) -> Terms:
    """Doubly robust where weights are small, the reward model alone where they are not.

        V = DM + 1/n Σ w_i 1{w_i ≤ τ} (r_i − q(x_i, a_i))

    Args:
        batch: the log.
        threshold: τ.

    References:
        Y.-X. Wang, A. Agarwal, M. Dudík, "Optimal and adaptive off-policy evaluation in contextual bandits",
        ICML 2017, section 3.
    """
    weights = weights_of(batch)
    return _corrected(batch, jnp.where(weights <= threshold, weights, 0.0))


def dr_optimistic_shrinkage(batch: LoggedBatch, shrinkage: Array | float) -> Terms:
    """Doubly robust with weights that shrink to 0 as they grow; endless λ is doubly robust, 0 the model.

        V = DM + 1/n Σ λ w_i / (w_i² + λ) (r_i − q(x_i, a_i))

    Args:
        batch: the log.
        shrinkage: λ; no weight counts for more than √λ / 2.

    References:
        Y. Su, M. Dimakopoulou, A. Krishnamurthy, M. Dudík, "Doubly robust off-policy evaluation with
        shrinkage", ICML 2020, section 4.
    """
    weights = weights_of(batch)
    return _corrected(batch, shrinkage * weights / (weights**2 + shrinkage))


def marginalised_ips(batch: LoggedBatch) -> Terms:
    """IPS with the weights of clusters of actions: unbiased where all of a cluster earn alike.

        V = 1/n Σ w_i r_i    w_i = Σ_{a ~ a_i} π(a | x_i) / Σ_{a ~ a_i} μ(a | x_i)    a ~ b: of one cluster

    Else its bias is −Σ_c μ(c) Cov(π/μ, q | c) under μ: a policy that prefers the better ones of a cluster is
    underrated. An action that the log never has does no harm where its cluster is there.

    Args:
        batch: the log, with clusters and the propensities of all actions.

    References:
        Y. Saito, T. Joachims, "Off-policy evaluation for large action spaces via embeddings", ICML 2022,
        section 3.1 and theorem 3.5, for embeddings that an action determines.
    """
    assert batch.cluster is not None  # noqa: S101  # `evaluation` leaves MIPS out of logs without
    member = batch.cluster[batch.action][:, None] == batch.cluster[None, :]
    target = jnp.sum(jnp.where(member, batch.target, 0.0), axis=1)
    return _mean(target / jnp.sum(jnp.where(member, batch.logging, 0.0), axis=1) * batch.reward)


def rejection_replay(batch: LoggedBatch, uniforms: Float[Array, "rows"]) -> Terms:
    """Keep each row with a probability that makes the kept ones a log of the target; the mean of those.

        kept_i = 1{u_i < w_i / M}    V = Σ kept_i r_i / Σ kept_i

    Args:
        batch: the log.
        uniforms: independent, uniform on [0, 1).

    References:
        L. Li, W. Chu, J. Langford, X. Wang, "Unbiased offline evaluation of contextual-bandit-based news
        article recommendation algorithms", WSDM 2011, for uniform logs; M is the largest weight possible, or
        the largest seen where the log does not say all propensities.
    """
    weights = weights_of(batch)
    bound = largest_weight(batch)
    kept = (uniforms < weights / jnp.where(jnp.isnan(bound), jnp.max(weights), bound)).astype(weights.dtype)
    return Terms(kept * batch.reward, kept)


def _taken(values: Array, batch: LoggedBatch) -> Array:
    """Return each row's value of the action taken."""
    return jnp.take_along_axis(values, batch.action[:, None], axis=1)[:, 0]


def _mean(numerator: Array) -> Terms:
    return Terms(numerator, jnp.ones_like(numerator))


def _corrected(batch: LoggedBatch, weights: Array) -> Terms:
    modelled = direct_method(batch).numerator
    return _mean(modelled + weights * (batch.reward - _taken(batch.estimates, batch)))
