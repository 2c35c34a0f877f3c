"""Logs in Vowpal Wabbit's dsjson, one JSON object a line, written and read.

What is written are settled decisions only, each place of a list as a decision of its own.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bandit.csv_rows import opened_text
from bandit.decision_log.files import replaced
from bandit.decision_log.logs import Log, Row, chosen_campaign, log_of, problems_of, refuse
from bandit.errors import LogError
from storage.maintenance.exporter import LoggedDecision, Setup

NEEDED = ("_label_cost", "_label_probability", "_label_Action", "a", "c", "p")
COSTS = {0: 0, -1: 1}  # cost -> click


def write_dsjson(
    decisions: Iterable[LoggedDecision], setup: Setup, path: Path, progress: Callable[[int], None]
) -> int:
    """Write decisions as Vowpal Wabbit reads them with `--dsjson --cb_explore_adf`: one JSON object a line.

    The cost is minus the click. `a` and `p` are the candidates, counted from 1, and their propensities, the
    chosen one first; the label's probability is that of the chosen one.

    Args:
        decisions: The decisions.
        setup: What they were made with.
        path: The file; one that ends in .gz is compressed.
        progress: Called with 1 for each decision.

    Returns:
        How many decisions were written.
    """
    contents = setup.contents()
    n = 0
    with replaced(path) as file:
        for logged in decisions:
            progress(1)
            if logged.click is not None:
                document = _document(logged, contents)
                file.write(json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n")
                n += 1
    return n


def _document(
    logged: LoggedDecision, contents: Mapping[tuple[str, str], Mapping[str, Any]]
) -> dict[str, Any]:
    chosen = logged.candidates.index(logged.creative)
    order = [chosen, *(i for i in range(len(logged.candidates)) if i != chosen)]
    at = (logged.activated_at or logged.decided_at).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
    return {
        "_label_cost": float(-(logged.click or 0)),
        "_label_probability": logged.propensity,
        "_label_Action": chosen + 1,
        "_labelIndex": chosen,
        "o": [{"v": float(logged.click or 0), "EventId": logged.decision_id, "ActionTaken": True}],
        "Timestamp": at,
        "Version": "1",
        "EventId": logged.decision_id,
        "a": [i + 1 for i in order],
        "c": {
            "Campaign": {"name": logged.campaign},
            "Context": logged.context,
            "_multi": [
                {"Creative": {"id": name, **contents[logged.campaign, name]}} for name in logged.candidates
            ],
        },
        "p": [logged.propensities[i] for i in order],
        "VWState": {"m": str(logged.model_version)},
    }


class _Line(NamedTuple):
    number: int
    campaign: str
    at: datetime | None
    row: Row


def read_dsjson(path: Path, campaign: str | None = None) -> Log:
    """Read a log of Vowpal Wabbit's contextual bandits (`--dsjson --cb_explore_adf`), gzipped or not.

    `_label_Action` is the action taken and `a` all of them, counted from 1 in the order of `c._multi`; `p`
    are the probabilities of `a`. The cost is minus the click, 0 or −1. An action is known by an `id` or
    `_tag` among its features, else by all of its features. What else `c` has is the context. Lines with
    `_skipLearn` are left out. With a `Timestamp` in every line they may be in any order.

    Args:
        path: the file.
        campaign: whose decisions, by `c.Campaign.name`; needed where there are several.

    Raises:
        LogError: lines are bad; up to twenty are named.
        FileNotFoundError: there is no such file.
    """
    problems: list[str] = []
    lines: list[_Line] = []
    with opened_text(path, LogError) as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                line = _read(text, number)
            except _BadLine as error:
                problems += [f"line {number}: {problem}" for problem in error.args]
                continue
            if line is not None:
                lines.append(line)
    line_of: dict[str, int] = {}
    for line in lines:
        first = line_of.setdefault(line.row.decision, line.number)
        if first != line.number:
            problems.append(f"line {line.number}: decision {line.row.decision!r} is in line {first} already")
    refuse(path, problems)
    if not lines:
        raise LogError(f"{path}: expected one decision a line, found none")
    asked = chosen_campaign(path, (line.campaign for line in lines), campaign)
    lines = [line for line in lines if asked is None or line.campaign == asked]
    times = [line.at for line in lines]
    if None not in times:
        lines.sort(key=lambda line: (line.at, line.row.decision))
    return log_of([line.row for line in lines])


class _BadLine(Exception):
    """What is wrong with a line, an argument each."""


def _read(text: str, number: int) -> _Line | None:
    """Return a line, or None for one that is not to be learnt from."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _BadLine(f"expected a JSON object, got {text.strip()[:80]!r}: {error}") from error
    if not isinstance(fields, dict):
        raise _BadLine(f"expected a JSON object, got {text.strip()[:80]!r}")
    if fields.get("_skipLearn") is True:
        return None
    if missing := [name for name in NEEDED if name not in fields]:
        raise _BadLine(f"these fields are missing: {', '.join(missing)}")
    names = _names(fields["c"])
    actions, numbers = fields["a"], fields["p"]
    label, cost, probability = (fields[f"_label_{name}"] for name in ("Action", "cost", "probability"))
    found = []
    everyone = list(range(1, len(names) + 1))
    if not isinstance(actions, list) or sorted(map(repr, actions)) != sorted(map(repr, everyone)):
        found.append(f"expected a to have each of 1 to {len(names)}, as c._multi has actions, got {actions}")
    if not isinstance(numbers, list) or not all(type(p) in (int, float) for p in numbers):
        found.append(f"expected p to be a list of numbers, got {str(numbers)[:80]}")
    if type(label) is not int or not 1 <= label <= len(names):
        found.append(f"expected _label_Action to be 1 to {len(names)}, got {label!r}")
    if type(cost) not in (int, float) or cost not in COSTS:
        found.append(f"expected a _label_cost of −1 (a click) or 0, got {cost!r}")
    if type(probability) not in (int, float) or not 0 < probability <= 1:
        found.append(f"expected a _label_probability above 0 and up to 1, got {probability!r}")
    if found:
        raise _BadLine(*found, *_time_problem(fields))
    row = Row(
        decision=str(fields.get("EventId") or f"line {number}"),
        creative=names[label - 1],
        click=COSTS[cost],
        propensity=float(probability),
        candidates=tuple(names[action - 1] for action in actions),
        propensities=tuple(map(float, numbers)),
        place=0,
        context=_context(fields["c"]),
    )
    if wrong := problems_of(row) + _time_problem(fields):
        raise _BadLine(*wrong)
    return _Line(number, _campaign(fields["c"]), _time(fields), row)


