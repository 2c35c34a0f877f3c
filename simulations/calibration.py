"""What a policy says of its own choices: the click rate that it expects, and how probable the choice was.

Both are counted by level while it plays, so that a run of any length takes the same room.
"""

from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from bandit.posterior import Gaussian

# Edges of the levels of an expected click rate, in logits: 0.05 % to 99.95 %, steps of 15 to 20 % of a rate.
LOGIT_EDGES: Final = tuple(np.arange(-7.6, 7.8, 0.2).round(1).tolist())
# Edges of the levels of a probability: five to a factor of ten.
PROBABILITY_EDGES: Final = tuple((10.0 ** (np.arange(-19, 0) / 5)).tolist())
GROUPS: Final = 10  # of a calibration, of about as many impressions each


class Record(NamedTuple):
    """Sums over some impressions, by level.

    Attributes:
        forecasts: of the impressions whose expected click rate was in a level: how many they were, the
            clicks expected and the clicks reported.
        probabilities: of some of them, impressions by the probability with which they were drawn.
    """

    forecasts: Float[Array, "levels 3"]
    probabilities: Float[Array, "bins"]


def no_record() -> Record:
    """Return the record of no impressions."""
    return Record(jnp.zeros((len(LOGIT_EDGES) + 1, 3)), jnp.zeros(len(PROBABILITY_EDGES) + 1))


def record_of(
    expected: Float[Array, "batch"], clicks: Float[Array, "batch"], probability: Float[Array, "some"]
) -> Record:
    """Return the record of a batch.

    Args:
        expected: click rate of each shown creative, as the policy expected it.
        clicks: what was reported, 0 or 1.
        probability: with which it was drawn, of some of them.
    """
    none = no_record()
    level = jnp.searchsorted(jnp.asarray(LOGIT_EDGES), jax.scipy.special.logit(expected))
    bin_ = jnp.searchsorted(jnp.asarray(PROBABILITY_EDGES), probability, side="right")
    sums = jnp.stack([jnp.ones_like(expected), expected, clicks], axis=1)
    return Record(none.forecasts.at[level].add(sums), none.probabilities.at[bin_].add(1.0))


def expected_rate(logits: Gaussian, arm: Int[Array, ""]) -> Float[Array, ""]:
    """Return the click rate that a belief about logits expects of one arm.

        E σ(θ) ≈ σ(m / √(1 + π v / 8))    θ ~ N(m, v)

    References:
        D. J. C. MacKay, "The evidence framework applied to classification networks", Neural Computation 4,
        1992, equation 10; it is within 0.003 of the exact mean for the rates of ads.
    """
    mean, variance = logits.mean[arm], logits.covariance[arm, arm]
    return jax.nn.sigmoid(mean / jnp.sqrt(1 + jnp.pi * variance / 8))


def summed(record: Record) -> Record:
    """Return the sum over runs, leaves [runs, …]."""
    return Record._make(leaf.sum(axis=0) for leaf in record)


class Calibration(NamedTuple):
    """Click rates that a policy expected of what it showed, and what came of them, in groups.

    Attributes:
        impressions: of each group.
        expected: mean of the click rates expected.
        realised: clicks / impressions.
        low: lower end of the 95 % interval of that.
        high: upper end.
    """

    impressions: Float[np.ndarray, "groups"]
    expected: Float[np.ndarray, "groups"]
    realised: Float[np.ndarray, "groups"]
    low: Float[np.ndarray, "groups"]
    high: Float[np.ndarray, "groups"]


def wilson(
    clicks: Float[np.ndarray, "..."], impressions: Float[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Return the ends of the 95 % interval of a click rate; it is within [0, 1], without clicks too.

    References:
        E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    z2 = 1.959964**2
    rate, spread = clicks / impressions, z2 / impressions
    middle = (rate + spread / 2) / (1 + spread)
    half = np.sqrt(rate * (1 - rate) * spread + spread**2 / 4) / (1 + spread)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def calibration_of(record: Record, n_groups: int = GROUPS) -> Calibration:
    """Set the click rates that a policy expected beside those that came, in groups of like expectation.

    Args:
        record: sums over batches, and over runs where they are one case; leaves [levels, …].
        n_groups: at most as many; neighbouring levels are joined until each group has its part.
    """
    kept = np.asarray(record.forecasts, float)
    kept = kept[kept[:, 0] > 0]
    middle = kept[:, 0].cumsum() - kept[:, 0] / 2
    group = np.minimum((middle / kept[:, 0].sum() * n_groups).astype(int), n_groups - 1)
    impressions, expected, clicks = np.stack([kept[group == one].sum(axis=0) for one in np.unique(group)]).T
    low, high = wilson(clicks, impressions)
    return Calibration(impressions, expected / impressions, clicks / impressions, low, high)
