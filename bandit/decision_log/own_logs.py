"""Our own logs: the decisions of a database, and the CSV of `storage export`."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from bandit.decision_log.logs import Log, Row, chosen_campaign, log_of, problems_of, read_lines, refuse
from bandit.errors import LogError
from bandit.model.model import Model
from storage import Store
from storage.maintenance.exporter import LoggedDecision

COLUMNS = (
    *("decision_id", "creative", "decided_at", "context", "propensity", "click"),
    *("candidates", "propensities"),
)
T = TypeVar("T")


def read_settled(store: Store, campaign: str) -> list[LoggedDecision]:
    """Read the settled decisions of one campaign, in the order of their times.

    Args:
        store: the database.
        campaign: its name.

    Raises:
        UnknownCampaignError: there is no such campaign.
        LogError: none of its decisions has settled.
    """
    store.campaigns.get(campaign)
    setup = store.exports.setup(store.models.get().model_id, campaign=campaign)
    decisions = store.exports.decisions(
        setup,
        lambda rows: [one for one in rows if one.settled_at is not None and one.click is not None],
    )
    if not decisions:
        raise LogError(
            f"expected settled decisions of campaign {campaign!r}, found none; report outcomes, "
            "or wait until its attribution window has passed and a process has learnt"
        )
    return sorted(decisions, key=lambda one: (one.decided_at, one.decision_id, one.place))


def log_of_decisions(decisions: Sequence[LoggedDecision], model: Model) -> Log:
    """Return decisions of one campaign as a log with the contents of its creatives."""
    catalog = model.catalog
    creatives = catalog.campaigns[decisions[0].campaign].creatives
    return log_of(
        [
            Row(
                *(one.decision_id, one.creative, one.click or 0, one.propensity),
                *(one.candidates, one.propensities, one.place, one.context),
            )
            for one in decisions
        ],
        {creative.external_id: catalog.content[catalog.arm[creative.creative_id]] for creative in creatives},
    )


def read_database(store: Store, campaign: str) -> Log:
    """Read the settled decisions of one campaign as a log; arguments and errors as of `read_settled`."""
    return log_of_decisions(read_settled(store, campaign), Model(store, lambda: datetime.now(UTC), 0, None))


def read_export(path: Path, campaign: str | None = None) -> Log:
    """Read the CSV of `storage export`, gzipped or not; of its columns `COLUMNS` are needed.

    Decisions without a click, which have not settled, are left out. Lines may be in any order: an export's
    are in that of their ids.

    Args:
        path: the file.
        campaign: whose decisions; needed where there are several.

    Raises:
        LogError: columns are missing or lines are bad; up to twenty are named.
        FileNotFoundError: there is no such file.
    """
    _, lines = read_lines(path, COLUMNS)
    asked = chosen_campaign(path, (line.get("campaign") or "" for line in lines), campaign)
    problems: list[str] = []
    line_of: dict[str, int] = {}
    rows: list[tuple[datetime, Row]] = []
    for number, line in enumerate(lines, start=2):
        if asked is not None and line.get("campaign") != asked:
            continue
        name = line["decision_id"]
        if name in line_of:
            problems.append(f"line {number}: decision {name!r} is in line {line_of[name]} already")
            continue
        line_of[name] = number
        if line["click"] == "":
            continue
        found, at, row = _read(line)
        problems += [f"line {number}: {problem}" for problem in found]
        if at is not None and row is not None:
            rows.append((at, row))
    refuse(path, problems)
    if not rows:
        raise LogError(f"{path}: expected settled decisions, found none with a click of 0 or 1")
    rows.sort(key=lambda pair: (pair[0], pair[1].decision, pair[1].place))
    return log_of([row for _, row in rows])


def _read(line: Mapping[str, str]) -> tuple[list[str], datetime | None, Row | None]:
    """Return what is wrong with a line, its time, and the decision where it can be read."""
    found: list[str] = []

    def read(name: str, reader: Callable[[str], T], expected: str, default: str = "") -> T | None:
        text = line.get(name) or default
        try:
            return reader(text)
        except (ValueError, RecursionError):
            found.append(f"expected {name} to be {expected}, got {text[:80] or 'none'}")
            return None

    at = read("decided_at", _time, "an ISO 8601 time with its zone")
    row = Row(
        decision=line["decision_id"],
        creative=line["creative"] or "",
        click=read("click", int, "0 or 1") or 0,
        propensity=read("propensity", _number, "a number above 0 and up to 1") or 0.0,
        candidates=read("candidates", _names, "a JSON list of names") or (),
        propensities=read("propensities", _numbers, "a JSON list of numbers") or (),
        place=read("place", int, "a whole number", "0") or 0,
        context=read("context", _mapping, "a JSON object", "{}") or {},
    )
    if not row.decision:
        found.append("it has no decision_id")
    return (found, at, None) if found else (problems_of(row), at, row)


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(text)
    return at


def _number(text: str) -> float:
    number = float(text)
    if math.isnan(number):
        raise ValueError(text)
    return number


def _names(text: str) -> list[str]:
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(text)
    return names


def _numbers(text: str) -> list[float]:
    numbers = json.loads(text)
    if not isinstance(numbers, list) or not all(type(number) in (int, float) for number in numbers):
        raise ValueError(text)
    return [float(number) for number in numbers]


def _mapping(text: str) -> dict[str, Any]:
    mapping = json.loads(text)
    if not isinstance(mapping, dict):
        raise ValueError(text)
    return mapping
