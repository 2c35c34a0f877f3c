"""How far an estimate may be from the truth."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from simulations.ope.estimators import Terms


class Interval(NamedTuple):
    """Where the value lies, with the confidence asked for."""

    low: Float[Array, "..."]
    high: Float[Array, "..."]


@partial(jax.jit, static_argnames=("confidence", "n_resamples"))
def bootstrap(
    terms: Terms, key: Array, *, confidence: float = 0.95, n_resamples: int = 1_000
) -> tuple[Interval, Array]:
    """Return percentile intervals and standard errors of estimates, all from the same resampled rows.

    Args:
        terms: of several estimators, leaves [estimators, rows].
        key: of the resampling.
        confidence: the intervals'.
        n_resamples: how often rows are drawn again.

    Returns:
        Intervals and standard errors, [estimators]. Resamples in which nothing counts are left out.

    References:
        B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.
    """
    n_rows = terms.numerator.shape[1]

    def resampled(own: Array) -> Array:
        rows = jax.random.randint(own, (n_rows,), 0, n_rows)
        counts = jnp.zeros(n_rows, terms.numerator.dtype).at[rows].add(1.0)
        return (terms.numerator @ counts) / (terms.denominator @ counts)

    values = jax.lax.map(resampled, jax.random.split(key, n_resamples))
    tail = (1 - confidence) / 2
    low, high = jnp.nanquantile(values, jnp.array([tail, 1 - tail]), axis=0)
    return Interval(low, high), jnp.nanstd(values, axis=0, ddof=1)


def empirical_bernstein(
    values: Float[Array, "rows"], span: Array | float, *, confidence: float = 0.95
) -> Interval:
    """Return an interval that holds the mean with at least the confidence, whatever the distribution.

        |mean − E| ≤ √(2 s² ln(4/δ) / n) + 7 R ln(4/δ) / (3 (n − 1))

    Args:
        values: independent, with the same mean.
        span: R, the largest minus the smallest value that is possible.
        confidence: 1 − δ.

    References:
        A. Maurer, M. Pontil, "Empirical Bernstein bounds and sample-variance penalization", COLT 2009,
        theorem 4, on both sides.
    """
    n_rows = values.shape[0]
    logarithm = jnp.log(4 / (1 - confidence))
    mean, variance = jnp.mean(values), jnp.var(values, ddof=1)
    error = jnp.sqrt(2 * variance * logarithm / n_rows) + 7 * span * logarithm / (3 * (n_rows - 1))
    return Interval(mean - error, mean + error)
