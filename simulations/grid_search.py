"""Choosing a policy's setting from its grid, by runs that are not scored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from simulations.policies.settings import PolicySetting
from simulations.reports.scores import Played, compare


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting of one policy on the runs for tuning; attributes as in `Comparison`."""

    policy: str
    setting: str
    seeds: int
    of_uniform: float
    of_uniform_error: float


def tuned(
    grids: Mapping[str, Sequence[PolicySetting]],
    play: Callable[[Sequence[PolicySetting]], Sequence[Played]],
) -> tuple[dict[str, PolicySetting], list[Trial]]:
    """Return the setting of each policy that loses least, and what all of them lost.

    Args:
        grids: each policy's settings.
        play: plays settings, all on the same runs.
    """
    played = iter(play([one for grid in grids.values() for one in grid]))
    chosen, trials = dict[str, PolicySetting](), list[Trial]()
    for policy, grid in grids.items():
        rows = compare([next(played) for _ in grid])
        chosen[policy] = grid[min(range(len(grid)), key=lambda i: rows[i].of_uniform)]
        trials += [
            Trial(
                policy=row.policy,
                setting=row.setting,
                seeds=row.seeds,
                of_uniform=row.of_uniform,
                of_uniform_error=row.of_uniform_error,
            )
            for row in rows
        ]
    return chosen, trials
