"""The decision log as a CSV of one line a decision, and a setup beside it: together they can be imported.

The setup (`FILE.setup.json`) has what a refit needs besides decisions: campaigns, creatives, the context
schema, the encoder's components. The secret of hashed contexts is not in it.
"""

import base64
import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from bandit.csv_rows import PLAIN, Line, read_rows
from bandit.decision_log.files import replaced
from bandit.errors import LogFileError, listed
from bandit.types import TEXT_FIELDS
from storage import CampaignRecord, ContextRecord, ContextSlotRecord, CreativeRecord, ModelRecord
from storage.maintenance.exporter import LoggedDecision, LoggedOutcome, Setup

FORMAT = 1  # of the setup
SETTINGS = ("scales", "components", "learn_scales")  # of the model; none of them is secret
LONGEST_FIELD = 2**30
# What people look for first; conversions and value are read off the outcomes.
COLUMNS = (
    *("decision_id", "campaign", "creative", "decided_at", "context", "propensity", "click", "conversions"),
    *("value", *TEXT_FIELDS, "candidates", "propensities", "is_control", "place"),
    *("list_propensity", "request_id", "activated_at", "settled_at", "closed_at", "outcomes"),
    *("model_version", "slots_version", "horizon", "kappa", "point_set"),
)
T = TypeVar("T")
READ = tuple(name for name in COLUMNS if name not in ("conversions", "value", *TEXT_FIELDS))


def setup_of(path: Path) -> Path:
    """Return where the setup of a CSV stands."""
    return path.with_name(f"{path.name}.setup.json")


def write_csv(
    decisions: Iterable[LoggedDecision], setup: Setup, path: Path, progress: Callable[[int], None]
) -> int:
    """Write decisions and their setup.

    Args:
        decisions: The decisions.
        setup: What they were made with.
        path: The CSV; one that ends in .gz is compressed. It is replaced when all is written.
        progress: Called with 1 for each decision.

    Returns:
        How many decisions were written.
    """
    contents = setup.contents()
    n = 0
    with replaced(setup_of(path)) as file:
        json.dump(_setup_document(setup), file, ensure_ascii=False, indent=1)
    with replaced(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for logged in decisions:
            writer.writerow(_line(logged, contents[logged.campaign, logged.creative]))
            progress(1)
            n += 1
    return n


def read_setup(path: Path) -> Setup:
    """Read the setup of a CSV.

    Raises:
        LogFileError: There is none beside the CSV, or it is not one.
    """
    place = setup_of(path)
    if not place.is_file():
        raise LogFileError(
            f"{place} is missing; `creative-bandit storage export` writes it beside the CSV, copy both"
        )
    try:
        document = json.loads(place.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise LogFileError(
                f"{place} has format {document['format']!r}, this version reads {FORMAT}; install a newer one"
            )
        return _setup(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, LogFileError):
            raise
        raise LogFileError(f"{place} is no setup of a decision log: {error!r}; export it again") from error


def read_csv(path: Path) -> Iterator[LoggedDecision]:
    """Yield the decisions of a CSV.

    Raises:
        LogFileError: Columns are missing, or lines are bad; up to twenty are named with their numbers.
        FileNotFoundError: There is no such file.
    """
    with read_rows(path, LogFileError, what=PLAIN, advice="; export it again", longest=LONGEST_FIELD) as rows:
        if missing := rows.missing(READ):
            raise LogFileError(f"{path}: these columns are missing: {', '.join(missing)}; export it again")
        yield from rows.parsed(_decision, (ValueError, KeyError, TypeError, RecursionError))
    if rows.problems:
        raise LogFileError(
            f"{path}: {len(rows.problems)} bad lines; nothing was imported{listed(rows.problems)}"
        )


def _line(logged: LoggedDecision, content: dict[str, Any]) -> list[Any]:
    bought = [o.value for o in logged.outcomes if o.kind == "conversion" and o.valid and not o.late]
    fields = {
        **logged._asdict(),
        **{name: content.get(name) for name in TEXT_FIELDS},
        "conversions": len(bought),
        "value": sum(bought),
        "outcomes": [outcome._asdict() for outcome in logged.outcomes],
    }
    return [_written(fields[name]) for name in COLUMNS]


def _written(value: Any) -> Any:
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_written)
    if isinstance(value, bool):
        return int(value)
    return value.isoformat() if isinstance(value, datetime) else value


def _decision(line: Line) -> LoggedDecision:
    if None in line.values() or None in line:
        raise ValueError("more or fewer columns than the header")
    return LoggedDecision(
        decision_id=line["decision_id"],
        campaign=line["campaign"],
        creative=line["creative"],
        candidates=tuple(_listed(line["candidates"], str)),
        propensities=tuple(map(float, _listed(line["propensities"], int | float))),
        propensity=float(line["propensity"]),
        place=int(line["place"]),
        list_propensity=_maybe(line["list_propensity"], float),
        request_id=line["request_id"] or None,
        is_control=bool(int(line["is_control"])),
        context=_context(line["context"]),
        model_version=int(line["model_version"]),
        slots_version=int(line["slots_version"]),
        horizon=_maybe(line["horizon"], float),
        kappa=float(line["kappa"]),
        point_set=int(line["point_set"]),
        decided_at=_time(line["decided_at"]),
        activated_at=_maybe(line["activated_at"], _time),
        closed_at=_maybe(line["closed_at"], _time),
        settled_at=_maybe(line["settled_at"], _time),
        click=_maybe(line["click"], int),
        outcomes=tuple(map(_outcome, _listed(line["outcomes"], dict))),
    )


def _outcome(fields: dict[str, Any]) -> LoggedOutcome:
    occurred_at = fields["occurred_at"]
    return LoggedOutcome(
        kind=fields["kind"],
        key=fields["key"],
        value=float(fields["value"]),
        occurred_at=None if occurred_at is None else _time(occurred_at),
        received_at=_time(fields["received_at"]),
        late=bool(fields["late"]),
        valid=bool(fields["valid"]),
        corrects=fields["corrects"],
    )


def _maybe(text: str, read: Callable[[str], T]) -> T | None:
    return read(text) if text else None


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"expected a time with its zone, got {text!r}")
    return at


