"""Logs with the columns of the Open Bandit Dataset."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from simulations.ope.logs import Log, context_columns, read_lines, refuse

COLUMNS = ("timestamp", "item_id", "position", "click", "propensity_score")


def read_open_bandit(path: Path) -> Log:
    """Read a CSV with Open Bandit's columns, gzipped or not.

    Other columns that begin with `user_feature` are the context. Lines have no ids, so that the same one
    twice cannot be told from two alike: equal times are taken as they are, in the file's order.

    Raises:
        LogError: columns are missing or lines are bad; up to twenty are named.
        FileNotFoundError: there is no such file.
    """
    names, lines = read_lines(path, COLUMNS)
    _refuse_bad(path, lines)
    items = sorted({line["item_id"] for line in lines}, key=lambda name: (len(name), name))
    index = {name: i for i, name in enumerate(items)}
    action = np.array([index[line["item_id"]] for line in lines])
    position = np.array([int(line["position"]) for line in lines])
    propensity = np.array([float(line["propensity_score"]) for line in lines])
    # What could be taken is what was ever taken at that place.
    places, place = np.unique(position, return_inverse=True)
    seen = np.zeros((len(places), len(items)), bool)
    seen[place, action] = True
    eligible = seen[place]
    rows = np.arange(len(lines))
    logging = np.full((len(lines), len(items)), np.nan)
    logging[rows, action] = propensity
    fields = [name for name in names if name.startswith("user_feature")]
    contexts = [
        {"position": f"place {line['position']}", **{name: line[name] for name in fields}} for line in lines
    ]
    return Log(
        tuple(items),
        None,
        np.array([str(number) for number in rows + 1]),
        action,
        np.array([float(line["click"]) for line in lines]),
        propensity,
        logging,
        eligible,
        position,
        context_columns(contexts),
    )


def _refuse_bad(path: Path, lines: Sequence[Mapping[str, str | None]]) -> None:
    problems: list[str] = []
    before: datetime | None = None
    for number, line in enumerate(lines, start=2):
        found, at = _problems(line)
        if at is not None and before is not None and _is_before(at, before):
            found.append(f"its timestamp {line['timestamp']} is before that of the line above; sort by time")
        before = at or before
        problems += [f"line {number}: {problem}" for problem in found]
    refuse(path, problems)


def _problems(line: Mapping[str, str | None]) -> tuple[list[str], datetime | None]:
    """Return what is wrong with a line, and its time where it has one."""
    found = []
    try:
        propensity = float(line["propensity_score"] or "")
        if not 0 < propensity <= 1:
            found.append(f"expected a propensity above 0 and up to 1, got {line['propensity_score']}")
    except ValueError:
        found.append(f"expected a propensity above 0 and up to 1, got {line['propensity_score'] or 'none'}")
    if line["click"] not in ("0", "1"):
        found.append(f"expected a click of 0 or 1, got {line['click'] or 'none'}")
    if not line["item_id"]:
        found.append("it has no item_id")
    if not (line["position"] or "").isdecimal():
        found.append(f"expected a position that is a whole number, got {line['position'] or 'none'}")
    try:
        return found, datetime.fromisoformat(line["timestamp"] or "")
    except ValueError:
        return [*found, f"expected an ISO 8601 timestamp, got {line['timestamp'] or 'none'}"], None


def _is_before(at: datetime, before: datetime) -> bool:
    """Compare times; where only one has a zone, neither is before the other."""
    return (at.tzinfo is None) == (before.tzinfo is None) and at < before
