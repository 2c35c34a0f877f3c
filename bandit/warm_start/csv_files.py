"""History from CSV files: counts of creatives, or a decision log; all bad lines are named at once."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bandit.csv_rows import CsvRows, Line, read_rows
from bandit.errors import ContextError, HistoryError, InvalidCreativeError
from bandit.features.context import check_context
from bandit.types import Creative, HistoryRow
from bandit.warm_start.importer import check_history, counts_problem, refuse
from storage import ContextRecord

COUNTS = ("campaign", "creative", "headline", "impressions", "clicks")
DECISIONS = (
    "decision_id",
    "campaign",
    "creative",
    "context",
    "click",
    "headline",
)  # of the view decision_log
OTHER_TEXTS = ("body", "call_to_action")


def read_history(path: Path, *, with_conversions: bool = False) -> list[HistoryRow]:
    """Read a history file.

    Args:
        path: CSV in UTF-8, gzipped if named .gz: either counts, with columns campaign, creative, headline,
            impressions and clicks, or decisions as the view decision_log shows them, with columns
            decision_id, campaign, creative, context, click and headline; decisions whose click is empty are
            not settled, and left out. Columns body, call_to_action and context (a JSON object) are read too;
            others are ignored.
        with_conversions: Whether to read the column conversions too: of the clicks, those that led to one; in
            a log of decisions, how many each led to.

    Returns:
        Its rows; decisions are counted by creative and context.

    Raises:
        HistoryError: Columns are missing, or lines are bad; all bad lines are named with their numbers.
        FileNotFoundError: There is no such file.
    """
    with read_rows(path, HistoryError) as rows:
        are_decisions = "impressions" not in rows.columns and {"decision_id", "click"} <= {*rows.columns}
        wanted = (DECISIONS if are_decisions else COUNTS) + (("conversions",) if with_conversions else ())
        if missing := rows.missing(wanted):
            raise HistoryError(
                f"{path}: expected the columns {', '.join(wanted)}; missing: {', '.join(missing)}"
            )
        found = (_decisions if are_decisions else _counts)(rows, wanted, str(path))
    check_history(found, str(path))
    return found


def _counts(rows: CsvRows, columns: tuple[str, ...], source: str) -> list[HistoryRow]:
    counted = [name for name in ("impressions", "clicks", "conversions") if name in columns]

    def row(line: Line) -> HistoryRow:
        counts = {name: line[name] or "" for name in counted}
        if bad := [f"{name} {value!r}" for name, value in counts.items() if not _is_integer(value)]:
            raise HistoryError(f"expected whole numbers, got {', '.join(bad)}")
        impressions, clicks, *conversions = map(int, counts.values())
        if problem := counts_problem(impressions, clicks):
            raise HistoryError(problem)
        if conversions and not 0 <= conversions[0] <= clicks:
            raise HistoryError(f"{conversions[0]} conversions on {clicks} clicks")
        return _row(line, impressions, clicks, *conversions)

    return _all(rows, columns, row, source)


def _decisions(rows: CsvRows, columns: tuple[str, ...], source: str) -> list[HistoryRow]:
    seen: set[str] = set()

    def row(line: Line) -> HistoryRow:
        name, click = line["decision_id"] or "", line["click"] or ""
        if not name or name in seen:
            raise HistoryError(f"expected each decision once, with its id; got {name!r}")
        seen.add(name)
        if click not in ("", "0", "1"):
            raise HistoryError(f"decision {name!r}: expected click to be 0, 1 or empty, got {click!r}")
        counts = int(click != ""), int(click or 0)
        if "conversions" not in columns:
            return _row(line, *counts)
        bought = line["conversions"] or "0"
        if not _is_integer(bought) or int(bought) < 0:
            raise HistoryError(f"decision {name!r}: expected conversions to be 0 or more, got {bought!r}")
        return _row(line, *counts, conversions=int(click == "1" and int(bought) > 0))

    settled = [past for past in _all(rows, columns, row, source) if past.impressions]
    kinds = {_key(past): past for past in settled}
    impressions = Counter(map(_key, settled))
    clicks = Counter(_key(past) for past in settled if past.clicks)
    bought = Counter(_key(past) for past in settled if past.conversions)
    return [
        HistoryRow(
            campaign=past.campaign,
            creative=past.creative,
            context=past.context,
            impressions=impressions[key],
            clicks=clicks[key],
            conversions=bought[key] if "conversions" in columns else None,
        )
        for key, past in kinds.items()
    ]


def _all(
    rows: CsvRows, columns: tuple[str, ...], row: Callable[[Line], HistoryRow], source: str
) -> list[HistoryRow]:
    """Return the rows of all lines, or raise one error for all that are bad."""

    def whole(line: Line) -> HistoryRow:
        if any(line[name] is None for name in columns):
            raise HistoryError("fewer columns than the header")
        return row(line)

    found = list(rows.parsed(whole, (HistoryError, InvalidCreativeError, ContextError)))
    refuse(rows.problems, source)
    return found


def _row(line: Line, impressions: int, clicks: int, conversions: int | None = None) -> HistoryRow:
    campaign, name = line["campaign"], line["creative"]
    if not campaign or not name:
        raise HistoryError("campaign and creative must not be empty")
    texts: dict[str, Any] = {field: line.get(field) or "" for field in ("headline", *OTHER_TEXTS)}
    return HistoryRow(
        campaign=campaign,
        creative=Creative(name, **texts),
        impressions=impressions,
        clicks=clicks,
        context=_context(line.get("context")),
        conversions=conversions,
    )


def _context(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        context = json.loads(text)
    except (ValueError, RecursionError):
        context = None
    if not isinstance(context, dict):
        raise HistoryError(f"expected context to be a JSON object, got {text!r:.80}")
    check_context(context, ContextRecord(fields={}, slots=(), version=0))
    return context


def _key(row: HistoryRow) -> tuple[str, Creative, str]:
    return row.campaign, row.creative, json.dumps(row.context, sort_keys=True)


def _is_integer(value: str) -> bool:
    return value.isascii() and value.removeprefix("-").isdigit()
