"""Running a table with labels from policies' names to a table of results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from rich.console import Console

from bandit.numerics import keep_compiled_programs
from simulations.classification import POLICIES, SETTINGS, play_labelled
from simulations.errors import unknown
from simulations.folders import check_free
from simulations.labelled import LabelError, read_labelled
from simulations.played import Played
from simulations.progress import progress_of
from simulations.report import write_csv

ENGINE = "engine"
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
    overwrite: bool = False,
    console: Console | None = None,
) -> list[LabelScore]:
    """Play a table with every policy; write results.csv.

    Args:
        file: The table, see `labelled.read_labelled`.
        out: Folder for the results; made when it is not there.
        policies: Names out of `classification.POLICIES`; the engine always plays.
        seeds: Orders of the rows.
        impressions: Rows of each run; None for all.
        batch: Rows between two updates.
        overwrite: Whether results that are there are replaced.
        console: Where progress is shown; None shows none.

    Returns:
        A row per policy, the engine's first.

    Raises:
        ResultsExistError: the folder has results already, and `overwrite` is not set.
        LabelError: the file cannot be used, or a number or name is out of range.
    """
    if strange := [unknown("policy", name, list(POLICIES)) for name in policies if name not in POLICIES]:
        raise LabelError("; ".join(strange))
    if seeds < 1:
        raise LabelError(f"expected at least one seed, got {seeds}")
    check_free(out, overwrite=overwrite)
    table = read_labelled(file)
    n_rows = len(table.label) if impressions is None else impressions
    keep_compiled_programs()
    names = list(dict.fromkeys((ENGINE, *policies)))
    with progress_of(console) as progress:
        task = progress.add_task("", total=len(names) * seeds)
        played = []
        for name in names:
            progress.update(task, description=name)
            played.append(
                play_labelled(
                    table,
                    SETTINGS[name],
                    n_rows,
                    seeds=range(seeds),
                    batch=batch,
                    advance=lambda n: progress.advance(task, n),
                )
            )
    scores = [score_of(one, played[0]) for one in played]
    write_csv(scores, out / "results.csv")
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


def _right(earned: Float[np.ndarray, "seeds batches"], batch: int) -> Float[np.ndarray, "seeds"]:
    return earned.mean(axis=1) / batch


def _error(values: Float[np.ndarray, "seeds"]) -> float:
    """Return the standard error of a mean; 0 for a single value."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
