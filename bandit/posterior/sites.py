"""Gaussian sites that stand for binomial counts, found in the space of the rows' logits.

A site replaces one row's likelihood by exp(t η − W η²/2). Working on the rows' joint Gaussian instead of the
weights makes one pass the cost of one small Cholesky factor, whatever the number of weights; given its sites
the result is the same Gaussian.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from bandit.posterior.linalg import inverse_factor
from bandit.posterior.state import Gaussian

MAX_PASSES = 8
TOLERANCE = 0.02  # logits; a tenth of the smallest posterior sd seen at ad click rates
LARGEST_STEP = 2.0  # logits a pass; keeps 256 clicks at once from overshooting to where W is 0
# Logits; after a longer step another factor is made. Up to it, a pass with its second step ends as near the
# fixed point as two passes without: within 0.006 logits at click rates from 0.3 to 8 %, in batches of 256.
TRUSTED_STEP = 0.5


class Sites(NamedTuple):
    """What each row adds to the information: W and t = W η + c − n p, both exactly 0 for padding."""

    weight: Float[Array, "rows"]
    information: Float[Array, "rows"]


class SiteInfo(NamedTuple):
    """How the search for the sites went.

    Attributes:
        passes: passes used.
        largest_step: the last pass's largest second step, or its largest first one if that was long, in
            logits; above the tolerance the search did not settle.
        clipped_impressions: impressions of rows of which a step was cut short in some pass.
        expected_clicks: clicks that the posterior before the rows expected of them.
        log_evidence: Σ c log p + (n − c) log(1 − p) under that expectation, each row taken alone.
    """

    passes: Int[Array, ""]
    largest_step: Float[Array, ""]
    clipped_impressions: Float[Array, ""]
    expected_clicks: Float[Array, ""]
    log_evidence: Float[Array, ""]


class _Pass(NamedTuple):
    """What one pass hands to the next."""

    mean: Float[Array, "rows"]
    variance: Float[Array, "rows"]
    is_clipped: Bool[Array, "rows"]
    passes: Int[Array, ""]
    moved: Float[Array, ""]


def averaged_rate(mean: Array, variance: Array) -> Array:
    """Return the click rate averaged over a logit's uncertainty: p = σ(η + ½ s² (1 − 2σ(η))).

    The plug-in rate σ(η) would bias the gradient upward.
    """
    return jax.nn.sigmoid(mean + 0.5 * variance * (1 - 2 * jax.nn.sigmoid(mean)))


def site(mean: Array, variance: Array, impressions: Array, clicks: Array) -> Sites:
    """Return the sites of rows whose logits have this mean and variance.

    W = n p (1 − p)    t = W η + c − n p    with p the `averaged_rate`
    """
    p = averaged_rate(mean, variance)
    weight = impressions * p * (1 - p)
    return Sites(weight, weight * mean + clicks - impressions * p)


def condition(prior: Gaussian, sites: Sites) -> Gaussian:
    """Return the rows' joint logits given their sites: C' = C − VᵀV with V = M W^½ C, m' = m + C' (t − W m).

    M is the inverse of the lower Cholesky factor of I + W^½ C W^½.
    """
    inverse = _inverse(prior.covariance, sites.weight)
    half = inverse @ (jnp.sqrt(sites.weight)[:, None] * prior.covariance)
    return Gaussian(_mean(prior, sites, inverse), prior.covariance - half.T @ half)


def _inverse(covariance: Array, weight: Array) -> Array:
    root = jnp.sqrt(weight)
    return inverse_factor(jnp.eye(root.shape[0]) + root[:, None] * covariance * root[None, :])


def _mean(prior: Gaussian, sites: Sites, inverse: Array) -> Array:
    """Return m' = m + C' (t − W m)."""
    return prior.mean + _spread(prior, sites, inverse, sites.information - sites.weight * prior.mean)


def _spread(prior: Gaussian, sites: Sites, inverse: Array, slope: Array) -> Array:
    """Return C' g = C (g − W^½ MᵀM W^½ C g)."""
    root = jnp.sqrt(sites.weight)
    seen = inverse @ (root * (prior.covariance @ slope))
    return prior.covariance @ (slope - root * (seen @ inverse))


