"""Logs with the columns of the Open Bandit Dataset, written and read.

What is written are settled decisions only, each place of a list as a decision of its own.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from bandit.decision_log.files import replaced
from bandit.decision_log.logs import Log, context_columns, read_lines, refuse
from bandit.errors import LogFileError
from bandit.types import TEXT_FIELDS
from storage.maintenance.exporter import LoggedDecision, Setup

COLUMNS = ("timestamp", "item_id", "position", "click", "propensity_score")
FEATURE = "user_feature"  # what names of the context's columns begin with


def items_of(path: Path) -> Path:
    """Return where the items of an Open Bandit log stand: `item_context.csv` beside it."""
    return path.with_name("item_context.csv")


def write_open_bandit(
    decisions: Iterable[LoggedDecision], setup: Setup, path: Path, progress: Callable[[int], None]
) -> int:
    """Write one campaign as Open Bandit Dataset does: the log, and `item_context.csv` beside it.

    `user_feature_0` and so on are the context's fields in the order of their names. `item_feature_0` is the
    length of a creative's texts, `item_feature_1` its id, the others its texts.

    Args:
        decisions: The decisions.
        setup: What they were made with: one campaign.
        path: The log; one that ends in .gz is compressed.
        progress: Called with 1 for each decision.

    Returns:
        How many decisions were written.

    Raises:
        LogFileError: There is not exactly one campaign.

    References:
        Y. Saito, S. Aihara, M. Matsutani, Y. Narita, "Open Bandit Dataset and Pipeline", 2020, table 1.
    """
    if len(setup.campaigns) != 1:
        names = ", ".join(campaign.name for campaign in setup.campaigns) or "none"
        raise LogFileError(
            f"an Open Bandit log is of one campaign, and the database has: {names}; give --campaign"
        )
    items = {creative.external_id: number for number, creative in enumerate(setup.creatives)}
    fields = sorted(setup.context.fields)
    n = 0
    with replaced(items_of(path)) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["", "item_id", *(f"item_feature_{i}" for i in range(2 + len(TEXT_FIELDS)))])
        for creative in setup.creatives:
            texts = [creative.content.get(name, "") for name in TEXT_FIELDS]
            number = items[creative.external_id]
            writer.writerow([number, number, len("".join(texts)), creative.external_id, *texts])
    with replaced(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        features = [f"{FEATURE}_{i}" for i in range(len(fields))]
        writer.writerow(["", *COLUMNS, *features])
        for logged in decisions:
            progress(1)
            if logged.click is None:
                continue
            context = [logged.context.get(name, "") for name in fields]
            at = logged.activated_at or logged.decided_at
            item = items[logged.creative]
            writer.writerow(
                [n, at.isoformat(" "), item, logged.place + 1, logged.click, logged.propensity, *context]
            )
            n += 1
    return n


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
    fields = [name for name in names if name.startswith(FEATURE)]
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
