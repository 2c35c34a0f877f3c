"""Running synthetic worlds from policies' names to report: tune, play, compare, write."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bandit.features import PriorScales
from bandit.numerics import keep_compiled_programs
from simulations.changes import Changes
from simulations.errors import ResultsExistError, unknown
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
class Trial:
    """One setting of one policy on the tuning worlds; attributes as in `Comparison`."""

    policy: str
    setting: str
    seeds: int
    of_uniform: float
    of_uniform_error: float


def run_synthetic(
    plan: Plan, out: Path, *, overwrite: bool = False, console: Console | None = None
) -> list[Comparison]:
    """Play synthetic worlds with every policy; write results.csv and report.html, and tuning.csv if tuned.

    Args:
        plan: what is to be played.
        out: Folder for the results; made when it is not there.
        overwrite: Whether results that are there are replaced.
        console: Where progress is shown; None shows none.

    Returns:
        A row per policy, the engine's first; uniform and oracle come last. They are exact, but in worlds
        with fatigue, where they play.

    Raises:
        ResultsExistError: The folder has results already, and `overwrite` is not set.
    """
    there = [name for name in ("results.csv", "report.html", "tuning.csv") if (out / name).exists()]
    if there and not overwrite:
        raise ResultsExistError(
            f"{out} has {', '.join(there)} already: name another folder, or allow them to be replaced "
            "(--overwrite)"
        )
    keep_compiled_programs()
    others = [name for name in plan.policies if name != ENGINE]
    tuned = [name for name in others if name in (*RIVALS, *WORLD_TUNED)] if plan.is_tuned else []
    n_trials = sum(len(_grid(name)) for name in tuned)
    with _progress(console or Console(quiet=True)) as progress:
        task = progress.add_task("", total=n_trials * N_TUNING + (1 + len(others)) * plan.seeds)

        def play(setting: AnySetting, first_seed: int, n_seeds: int) -> Played:
            progress.update(task, description=setting.policy)
            worlds = draw_worlds(
                first_seed,
                n_worlds=n_seeds,
                n_creatives=plan.creatives,
                sizes=plan.sizes,
                changes=plan.changes,
                impressions=plan.impressions,
            )
            return play_worlds(
                worlds,
                setting,
                plan.impressions,
                seeds=range(first_seed, first_seed + n_seeds),
                batch=plan.batch,
                advance=lambda n: progress.advance(task, n),
            )

        settings, trials = {**DEFAULTS, **TUNED}, list[Trial]()
        for name in tuned:
            settings[name], tried = _tune(_grid(name), lambda one: play(one, TUNING_SEED, N_TUNING))
            trials += tried

        def ends(engine: Played) -> list[Played]:
            if plan.changes and plan.changes.fatigue:  # what a moment offers depends on who played before it
                return [play(Setting(policy=name), 0, plan.seeds) for name in ENDS]
            return [uniform_of(engine), oracle_of(engine)]

        chosen = [settings[name] for name in (ENGINE, *others)]
        outcomes = [play(setting, 0, plan.seeds) for setting in chosen]
        outcomes += ends(outcomes[0])
    rows = compare(outcomes)
    if trials:
        write_csv(trials, out / "tuning.csv")
    write_csv(rows, out / "results.csv")
    _write_report(out / "report.html", plan, outcomes, rows)
    return rows


def _grid(policy: str) -> Sequence[AnySetting]:
    """Return the settings that a policy is tuned on; as many for every one."""
    return GRIDS[policy] if policy in RIVALS else grid(policy)


def _tune(grid: Sequence[AnySetting], play: Callable[[AnySetting], Played]) -> tuple[AnySetting, list[Trial]]:
    """Return the setting that loses least, and what each of them lost."""
    rows = compare([play(setting) for setting in grid])
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


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:24}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
