"""The head on frozen vectors: a ridge in the likelihood of clicks, or of conversions."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize

from .campaigns import PastCampaign
from .objective import profiled_gain

# Standard deviations of a weight to choose from. A weight of 0.2 on each of 384 coordinates moves the logit
# by 0.2 between two texts as far apart as two of one campaign usually are, a distance of about 1.
SCALES = (0.05, 0.1, 0.2, 0.4, 0.8)


class Counts(NamedTuple):
    """Hold the counts of many campaigns as arrays, in float64."""

    campaign: np.ndarray
    trials: np.ndarray
    successes: np.ndarray
    n_campaigns: int


class Head(NamedTuple):
    """Hold a head: s = vector · weights.

    Args:
        weights: One per coordinate of a vector.
        scale: Standard deviation of a weight, a priori.
    """

    weights: Float[np.ndarray, "dim"]
    scale: float


def counts_of(campaigns: Sequence[PastCampaign]) -> Counts:
    """Lay the counts of campaigns out as arrays."""
    sizes = [len(campaign.creatives) for campaign in campaigns]
    return Counts(
        np.repeat(np.arange(len(campaigns)), sizes),
        np.concatenate([campaign.impressions for campaign in campaigns]),
        np.concatenate([campaign.clicks for campaign in campaigns]),
        len(campaigns),
    )


def gains(scores: Float[np.ndarray, "creatives"], counts: Counts) -> Float[np.ndarray, "campaigns"]:
    """Compute each campaign's gain in float64; see `profiled_gain`."""
    with jax.enable_x64(True):
        return np.asarray(profiled_gain(jnp.asarray(scores, float), *counts))


def fit_head(vectors: Float[np.ndarray, "creatives dim"], counts: Counts, scale: float) -> Head:
    """Maximise Σ_c gain_c - |w|² / (2 scale²), which is concave.

    Args:
        vectors: Of each creative.
        counts: Of the same.
        scale: Standard deviation of a weight, a priori.
    """
    with jax.enable_x64(True):
        x = jnp.asarray(vectors, float)

        @jax.jit
        def loss(weights: Array) -> tuple[Array, Array]:
            def value(w: Array) -> Array:
                gain = profiled_gain(x @ w, *counts).sum()
                return w @ w / (2 * scale**2) - gain

            both: tuple[Array, Array] = jax.value_and_grad(value)(weights)
            return both

        def on_host(weights: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = loss(jnp.asarray(weights))
            return float(value), np.asarray(gradient)

        found = minimize(on_host, np.zeros(vectors.shape[1]), jac=True, method="L-BFGS-B")
    return Head(found.x, scale)


def choose_head(
    vectors: Float[np.ndarray, "creatives dim"],
    counts: Counts,
    later_vectors: Float[np.ndarray, "later dim"],
    later_counts: Counts,
) -> Head:
    """Fit a head with the scale that gains most on later campaigns."""
    heads = [fit_head(vectors, counts, scale) for scale in SCALES]
    return max(heads, key=lambda head: gains(later_vectors @ head.weights, later_counts).sum())
