"""A policy given by its own probabilities, in a file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from bandit.decision_log.logs import Log, read_lines, refuse
from bandit.errors import LogError

COLUMNS = ("creative", "probability")
SUM_TOLERANCE = 1e-6  # of probabilities written with all their digits


def read_probabilities(path: Path, log: Log) -> Float[np.ndarray, "rows actions"]:
    """Read what a policy would show at every decision of a log.

    A CSV with the columns creative and probability; creatives without a line have probability 0. With a
    column decision_id there are lines for every decision, else the same holds at all of them. The decisions
    of a file without ids are numbered from 1.

    Args:
        path: the file, gzipped or not.
        log: what is evaluated.

    Raises:
        LogError: columns are missing, lines are bad, decisions of the log are not there, probabilities do
            not sum to 1, or some go to what the log never shows, with their share of the policy's mass.
        FileNotFoundError: there is no such file.
    """
    names, lines = read_lines(path, COLUMNS)
    is_fixed = "decision_id" not in names
    rows = {"": 0} if is_fixed else {str(name): row for row, name in enumerate(log.decision)}
    columns = {name: column for column, name in enumerate(log.actions)}
    target = np.zeros((len(rows), len(columns)))
    given = np.zeros(target.shape, bool)
    unknown: dict[str, float] = {}
    problems: list[str] = []
    for number, line in enumerate(lines, start=2):
        row = rows.get("" if is_fixed else line["decision_id"])
        if row is None:  # a decision of another part of the log
            continue
        probability = _probability(line)
        if probability is None:
            problems.append(
                f"line {number}: expected a probability of 0 to 1, got {line['probability'] or 'none'}"
            )
            continue
        column = columns.get(line["creative"])
        if column is None:
            unknown[line["creative"]] = unknown.get(line["creative"], 0.0) + probability
        elif given[row, column]:
            problems.append(f"line {number}: creative {line['creative']!r} has a probability already")
        else:
            given[row, column], target[row, column] = True, probability
    problems += _sums(target, given, log, is_fixed=is_fixed) if not unknown else []
    refuse(path, problems)
    if share := sum(unknown.values()) / len(rows):
        raise LogError(
            f"{path}: {100 * share:.1f} % of the policy's choices are creatives that this log never shows: "
            f"{', '.join(sorted(unknown))}; evaluate a policy that chooses from what was shown"
        )
    return np.broadcast_to(target, (len(log.action), len(columns)))


def _probability(line: Mapping[str, str]) -> float | None:
    try:
        probability = float(line["probability"] or "")
    except ValueError:
        return None
    return probability if 0 <= probability <= 1 else None


def _sums(target: np.ndarray, given: np.ndarray, log: Log, *, is_fixed: bool) -> list[str]:
    names = ["every decision"] if is_fixed else [f"decision {name!r}" for name in log.decision.tolist()]
    return [
        f"{name}: it has no probabilities"
        if not given[row].any()
        else f"{name}: its probabilities sum to {target[row].sum():.6g}, not to 1"
        for row, name in enumerate(names)
        if abs(target[row].sum() - 1) > SUM_TOLERANCE
    ]
