"""What policies earned in the runs of the loop: regret curves, traffic shares, and rows of results."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from simulations.calibration import Record
from simulations.loop import Step
from simulations.policies.settings import PolicySetting
from simulations.reports.results import HorizonCurve, LiftCurve, RegretCurve, TrafficShares

N_STRETCHES = 25  # of time, in pictures


class Played(NamedTuple):
    """What one policy earned in some runs, per batch and in expected clicks; a run is a world and a seed.

    Attributes:
        setting: the policy.
        batch: impressions of one batch.
        earned: of the shown creatives.
        best: of the best creative of each request.
        uniform: of all creatives alike.
        shown: impressions of each creative.
        record: what the policy said of its choices, summed over batches; None when it expects nothing.
    """

    setting: PolicySetting
    batch: int
    earned: Float[np.ndarray, "runs batches"]
    best: Float[np.ndarray, "runs batches"]
    uniform: Float[np.ndarray, "runs batches"]
    shown: Float[np.ndarray, "runs batches arms"]
    record: Record | None = None


def played_of(setting: PolicySetting, batch: int, steps: Sequence[Step], n_batches: int) -> Played:
    """Return what one policy earned, from the first batches of each of its runs."""
    earned, best, uniform, shown = (
        np.stack([np.asarray(getattr(step, name))[:n_batches] for step in steps])
        for name in ("earned", "best", "uniform", "shown")
    )
    records = [step.record for step in steps if step.record is not None]
    record = Record._make(map(np.stack, zip(*records, strict=True))) if records else None
    return Played(setting, batch, earned, best, uniform, shown, record)


def uniform_of(played: Played) -> Played:
    """Return what showing all creatives alike would have earned on the same requests; exact, not played."""
    n_arms = played.shown.shape[-1]
    shown = np.full_like(played.shown, played.batch / n_arms)
    nobody = PolicySetting(policy="uniform")
    return played._replace(setting=nobody, earned=played.uniform, shown=shown, record=None)


def oracle_of(played: Played) -> Played:
    """Return what the best creative of every request would have earned; whom it shows is not recorded."""
    shown = np.full_like(played.shown, np.nan)
    nobody = PolicySetting(policy="oracle")
    return played._replace(setting=nobody, earned=played.best, shown=shown, record=None)


def regret_curve(played: Played, n_campaigns: int = 1) -> RegretCurve:
    """Return cumulative regret, summed over the campaigns of a seed; runs come campaign by campaign."""
    lost = (played.best - played.earned).cumsum(axis=1)
    return RegretCurve(played.setting.policy, lost.reshape(n_campaigns, -1, lost.shape[1]).sum(axis=0))


def horizon_curve(runs: Sequence[Played]) -> HorizonCurve:
    """Return what a policy lost in runs of different lengths, in their order; the same seeds in each."""
    lost = np.stack([(played.best - played.earned).sum(axis=1) for played in runs], axis=1)
    return HorizonCurve(runs[0].setting.policy, lost)


def lift_curve(played: Played, n_campaigns: int = 1) -> LiftCurve:
    """Return the share of the oracle's lift that a policy got in each stretch of time, as in `score`."""
    splits = (_stretches(leaf, axis=1) for leaf in (played.earned, played.best, played.uniform))
    shares = [
        share_of_lift(*(_by_seed(part, n_campaigns) for part in parts)) for parts in zip(*splits, strict=True)
    ]
    share, error = np.array(shares).T
    return LiftCurve(played.setting.policy, share, error, len(played.earned) // n_campaigns)


def stretch_ends(played: Played, n_campaigns: int = 1) -> Int[np.ndarray, "stretches"]:
    """Return the impressions until the end of each stretch of `lift_curve`."""
    return np.array([times[-1] for times in _stretches(impressions_of(played, n_campaigns), axis=0)])


def _stretches(values: np.ndarray, axis: int, n_times: int = N_STRETCHES) -> list[np.ndarray]:
    """Cut a run into stretches of time."""
    return np.array_split(values, min(n_times, values.shape[axis]), axis=axis)


def _by_seed(values: Float[np.ndarray, "runs batches"], n_campaigns: int) -> Float[np.ndarray, "seeds"]:
    """Sum over batches, and over the campaigns of a seed; runs come campaign by campaign."""
    total: np.ndarray = values.sum(axis=1).reshape(n_campaigns, -1).sum(axis=0)
    return total


def share_of_lift(
    earned: Float[np.ndarray, "seeds"], best: Float[np.ndarray, "seeds"], uniform: Float[np.ndarray, "seeds"]
) -> tuple[float, float]:
    """Return the share of the lift over all seeds and its standard error, by the delta method over seeds."""
    gain, lift = earned - uniform, best - uniform
    if lift.sum() <= 0:
        return 0.0, 0.0
    share = gain.sum() / lift.sum()
    return float(share), _error((gain - share * lift) / lift.mean())


def impressions_of(played: Played, n_campaigns: int = 1) -> Int[np.ndarray, "time"]:
    """Return the times of the columns of `regret_curve`."""
    return np.arange(1, played.earned.shape[1] + 1) * played.batch * n_campaigns


def traffic_shares(
    played: Played,
    creative_ids: Sequence[str],
    runs: Sequence[int] | slice = slice(None),
    n_times: int = N_STRETCHES,
) -> TrafficShares:
    """Return who got the traffic, as means over runs of one world and over stretches of time.

    Args:
        played: the runs.
        creative_ids: names of the creatives.
        runs: which runs.
        n_times: stretches, at most.
    """
    stretches = _stretches(played.shown[runs].sum(axis=0), 0, n_times)
    counts = np.stack([stretch.sum(axis=0) for stretch in stretches])
    ends = np.cumsum([len(stretch) for stretch in stretches]) * played.batch
    return TrafficShares(
        played.setting.policy, ends, tuple(creative_ids), counts / counts.sum(axis=1, keepdims=True)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """A row of results: one policy over all runs.

    Attributes:
        policy: its name.
        setting: its settings, in words.
        impressions: of one seed, all campaigns together.
        seeds: how many.
        clicks: expected clicks, mean over seeds.
        share_of_lift: (clicks − uniform's) / (oracle's − uniform's), a fraction.
        standard_error: of that share, by the delta method over seeds.
        regret: expected clicks lost against the oracle, mean over seeds.
        regret_error: standard error of that.
    """

    policy: str
    setting: str
    impressions: int
    seeds: int
    clicks: float
    share_of_lift: float
    standard_error: float
    regret: float
    regret_error: float


def score(played: Played, n_campaigns: int = 1) -> Score:
    """Return a policy's row of results; errors are 0 with a single seed.

    Args:
        played: its runs, campaign by campaign.
        n_campaigns: runs of one seed, whose clicks are summed.
    """
    earned, best, uniform = (
        _by_seed(leaf, n_campaigns) for leaf in (played.earned, played.best, played.uniform)
    )
    share, error = share_of_lift(earned, best, uniform)
    lost = best - earned
    return Score(
        policy=played.setting.policy,
        setting=played.setting.setting_id,
        impressions=int(impressions_of(played, n_campaigns)[-1]),
        seeds=len(earned),
        clicks=float(earned.mean()),
        share_of_lift=share,
        standard_error=error,
        regret=float(lost.mean()),
        regret_error=_error(lost),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """A row of results: one policy beside the one that the others are compared with, on the same seeds.

    Attributes:
        policy: its name.
        setting: its settings, in words.
        impressions: of one seed.
        seeds: how many.
        clicks: expected clicks, mean over seeds.
        regret: expected clicks lost against the oracle, mean over seeds.
        regret_error: standard error of that.
        of_uniform: regret / regret of showing all alike, a fraction, mean over seeds.
        of_uniform_error: standard error of that.
        more_than_engine: `of_uniform` minus the engine's, mean over seeds.
        more_than_engine_error: standard error of that paired difference.
        engine_saves: 1 − the engine's `of_uniform` / this one's; None where this one loses nothing.
        engine_saves_error: standard error of that, paired, by the delta method over seeds.
        fewer_clicks: the engine's clicks minus this one's, mean over seeds.
        fewer_clicks_error: standard error of that paired difference.
    """

    policy: str
    setting: str
    impressions: int
    seeds: int
    clicks: float
    regret: float
    regret_error: float
    of_uniform: float
    of_uniform_error: float
    more_than_engine: float
    more_than_engine_error: float
    engine_saves: float | None
    engine_saves_error: float | None
    fewer_clicks: float
    fewer_clicks_error: float


def compare(outcomes: Sequence[Played]) -> list[Comparison]:
    """Return a row per policy.

    Args:
        outcomes: what each earned on the same seeds, one run per seed; the engine first.
    """
    return [_compared(played, outcomes[0]) for played in outcomes]


def _of_uniform(played: Played) -> Float[np.ndarray, "runs"]:
    """Return regret / uniform's of each run; 0 in a world whose creatives are all alike."""
    lost, lift = (played.best - other for other in (played.earned, played.uniform))
    return np.divide(lost.sum(axis=1), lift.sum(axis=1), out=np.zeros(len(lost)), where=lift.sum(axis=1) > 0)


def _compared(played: Played, first: Played) -> Comparison:
    lost = (played.best - played.earned).sum(axis=1)
    fewer = (first.earned - played.earned).sum(axis=1)
    share, engine = _of_uniform(played), _of_uniform(first)
    more = share - engine
    ratio = engine.mean() / share.mean() if share.mean() > 0 else None
    return Comparison(
        policy=played.setting.policy,
        setting=played.setting.setting_id,
        impressions=int(impressions_of(played)[-1]),
        seeds=len(share),
        clicks=float(played.earned.sum(axis=1).mean()),
        regret=float(lost.mean()),
        regret_error=_error(lost),
        of_uniform=float(share.mean()),
        of_uniform_error=_error(share),
        more_than_engine=float(more.mean()),
        more_than_engine_error=_error(more),
        engine_saves=None if ratio is None else float(1 - ratio),
        engine_saves_error=None if ratio is None else _error((engine - ratio * share) / share.mean()),
        fewer_clicks=float(fewer.mean()),
        fewer_clicks_error=_error(fewer),
    )


def _error(values: np.ndarray) -> float:
    """Return the standard error of a mean; 0 for a single value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
