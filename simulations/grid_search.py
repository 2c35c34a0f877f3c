"""Choosing a policy's setting from its grid, by runs that are not scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from simulations.reports.scores import Played, compare

S = TypeVar("S")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting of one policy on the runs for tuning; attributes as in `Comparison`."""

    policy: str
    setting: str
    seeds: int
    of_uniform: float
    of_uniform_error: float


def best_of(grid: Sequence[S], tried: Sequence[Played]) -> tuple[S, list[Trial]]:
    """Return the setting that loses least, and what each of them lost.

    Args:
        grid: one policy's settings.
        tried: what each earned, all on the same runs.
    """
    rows = compare(tried)
    best = min(range(len(grid)), key=lambda i: rows[i].of_uniform)
    trials = [
        Trial(
            policy=row.policy,
            setting=row.setting,
            seeds=row.seeds,
            of_uniform=row.of_uniform,
            of_uniform_error=row.of_uniform_error,
        )
        for row in rows
    ]
    return grid[best], trials
