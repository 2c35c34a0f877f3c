"""Running synthetic worlds from policies' names to report: tune, play, compare, write."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from bandit.features import PriorScales
from bandit.numerics import keep_compiled_programs
from simulations.cells import HERE, Arrays, Workers, code_digest, run_cells
from simulations.changes import Changes
from simulations.errors import unknown
from simulations.folders import check_free
from simulations.page import Section, Table
from simulations.played import (
    Comparison,
    Played,
    compare,
    impressions_of,
    oracle_of,
    regret_curve,
    traffic_shares,
    uniform_of,
)
from simulations.progress import progress_of
from simulations.report import regret_section, shares_section, write_csv, write_html
from simulations.rivals import GRIDS, RIVALS, TUNED, RivalSetting
from simulations.settings import WORLD_SETTINGS, WORLD_TUNED, Setting, grid
from simulations.synthetic import ENDS, POLICIES, draw_worlds, play_worlds
from simulations.visits import WorldError
from simulations.worlds import EffectSizes

ENGINE = "engine"
N_TUNING = 4  # worlds on which settings are chosen
TUNING_SEED = 1_000  # the first of those worlds and their traffic; scored ones count from 0

AnySetting = Setting | RivalSetting
DEFAULTS: Mapping[str, AnySetting] = {setting.policy: setting for setting in WORLD_SETTINGS}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be played.

    Attributes:
        policies: names out of `synthetic.POLICIES`; the engine always plays, others are compared with it.
        seeds: worlds, each with traffic of its own.
        impressions: of each world.
        creatives: of each world.
        batch: impressions between two updates.
        sizes: how strong the worlds' effects are.
        changes: how the worlds change while they are played; None for not at all.
        is_tuned: whether others' settings are first chosen from their grids, on other such worlds.
        preset: name of the kind of traffic that this is, if it has one.
    """

    policies: tuple[str, ...]
    seeds: int = 8
    impressions: int = 100_000
    creatives: int = 20
    batch: int = 500
    sizes: EffectSizes = field(default_factory=EffectSizes)
    changes: Changes | None = None
    is_tuned: bool = False
    preset: str = ""

    def __post_init__(self) -> None:
        strange = [unknown("policy", name, POLICIES) for name in self.policies if name not in POLICIES]
        if strange:
            raise WorldError("; ".join(strange))
        if len(set(self.policies)) < len(self.policies):
            raise WorldError(f"expected each policy once, got {', '.join(self.policies)}")
        if self.creatives < 1:
            raise WorldError(f"expected at least one creative, got {self.creatives}")
        if not 1 <= self.seeds <= TUNING_SEED:
            raise WorldError(f"expected 1 to {TUNING_SEED:,} seeds, got {self.seeds}")
        if not 1 <= self.batch <= self.impressions:
            raise WorldError(
                f"expected 1 <= batch <= impressions, got batch={self.batch}, impressions={self.impressions}"
            )


@dataclass(frozen=True, kw_only=True)
class Run:
    """A cell: one policy in one world of a plan.

    Attributes:
        plan: what the world is like, and how long it is played.
        setting: the policy.
        first_seed: of the plan's worlds.
        number: of the world among them, from 0; its traffic has the seed `first_seed + number`.
    """

    plan: Plan
    setting: AnySetting
    first_seed: int
    number: int

    @property
    def identity(self) -> Mapping[str, object]:
        """All that its numbers depend on."""
        about = {name: value for name, value in asdict(self.plan).items() if name not in _OF_NO_RUN}
        return {
            "plan": about,
            "policy": self.setting.policy,
            "setting": asdict(self.setting),
            "first_seed": self.first_seed,
            "number": self.number,
            "jax": jax.__version__,
            "code": code_digest(),
        }


_OF_NO_RUN = ("policies", "seeds", "is_tuned")  # fields of a plan that say which runs there are


def play_run(run: Run) -> Arrays:
    """Play one cell; its arrays are those of a `Played`, without the axis of runs."""
    keep_compiled_programs()
    plan, seed = run.plan, run.first_seed + run.number
    worlds = draw_worlds(
        run.first_seed,
        n_worlds=run.number + 1,
        n_creatives=plan.creatives,
        sizes=plan.sizes,
        changes=plan.changes,
        impressions=plan.impressions,
    )
    played = play_worlds(worlds[-1:], run.setting, plan.impressions, seeds=[seed], batch=plan.batch)
    return {name: getattr(played, name)[0] for name in _ARRAYS}


