"""The decision log in the formats of other programs: Open Bandit Pipeline and Vowpal Wabbit.

Both take settled decisions only, each place of a list as a decision of its own with its own propensity.
"""

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bandit.decision_log.files import replaced
from bandit.errors import LogFileError
from bandit.types import TEXT_FIELDS
from storage.maintenance.exporter import LoggedDecision, Setup


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
        features = [f"user_feature_{i}" for i in range(len(fields))]
        writer.writerow(["", "timestamp", "item_id", "position", "click", "propensity_score", *features])
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
                document = _dsjson(logged, contents)
                file.write(json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n")
                n += 1
    return n


def _dsjson(logged: LoggedDecision, contents: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, Any]:
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
