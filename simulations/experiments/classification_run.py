"""Running a table with labels from policies' names to a table of results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from rich.console import Console

from bandit.html_page import Section, with_small_print
from bandit.jax_runtime import keep_compiled_programs
from simulations.calibration import summed
from simulations.experiments.classification import GRIDS, POLICIES, SETTINGS, play_labelled
from simulations.experiments.plans import N_TUNING, TUNING_SEED
from simulations.experiments.running import line_up, write_page, write_results
from simulations.grid_search import tuned
from simulations.policies.settings import PolicySetting
from simulations.reports.conclusions import by_difference, conclude
from simulations.reports.files import check_free
from simulations.reports.scores import (
    Played,
    impressions_of,
    lift_curve,
    regret_curve,
    stretch_ends,
    traffic_shares,
)
from simulations.reports.sections import belief_sections, lift_section, regret_section, shares_section
from simulations.sweep import progress_of
from simulations.worlds.labelled import LabelError, Labelled, read_labelled

LATE = 4  # the last quarter of the rows


@dataclass(frozen=True, kw_only=True)
class LabelScore:
    """A row of results.

    Attributes:
        policy: its name.
        setting: its settings, in words.
        rows: of one seed.
        seeds: how many orders of the rows.
        right: share of right labels, mean over seeds.
        right_error: standard error of that.
        late: likewise of the last quarter of the rows.
        late_error: standard error of that.
        behind_engine: the engine's `right` minus this one's, mean over seeds.
        behind_engine_error: standard error of that paired difference.
    """

    policy: str
    setting: str
    rows: int
    seeds: int
    right: float
    right_error: float
    late: float
    late_error: float
    behind_engine: float
    behind_engine_error: float


def run_classification(
    file: Path,
    out: Path,
    *,
    policies: Sequence[str],
    seeds: int,
    impressions: int | None,
    batch: int,
    is_tuned: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> list[LabelScore]:
    """Play a table with every policy; write results.csv and report.html, and tuning.csv if tuned.

    Args:
        file: The table, see `labelled.read_labelled`.
        out: Folder for the results; made when it is not there.
        policies: Names out of `classification.POLICIES`; the engine always plays.
        seeds: Orders of the rows.
        impressions: Rows of each run; None for all.
        batch: Rows between two updates.
        is_tuned: Whether others' settings are first chosen from their grids, on other orders of the rows.
        overwrite: Whether results that are there are replaced.
        console: Where progress is shown; None shows none.

    Returns:
        A row per policy, the engine's first.

    Raises:
        ResultsExistError: the folder has results already, and `overwrite` is not set.
        LabelError: the file cannot be used, or a number or name is out of range.
    """
    names = line_up(policies, POLICIES, LabelError)
    if not 1 <= seeds <= TUNING_SEED:
        raise LabelError(f"expected 1 to {TUNING_SEED:,} seeds, got {seeds}")
    check_free(out, overwrite=overwrite)
    table = read_labelled(file)
    n_rows = len(table.label) if impressions is None else impressions
    keep_compiled_programs()
    grids = {name: GRIDS[name] for name in names if name in GRIDS} if is_tuned else {}
    n_trials = sum(map(len, grids.values()))
    with progress_of(console) as progress:
        task = progress.add_task("", total=n_trials * N_TUNING + len(names) * seeds)

        def play(what: str, settings: Sequence[PolicySetting], orders: range) -> list[Played]:
            played = []
            for setting in settings:
                progress.update(task, description=f"{what} {setting.policy}")
                played.append(
                    play_labelled(
                        *(table, setting, n_rows),
                        seeds=orders,
                        batch=batch,
                        advance=lambda n: progress.advance(task, n),
                    )
                )
            return played

        others = range(TUNING_SEED, TUNING_SEED + N_TUNING)
        found, trials = tuned(grids, lambda settings: play("tuning", settings, others))
        settings = {**SETTINGS, **found}
        played = play("playing", [settings[name] for name in names], range(seeds))
    scores = [score_of(one, played[0]) for one in played]
    write_results(out, scores, trials)
    made_by = {
        "file": file.name,
        "rows of a run": f"{n_rows:,}",
        "rows between two updates": batch,
        "seeds": f"{seeds}; each is an order of the rows",
        "rivals' settings": f"the best of a grid on {N_TUNING} other orders" if is_tuned else "as shipped",
    }
    _write_report(out, f"Table with labels: {file.name}", played, table, made_by)
    return scores


def score_of(played: Played, engine: Played) -> LabelScore:
    """Return a policy's row beside the engine's on the same rows."""
    right = _right(played.earned, played.batch)
    late = _right(played.earned[:, -max(played.earned.shape[1] // LATE, 1) :], played.batch)
    behind = _right(engine.earned, engine.batch) - right
    return LabelScore(
        policy=played.setting.policy,
        setting=played.setting.setting_id,
        rows=played.earned.shape[1] * played.batch,
        seeds=len(right),
        right=float(right.mean()),
        right_error=_error(right),
        late=float(late.mean()),
        late_error=_error(late),
        behind_engine=float(behind.mean()),
        behind_engine_error=_error(behind),
    )


def conclusion(scores: Sequence[LabelScore]) -> str:
    """Say in plain words what came out; the engine's row comes first."""
    baselines = [
        by_difference(score.policy, score.behind_engine, score.behind_engine_error, score.seeds)
        for score in scores[1:]
        if score.policy != "uniform"
    ]
    verb, what = "was right for", "of the rows"
    return conclude(baselines, verb=verb, better="more", worse="fewer", what=what, unit=" points")


def _write_report(
    out: Path, title: str, played: Sequence[Played], table: Labelled, settings: Mapping[str, object]
) -> None:
    engine = played[0]
    scores = [score_of(one, engine) for one in played]
    learning = [one for one in played if one.setting.policy != "uniform"]
    sections = [
        Section(
            heading="How often each policy was right",
            caption="A row of the table is a request, its labels are the creatives, the right label is a "
            "click; only the chosen label's click is seen. ± is one standard error over orders of the rows.",
            table=with_small_print(LABEL_HEADER, [label_row(score) for score in scores]),
        ),
        regret_section([regret_curve(one) for one in played], impressions_of(engine)),
        lift_section([lift_curve(one) for one in learning], stretch_ends(engine)),
        shares_section(traffic_shares(engine, table.labels)),
    ]
    if engine.record is not None:
        sections += belief_sections("engine", summed(engine.record))
    write_page(out, title, sections, scores, lead=conclusion(scores), settings=settings)


LABEL_HEADER = ("policy", "setting", "rows", "seeds", "right", "last quarter", "behind engine")


def label_row(score: LabelScore) -> tuple[str, ...]:
    """Return a row as it is to be read, in the columns of `LABEL_HEADER`."""
    return (
        score.policy,
        score.setting,
        f"{score.rows:,}",
        str(score.seeds),
        f"{100 * score.right:.1f} ± {100 * score.right_error:.1f} %",
        f"{100 * score.late:.1f} ± {100 * score.late_error:.1f} %",
        f"{100 * score.behind_engine:.1f} ± {100 * score.behind_engine_error:.1f} points",
    )


def _right(earned: Float[np.ndarray, "seeds batches"], batch: int) -> Float[np.ndarray, "seeds"]:
    return earned.mean(axis=1) / batch


def _error(values: Float[np.ndarray, "seeds"]) -> float:
    """Return the standard error of a mean; 0 for a single value."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