def _listed(text: str, kind: Any) -> list[Any]:
    values = json.loads(text)
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise ValueError(f"expected a JSON list, got {text!r:.80}")
    return values


def _context(text: str) -> dict[str, Any]:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"expected context to be a JSON object, got {text!r:.80}")
    return values


def _setup_document(setup: Setup) -> dict[str, Any]:
    model = setup.model
    settings = {name: value for name, value in model.settings.items() if name in SETTINGS}
    return {
        "format": FORMAT,
        "model": {
            "name": model.name,
            "seed": model.seed,
            "encoder_fingerprint": model.encoder_fingerprint,
            "components": _bytes_written(model.components),
            "settings": settings,
        },
        "context": {
            "fields": setup.context.fields,
            "slots": [asdict(slot) for slot in setup.context.slots],
            "version": setup.context.version,
        },
        "campaigns": [
            {
                name: _bytes_written(value) if name == "mean_content" else _written(value)
                for name, value in asdict(campaign).items()
            }
            for campaign in setup.campaigns
        ],
        "creatives": [
            {
                name: value if name == "content" else _written(value)
                for name, value in asdict(creative).items()
            }
            for creative in setup.creatives
        ],
    }


def _setup(document: dict[str, Any]) -> Setup:
    model, context = document["model"], document["context"]
    slots = tuple(ContextSlotRecord(**slot) for slot in context["slots"])
    campaigns = [
        {**fields, "mean_content": _bytes_read(fields["mean_content"])} for fields in document["campaigns"]
    ]
    return Setup(
        model=ModelRecord(**{**model, "components": _bytes_read(model["components"]), "model_id": 0}),
        context=ContextRecord(fields=context["fields"], slots=slots, version=context["version"]),
        campaigns=tuple(CampaignRecord(**_with_times(fields)) for fields in campaigns),
        creatives=tuple(CreativeRecord(**_with_times(fields)) for fields in document["creatives"]),
    )


def _with_times(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _time(value) if name.endswith("_at") and value is not None else value
        for name, value in fields.items()
    }


def _bytes_written(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes_read(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)