def _names(content: Any) -> list[str]:
    """Return how the actions are known."""
    actions = content.get("_multi") if isinstance(content, dict) else None
    if not isinstance(actions, list) or not actions or not all(isinstance(one, dict) for one in actions):
        raise _BadLine("expected c to be an object with a list of actions, _multi")
    return [_name(one) for one in actions]


def _name(action: Mapping[str, Any]) -> str:
    for features in (action, *(part for part in action.values() if isinstance(part, dict))):
        for key in ("id", "_tag"):
            if isinstance(features.get(key), str | int):
                return str(features[key])
    return json.dumps(action, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _campaign(content: Mapping[str, Any]) -> str:
    campaign = content.get("Campaign")
    return str(campaign.get("name", "")) if isinstance(campaign, dict) else ""


def _context(content: Mapping[str, Any]) -> dict[str, str | float | bool]:
    """Return what the line knows of the request: fields of its namespaces, and fields beside them."""
    found: dict[str, str | float | bool] = {}
    for space, features in content.items():
        if space in ("_multi", "Campaign"):
            continue
        fields = features if isinstance(features, dict) else {"": features}
        found |= {
            f"{space}.{name}".rstrip("."): value
            for name, value in fields.items()
            if isinstance(value, str | int | float | bool)
        }
    return found


def _time(fields: Mapping[str, Any]) -> datetime | None:
    """Return the time, in UTC where it has no zone; None where there is none."""
    if "Timestamp" not in fields:
        return None
    at = datetime.fromisoformat(fields["Timestamp"])
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _time_problem(fields: Mapping[str, Any]) -> list[str]:
    try:
        _time(fields)
    except (ValueError, TypeError):
        return [f"expected Timestamp to be an ISO 8601 time, got {fields['Timestamp']!r}"]
    return []
