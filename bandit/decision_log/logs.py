"""A decision log as arrays, whatever it was read from; and what all readers share."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from bandit.csv_rows import read_rows
from bandit.errors import LogError, listed

MOST_LEVELS, ROWS_OF_A_LEVEL = 8, 50  # as the engine gives out slots
ROUNDING = 1e-4  # of logged propensities; other programs write them in single precision, or shorter


class Log(NamedTuple):
    """Decisions in the order of their times, with what came of them.

    Attributes:
        actions: names of the actions.
        content: what is known of each action beside its name; None where nothing is.
        decision: names of the decisions; their numbers from 1 in a file without ids.
        action: the action taken.
        reward: 1 for a click.
        propensity: of the action taken.
        logging: of every action; NaN where the log does not say.
        eligible: what could be taken.
        position: the place in a list.
        context: numbers that a reward model sees; the first is 1.
    """

    actions: tuple[str, ...]
    content: Float[np.ndarray, "actions dim"] | None
    decision: Shaped[np.ndarray, "rows"]
    action: Int[np.ndarray, "rows"]
    reward: Float[np.ndarray, "rows"]
    propensity: Float[np.ndarray, "rows"]
    logging: Float[np.ndarray, "rows actions"]
    eligible: Bool[np.ndarray, "rows actions"]
    position: Int[np.ndarray, "rows"]
    context: Float[np.ndarray, "rows slots"]

    def part(self, rows: slice) -> "Log":
        """Return some of the rows."""
        return Log(self.actions, self.content, *(values[rows] for values in self[2:]))


class Row(NamedTuple):
    """One decision whose candidates all have a propensity.

    Attributes:
        decision: its name.
        creative: the candidate shown.
        click: 0 or 1.
        propensity: of the candidate shown.
        candidates: names of those that it was chosen from.
        propensities: theirs.
        place: in a list, from 0.
        context: what was known of the request.
    """

    decision: str
    creative: str
    click: int
    propensity: float
    candidates: Sequence[str]
    propensities: Sequence[float]
    place: int
    context: Mapping[str, Any]


def log_of(rows: Sequence[Row], contents: Mapping[str, np.ndarray] | None = None) -> Log:
    """Return rows as a log; a candidate of propensity 0 could not be shown.

    Args:
        rows: in the order of their times.
        contents: what is known of each candidate.
    """
    actions = tuple(sorted({name for row in rows for name in row.candidates}))
    index = {name: i for i, name in enumerate(actions)}
    logging = np.zeros((len(rows), len(actions)))
    for number, row in enumerate(rows):
        logging[number, [index[name] for name in row.candidates]] = row.propensities
    return Log(
        actions,
        None if contents is None else np.stack([contents[name] for name in actions]),
        np.array([row.decision for row in rows]),
        np.array([index[row.creative] for row in rows]),
        np.array([float(row.click) for row in rows]),
        np.array([row.propensity for row in rows]),
        logging,
        logging > 0,
        np.array([row.place for row in rows]),
        context_columns([{**row.context, "place": f"place {row.place}"} for row in rows]),
    )


def problems_of(row: Row) -> list[str]:
    """Return what is wrong with a row that a file has given."""
    found = []
    if not 0 < row.propensity <= 1:
        found.append(f"expected a propensity above 0 and up to 1, got {row.propensity}")
    if row.click not in (0, 1):
        found.append(f"expected a click of 0 or 1, got {row.click}")
    if len(row.candidates) != len(row.propensities):
        found.append(f"{len(row.candidates)} candidates have {len(row.propensities)} propensities")
    elif row.creative not in row.candidates:
        found.append(f"{row.creative!r} was shown and is none of its candidates")
    elif len(set(row.candidates)) < len(row.candidates):
        found.append("a candidate is named twice")
    elif bad := [p for p in row.propensities if not 0 <= p <= 1]:
        found.append(f"expected propensities of 0 to 1, got {bad[0]}")
    elif abs(sum(row.propensities) - 1) > ROUNDING:
        found.append(f"its propensities sum to {sum(row.propensities):.6g}, not to 1")
    elif abs(row.propensities[row.candidates.index(row.creative)] - row.propensity) > ROUNDING:
        found.append(f"its propensity {row.propensity} is not the one listed for {row.creative!r}")
    return found


def chosen_campaign(path: Path, found: Iterable[str], asked: str | None) -> str | None:
    """Return whose decisions to read from a file of some campaigns; None where they have no names.

    Raises:
        LogError: it has several and none is asked for, or not the one asked for.
    """
    names = sorted({name for name in found if name})
    if asked is None and len(names) > 1:
        raise LogError(
            f"{path}: it has decisions of {len(names)} campaigns: {', '.join(names)}; name one by --campaign"
        )
    if asked is not None and asked not in names:
        raise LogError(f"{path}: it has no campaign {asked!r}; it has {', '.join(names) or 'no names'}")
    return asked or (names[0] if names else None)


def read_lines(path: Path, needed: Sequence[str]) -> tuple[list[str], list[dict[str, str]]]:
    """Read a CSV, gzipped or not.

    Returns:
        The names of its columns, and its lines below the header.

    Raises:
        LogError: it is no CSV, has no lines, or lacks columns: all are named.
        FileNotFoundError: there is no such file.
    """
    with read_rows(path, LogError, longest=2**30) as rows:
        if missing := rows.missing(needed):
            raise LogError(f"{path}: these columns are missing: {', '.join(missing)}")
        lines = list(rows)
    if not lines:
        raise LogError(f"{path}: expected one decision a line below the header, found none")
    return rows.columns, lines


def refuse(path: Path, problems: Sequence[str]) -> None:
    """Raise LogError when there are problems, with twenty of them."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
        raise LogError(f"{path}: {count}; nothing was evaluated{listed(problems)}")


def context_columns(contexts: Sequence[Mapping[str, Any]]) -> Float[np.ndarray, "rows slots"]:
    """Return contexts as numbers: 1, then a column per frequent level of a text, and numbers standardised."""
    columns = [np.ones(len(contexts))]
    for name in sorted({name for one in contexts for name in one}):
        values = [one.get(name) for one in contexts]
        if any(isinstance(value, str | bool) for value in values):
            levels = Counter(str(value) for value in values if value is not None).most_common(MOST_LEVELS)
            columns += [
                np.array([float(str(value) == level) for value in values])
                for level, n in levels
                # A level of all rows says nothing.
                if ROWS_OF_A_LEVEL <= n < len(values)
            ]
        elif numbers := [float(value) for value in values if value is not None]:
            centre, spread = np.mean(numbers), np.std(numbers)
            if spread > 0:
                columns.append(
                    np.array([0.0 if value is None else (value - centre) / spread for value in values])
                )
    return np.stack(columns, axis=1)