_ARRAYS = ("earned", "best", "uniform", "shown")  # of a `Played`


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting of one policy on the tuning worlds; attributes as in `Comparison`."""

    policy: str
    setting: str
    seeds: int
    of_uniform: float
    of_uniform_error: float


def run_synthetic(
    plan: Plan,
    out: Path,
    *,
    overwrite: bool = False,
    workers: Workers = HERE,
    console: Console | None = None,
) -> list[Comparison]:
    """Play synthetic worlds with every policy; write results.csv and report.html, and tuning.csv if tuned.

    Each run is kept in the folder `cells` as soon as it is finished: a run that was interrupted goes on from
    there, and another one of more seeds or policies computes only those.

    Args:
        plan: what is to be played.
        out: Folder for the results; made when it is not there.
        overwrite: Whether results that are there are replaced; finished runs are kept all the same.
        workers: Where the runs are computed; the results do not depend on it.
        console: Where progress is shown; None shows none.

    Returns:
        A row per policy, the engine's first; uniform and oracle come last. They are exact, but in worlds
        with fatigue, where they play.

    Raises:
        ResultsExistError: The folder has results already, and `overwrite` is not set.
        SweepError: A run ended its worker again and again, or Ray is not installed.
    """
    check_free(out, overwrite=overwrite)
    others = [name for name in plan.policies if name != ENGINE]
    tuned = [name for name in others if name in (*RIVALS, *WORLD_TUNED)] if plan.is_tuned else []
    n_trials = sum(len(_grid(name)) for name in tuned)
    with progress_of(console) as progress:
        ends = ENDS if plan.changes and plan.changes.fatigue else ()
        n_played = 1 + len(others) + len(ends)
        task = progress.add_task("", total=n_trials * N_TUNING + n_played * plan.seeds)

        def play(what: str, settings: Sequence[AnySetting], first_seed: int, n_seeds: int) -> list[Played]:
            progress.update(task, description=what)
            runs = [
                Run(plan=plan, setting=setting, first_seed=first_seed, number=number)
                for setting in settings
                for number in range(n_seeds)
            ]
            found = run_cells(
                play_run, runs, workers=workers, kept=out / "cells", advance=lambda: progress.advance(task)
            )
            return [
                _joined(setting, plan.batch, found[i * n_seeds : (i + 1) * n_seeds])
                for i, setting in enumerate(settings)
            ]

        settings, trials = {**DEFAULTS, **TUNED}, list[Trial]()
        tried = play("tuning", [one for name in tuned for one in _grid(name)], TUNING_SEED, N_TUNING)
        for name in tuned:
            own = [played for played in tried if played.setting.policy == name]
            settings[name], rows_of_grid = _tuned(_grid(name), own)
            trials += rows_of_grid
        chosen = [settings[name] for name in (ENGINE, *others)]
        chosen += [Setting(policy=name) for name in ends]
        outcomes = play("playing", chosen, 0, plan.seeds)
    if not ends:  # else what a moment offers depends on who played before it
        outcomes += [uniform_of(outcomes[0]), oracle_of(outcomes[0])]
    rows = compare(outcomes)
    if trials:
        write_csv(trials, out / "tuning.csv")
    write_csv(rows, out / "results.csv")
    _write_report(out / "report.html", plan, outcomes, rows)
    return rows


def _joined(setting: AnySetting, batch: int, found: Sequence[Arrays]) -> Played:
    return Played(setting, batch, *(np.stack([arrays[name] for arrays in found]) for name in _ARRAYS))


def _grid(policy: str) -> Sequence[AnySetting]:
    """Return the settings that a policy is tuned on; as many for every one."""
    return GRIDS[policy] if policy in RIVALS else grid(policy)


def _tuned(grid: Sequence[AnySetting], tried: Sequence[Played]) -> tuple[AnySetting, list[Trial]]:
    """Return the setting that loses least, and what each of them lost."""
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


def _write_report(path: Path, plan: Plan, outcomes: Sequence[Played], rows: Sequence[Comparison]) -> None:
    *played, _ = outcomes
    settings = {
        **({"preset": plan.preset} if plan.preset else {}),
        "impressions": f"{plan.impressions:,}",
        "creatives": plan.creatives,
        "seeds": f"{plan.seeds}; each is a world with traffic of its own",
        "impressions between two updates": plan.batch,
        "rivals' settings": f"the best of a grid on {N_TUNING} other worlds"
        if plan.is_tuned
        else "as shipped",
        "effects": ", ".join(f"{name} {value}" for name, value in asdict(plan.sizes).items()),
        **({"changes": plan.changes.setting_id or "none"} if plan.changes else {}),
        "engine's prior": ", ".join(f"{name} {value:g}" for name, value in PriorScales()._asdict().items()),
        "jax": jax.__version__,
    }
    names = [f"creative {number}" for number in range(1, plan.creatives + 1)]
    sections = [
        comparison_section(rows, has_fatigue=bool(plan.changes and plan.changes.fatigue)),
        regret_section([regret_curve(one) for one in played], impressions_of(played[0])),
        shares_section(traffic_shares(played[0], names, runs=[0])),
    ]
    title = f"Synthetic worlds: {plan.preset}" if plan.preset else "Synthetic worlds with contexts"
    write_html(path, title, sections, settings=settings)


FATIGUE = (
    " Creatives tire here: the best is that of the moment as the policy itself has left it, so sparing a "
    "creative for later earns clicks, but no credit in the other columns. Compare clicks."
)


def comparison_section(rows: Sequence[Comparison], *, has_fatigue: bool = False) -> Section:
    """Show how much of uniform's regret each policy keeps."""
    return Section(
        heading="What each policy lost",
        caption="Clicks lost against always showing the best creative for each request, as a share of what "
        "showing all alike would have lost: 0 % is perfect, 100 % has learnt nothing. Differences are of "
        "runs in the same worlds with the same traffic. ± is one standard error over the worlds."
        + (FATIGUE if has_fatigue else ""),
        table=Table(header=HEADER, rows=tuple(row_of(row) for row in rows)),
    )


HEADER = (
    *("policy", "setting", "seeds", "clicks", "clicks lost"),
    *("of uniform's", "more than engine", "engine saves"),
)


def row_of(row: Comparison) -> tuple[str, ...]:
    """Return a row as it is to be read, in the columns of `HEADER`."""
    saves = row.engine_saves, row.engine_saves_error
    return (
        row.policy,
        row.setting,
        str(row.seeds),
        f"{row.clicks:,.0f}",
        f"{row.regret:,.0f} ± {row.regret_error:,.0f}",
        f"{100 * row.of_uniform:.1f} ± {100 * row.of_uniform_error:.1f} %",
        f"{100 * row.more_than_engine:+.1f} ± {100 * row.more_than_engine_error:.1f} points",
        "" if None in saves else f"{100 * (saves[0] or 0):.0f} ± {100 * (saves[1] or 0):.0f} %",
    )
