"""A decision log as arrays, from a database of ours or a file with Open Bandit's columns."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from bandit.errors import listed
from bandit.log_files import opened_csv
from simulations.errors import SimulationError
from storage import Store
from storage.exporting import LoggedDecision

COLUMNS = ("timestamp", "item_id", "position", "click", "propensity_score")
MOST_LEVELS, ROWS_OF_A_LEVEL = 8, 50  # as the engine gives out slots


class LogError(SimulationError, ValueError):
    """A log that cannot be evaluated; names every bad line."""


class Log(NamedTuple):
    """Decisions in the order of their times, with what came of them.

    Attributes:
        actions: names of the actions.
        action: the action taken.
        reward: 1 for a click.
        propensity: of the action taken.
        logging: of every action; NaN where the log does not say.
        eligible: what could be taken.
        position: the place in a list.
        context: numbers that a reward model sees; the first is 1.
    """

    actions: tuple[str, ...]
    action: Int[np.ndarray, "rows"]
    reward: Float[np.ndarray, "rows"]
    propensity: Float[np.ndarray, "rows"]
    logging: Float[np.ndarray, "rows actions"]
    eligible: Bool[np.ndarray, "rows actions"]
    position: Int[np.ndarray, "rows"]
    context: Float[np.ndarray, "rows slots"]

    def part(self, rows: slice) -> "Log":
        """Return some of the rows."""
        return Log(self.actions, *(values[rows] for values in self[1:]))


def read_database(store: Store, campaign: str) -> Log:
    """Read the settled decisions of one campaign.

    Args:
        store: the database.
        campaign: its name.

    Raises:
        UnknownCampaignError: there is no such campaign.
        LogError: none of its decisions has settled.
    """
    store.campaigns.get(campaign)
    setup = store.exports.setup(store.models.get().model_id, campaign=campaign)
    decisions: list[LoggedDecision] = []
    store.exports.decisions(setup, lambda rows: _keep_settled(rows, decisions))
    if not decisions:
        raise LogError(
            f"expected settled decisions of campaign {campaign!r}, found none; report outcomes, "
            "or wait until its attribution window has passed and a process has learnt"
        )
    decisions.sort(key=lambda one: (one.decided_at, one.decision_id, one.place))
    actions = tuple(sorted({name for one in decisions for name in one.candidates}))
    index = {name: i for i, name in enumerate(actions)}
    logging = np.zeros((len(decisions), len(actions)))
    for row, one in enumerate(decisions):
        logging[row, [index[name] for name in one.candidates]] = one.propensities
    position = np.array([one.place for one in decisions])
    return Log(
        actions,
        np.array([index[one.creative] for one in decisions]),
        np.array([float(one.click or 0) for one in decisions]),
        np.array([one.propensity for one in decisions]),
        logging,
        logging > 0,
        position,
        _context([{**one.context, "place": f"place {one.place}"} for one in decisions]),
    )


def read_open_bandit(path: Path) -> Log:
    """Read a CSV with Open Bandit's columns, gzipped or not.

    Other columns that begin with `user_feature` are the context. Equal times keep the file's order.

    Raises:
        LogError: columns are missing or lines are bad; up to twenty are named.
        FileNotFoundError: there is no such file.
    """
    with opened_csv(path, LogError) as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or []
        if missing := [name for name in COLUMNS if name not in names]:
            raise LogError(f"{path}: these columns are missing: {', '.join(missing)}")
        lines = list(reader)
    if not lines:
        raise LogError(f"{path}: expected one decision a line below the header, found none")
    _refuse_bad(path, lines)
    items = sorted({line["item_id"] for line in lines}, key=lambda name: (len(name), name))
    index = {name: i for i, name in enumerate(items)}
    action = np.array([index[line["item_id"]] for line in lines])
    position = np.array([int(line["position"]) for line in lines])
    propensity = np.array([float(line["propensity_score"]) for line in lines])
    rows = np.arange(len(lines))
    logging = np.full((len(lines), len(items)), np.nan)
    logging[rows, action] = propensity
    # What could be taken is what was ever taken at that place.
    places, place = np.unique(position, return_inverse=True)
    seen = np.zeros((len(places), len(items)), bool)
    seen[place, action] = True
    fields = [name for name in names if name.startswith("user_feature")]
    contexts = [
        {"position": f"place {line['position']}", **{name: line[name] for name in fields}} for line in lines
    ]
    reward = np.array([float(line["click"]) for line in lines])
    return Log(tuple(items), action, reward, propensity, logging, seen[place], position, _context(contexts))


def _keep_settled(rows: Iterable[LoggedDecision], kept: list[LoggedDecision]) -> int:
    kept.extend(one for one in rows if one.settled_at is not None and one.click is not None)
    return len(kept)


def _refuse_bad(path: Path, lines: Sequence[Mapping[str, str | None]]) -> None:
    problems: list[str] = []
    before: datetime | None = None
    for number, line in enumerate(lines, start=2):
        found, at = _problems(line)
        if at is not None and before is not None and _is_before(at, before):
            found.append(f"its timestamp {line['timestamp']} is before that of the line above; sort by time")
        before = at or before
        problems += [f"line {number}: {problem}" for problem in found]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
        raise LogError(f"{path}: {count}; nothing was evaluated{listed(problems)}")


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


def _context(contexts: Sequence[Mapping[str, Any]]) -> Float[np.ndarray, "rows slots"]:
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
