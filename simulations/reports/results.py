"""Tidy results of simulations: what the loop hands to tables and pictures."""

import dataclasses
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

from simulations.errors import SimulationError


class ResultError(SimulationError, ValueError):
    """Results that cannot be reported."""


class RegretCurve(NamedTuple):
    """Cumulative regret of one policy.

    Attributes:
        policy: its name.
        regret: expected clicks lost against the oracle until each time; one row per seed.
    """

    policy: str
    regret: Float[np.ndarray, "seeds time"]


class LiftCurve(NamedTuple):
    """Share of the oracle's lift that one policy got, stretch by stretch of time.

    Attributes:
        policy: its name.
        share: (clicks − uniform's) / (oracle's − uniform's) of each stretch, over all seeds.
        error: standard error of that, over seeds.
        seeds: how many.
    """

    policy: str
    share: Float[np.ndarray, "stretches"]
    error: Float[np.ndarray, "stretches"]
    seeds: int


class HorizonCurve(NamedTuple):
    """What one policy lost in runs of different lengths, each of which it was told.

    Attributes:
        policy: its name.
        regret: expected clicks lost by the end; one row per seed.
    """

    policy: str
    regret: Float[np.ndarray, "seeds horizons"]


class TrafficShares(NamedTuple):
    """What each creative got of the traffic.

    Attributes:
        policy: who decided.
        impressions: impressions of the campaign until each time.
        creative_ids: the columns of `shares`.
        shares: fractions of the traffic around each time; each row sums to 1.
    """

    policy: str
    impressions: Int[np.ndarray, "time"]
    creative_ids: tuple[str, ...]
    shares: Float[np.ndarray, "time creatives"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmInterval:
    """What is known of one creative's CTR.

    Attributes:
        creative_id: the creative.
        impressions: how often it was shown.
        estimate: CTR, a fraction.
        low: lower end of its 95 % interval.
        high: upper end.
        truth: the true CTR, where a world knows it.
    """

    creative_id: str
    impressions: int
    estimate: float
    low: float
    high: float
    truth: float | None = None


class LiftRow(Protocol):
    """What a line of an archive's results must have: one policy, in one setting, at one length of test.

    Attributes:
        policy: its name.
        setting: its settings, in words.
        per_arm: T, impressions per headline.
        tests: number of tests scored.
        clicks: expected clicks, summed over the tests.
        share_of_lift: (clicks − uniform's) / (oracle's − uniform's), a fraction.
        standard_error: of `share_of_lift`.
    """

    @property
    def policy(self) -> str: ...  # noqa: D102  # all are described above
    @property
    def setting(self) -> str: ...  # noqa: D102  # described above
    @property
    def per_arm(self) -> int: ...  # noqa: D102  # described above
    @property
    def tests(self) -> int: ...  # noqa: D102  # described above
    @property
    def clicks(self) -> float: ...  # noqa: D102  # described above
    @property
    def share_of_lift(self) -> float: ...  # noqa: D102  # described above
    @property
    def standard_error(self) -> float: ...  # noqa: D102  # described above


class Band(NamedTuple):
    """A mean over seeds with its 95 % band."""

    mean: Float[np.ndarray, "time"]
    low: Float[np.ndarray, "time"]
    high: Float[np.ndarray, "time"]


def regret_band(curve: RegretCurve | HorizonCurve) -> Band:
    """Average a policy's regret over seeds, with its 95 % band.

    Args:
        curve: the policy's regret.

    Returns:
        The band, in clicks; with a single seed it has no width.

    Raises:
        ResultError: when the regret is not a finite table with a row per seed.
    """
    regret = np.asarray(curve.regret, dtype=np.float64)
    if regret.ndim != 2 or regret.size == 0:
        raise ResultError(
            f"regret of {curve.policy} must have the shape [seeds, time], got {list(regret.shape)}"
        )
    if not np.isfinite(regret).all():
        seed, time = np.argwhere(~np.isfinite(regret))[0]
        raise ResultError(
            f"regret of {curve.policy} must be finite, got {regret[seed, time]} at [{seed}, {time}]"
        )
    n_seeds = regret.shape[0]
    mean = regret.mean(axis=0)
    error = regret.std(axis=0, ddof=1) / np.sqrt(n_seeds) if n_seeds > 1 else np.zeros_like(mean)
    half = errors_of_95(n_seeds) * error if n_seeds > 1 else error
    return Band(mean, mean - half, mean + half)


def errors_of_95(n: int) -> float:
    """Return how many standard errors of a mean of n values its 95 % interval reaches to each side.

    Student's t with n − 1 degrees of freedom; infinite for a single value, of which there is no error.

    Example:
        >>> [round(errors_of_95(n), 2) for n in (4, 8, 24)]
        [3.18, 2.36, 2.07]
    """
    return float(stdtrit(n - 1, 0.975)) if n > 1 else float("inf")