def _variance(prior_variance: Array, weight: Array, inverse: Array) -> Array:
    """Return diag C' = (1 − diag MᵀM) / W.

    Rounding in the numerator, divided by a small W, spoils the variance and not the site: there it is
    multiplied by W again.
    """
    divisor = jnp.where(weight > 0, weight, 1.0)
    variance = jnp.clip((1 - jnp.sum(inverse**2, axis=0)) / divisor, 0.0, prior_variance)
    return jnp.where(weight > 0, variance, prior_variance)


def find_sites(prior: Gaussian, impressions: Array, clicks: Array) -> tuple[Sites, Gaussian, SiteInfo]:
    """Iterate the sites of one mini-batch to a fixed point.

    A pass makes one factor and takes two steps with it: to the mean m' that the sites give, and from there
    by C' (c − n p' − (t − W m')), which is 0 at the fixed point and far smaller elsewhere. The last is a step
    of Newton's method with the factor of the step before (a chord), for a twentieth of a factor's cost.

    Args:
        prior: the rows' joint logits before this batch, [rows].
        impressions: n of each row, [rows]; 0 marks padding.
        clicks: c of each row, [rows], at most n.

    Returns:
        The sites, the rows' joint logits given them, and how the search went.
    """
    prior_variance = jnp.diagonal(prior.covariance)

    def one_pass(carry: _Pass) -> _Pass:
        mean, variance, is_clipped = carry.mean, carry.variance, carry.is_clipped
        sites = site(mean, variance, impressions, clicks)
        inverse = _inverse(prior.covariance, sites.weight)
        target = _mean(prior, sites, inverse)
        step = jnp.clip(target - mean, -LARGEST_STEP, LARGEST_STEP)
        is_clipped |= (impressions > 0) & (step != target - mean)
        mean, variance = mean + step, _variance(prior_variance, sites.weight, inverse)
        slope = (
            clicks - impressions * averaged_rate(mean, variance) - (sites.information - sites.weight * target)
        )
        chord = jnp.clip(_spread(prior, sites, inverse, slope), -LARGEST_STEP, LARGEST_STEP)
        first, second = (jnp.max(jnp.where(impressions > 0, jnp.abs(s), 0.0)) for s in (step, chord))
        # After a step that was cut short m' is elsewhere, and the slope with it.
        mean = mean + jnp.where(first < LARGEST_STEP, chord, 0.0)
        moved = jnp.where(first < TRUSTED_STEP, second, first)
        return _Pass(mean, variance, is_clipped, carry.passes + 1, moved)

    def unsettled(carry: _Pass) -> Array:
        return (carry.moved >= TOLERANCE) & (carry.passes < MAX_PASSES)

    blank = jnp.zeros(impressions.shape, bool)
    start = _Pass(prior.mean, jnp.minimum(prior_variance, 1.0), blank, jnp.array(0), jnp.array(jnp.inf))
    last = jax.lax.while_loop(unsettled, one_pass, start)
    sites = site(last.mean, last.variance, impressions, clicks)
    p = jnp.clip(averaged_rate(start.mean, start.variance), 1e-12, 1 - 1e-12)  # logarithms of 0 are of no use
    info = SiteInfo(
        passes=last.passes,
        largest_step=last.moved,
        clipped_impressions=jnp.sum(impressions * last.is_clipped),
        expected_clicks=jnp.sum(impressions * p),
        log_evidence=jnp.sum(clicks * jnp.log(p) + (impressions - clicks) * jnp.log1p(-p)),
    )
    return sites, condition(prior, sites), info
