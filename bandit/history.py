"""History from before: counts of creatives that ran already, read from a CSV and turned into the prior."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from bandit.errors import HistoryError, InvalidCreativeError
from bandit.model import Model
from bandit.records import Creative, HistoryRow
from encoders import text_hash
from storage import HistoryCountRecord, NewCreative, Store

COLUMNS = ("campaign", "creative", "headline", "impressions", "clicks")
OPTIONAL = ("body", "call_to_action")
MOST_SHOWN = 20


def read_history(path: Path) -> list[HistoryRow]:
    """Read a history file.

    Args:
        path: CSV in UTF-8 with columns campaign, creative, headline, impressions, clicks, and body and
            call_to_action where there are such texts; others are ignored.

    Returns:
        Its rows.

    Raises:
        HistoryError: Columns are missing, or lines are bad; all bad lines are named with their numbers.
        FileNotFoundError: There is no such file.
    """
    rows: list[HistoryRow] = []
    problems: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise HistoryError(
                    f"{path}: expected the columns {', '.join(COLUMNS)}; missing: {', '.join(missing)}"
                )
            for line in reader:
                try:
                    rows.append(_row(line))
                except (HistoryError, InvalidCreativeError) as error:
                    problems.append(f"line {reader.line_num}: {error}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise HistoryError(f"{path}: expected a CSV in UTF-8: {error}") from error
    refuse(problems, str(path))
    check_history(rows, str(path))
    return rows


def check_history(rows: Sequence[HistoryRow], place: str = "history") -> None:
    """Check counts and the texts of repeated creatives.

    Raises:
        HistoryError: Names every bad row; rows are counted from 1.
    """
    problems = []
    first: dict[tuple[str, str], Creative] = {}
    for number, row in enumerate(rows, start=1):
        problem = _counts_problem(row.impressions, row.clicks)
        known = first.setdefault((row.campaign, row.creative.id), row.creative)
        if known.texts != row.creative.texts:
            problem = f"creative {row.creative.id!r} of campaign {row.campaign!r} has other texts than before"
        if not row.campaign:
            problem = "the campaign is empty"
        if problem:
            problems.append(f"row {number}: {problem}")
    refuse(problems, place)


def refuse(problems: Sequence[str], place: str) -> None:
    """Raise one error for all problems, if there are any."""
    if problems:
        shown = "\n  ".join(problems[:MOST_SHOWN])
        more = f"\n  and {len(problems) - MOST_SHOWN} more" if len(problems) > MOST_SHOWN else ""
        plural = "problem" if len(problems) == 1 else "problems"
        raise HistoryError(f"{place}: {len(problems)} {plural}; nothing was imported\n  {shown}{more}")


def by_campaign(rows: Iterable[HistoryRow]) -> dict[str, dict[str, tuple[Creative, int, int]]]:
    """Return creatives with summed counts, by campaign and the caller's id."""
    summed: dict[str, dict[str, tuple[Creative, int, int]]] = {}
    for row in rows:
        creatives = summed.setdefault(row.campaign, {})
        _, impressions, clicks = creatives.get(row.creative.id, (row.creative, 0, 0))
        creatives[row.creative.id] = (row.creative, impressions + row.impressions, clicks + row.clicks)
    return summed


def import_history(
    store: Store,
    model: Model,
    campaigns: Mapping[str, Mapping[str, tuple[Creative, int, int]]],
    *,
    now: datetime,
) -> None:
    """Add campaigns, creatives and their counts; only the counts, in one transaction, have an effect.

    Raises:
        HistoryError: A creative is there already with other texts; nothing was imported.
    """
    model_id = model.record.model_id
    known = {
        name: {creative.external_id: creative for creative in entry.creatives}
        for name, entry in model.roster.campaigns.items()
    }
    refuse(
        [
            f"creative {creative_id!r} of campaign {name!r} is there already with other texts"
            for name, creatives in campaigns.items()
            for creative_id, (creative, _, _) in creatives.items()
            if creative_id in known.get(name, {}) and known[name][creative_id].content != creative.texts
        ],
        "history",
    )
    model.prepare_texts([c.texts for creatives in campaigns.values() for c, _, _ in creatives.values()])
    for name, creatives in campaigns.items():
        if name not in known:
            store.campaigns.add(model_id, name, created_at=now)
        record = store.campaigns.get(name)
        new = [new_creative(c) for i, (c, _, _) in creatives.items() if i not in known.get(name, {})]
        if new:
            store.campaigns.add_creatives(record.campaign_id, new, created_at=now)
    model.reload()
    for name in campaigns:
        model.fix_mean_content(model.roster.campaigns[name], reload=False)
    model.reload()
    model.mark_refit(is_due=True)
    counts = [
        HistoryCountRecord(
            creative_id=creative.creative_id,
            impressions=campaigns[name][creative.external_id][1],
            clicks=campaigns[name][creative.external_id][2],
        )
        for name in campaigns
        for creative in model.roster.campaigns[name].creatives
        if creative.external_id in campaigns[name]
    ]
    store.learning.add_history(model_id, counts, import_id=text_hash(repr(counts)), imported_at=now)


def new_creative(creative: Creative) -> NewCreative:
    """Return the row of a creative; its hash tells whether two have the same content."""
    content = creative.texts
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return NewCreative(
        external_id=creative.id, content=content, content_hash=text_hash(canonical), picture=creative.picture
    )


def _row(line: dict[str, str | None]) -> HistoryRow:
    if any(line[name] is None for name in COLUMNS):
        raise HistoryError("fewer columns than the header")
    counts = {name: line[name] or "" for name in ("impressions", "clicks")}
    bad = [f"{name} {value!r}" for name, value in counts.items() if not _is_integer(value)]
    if bad:
        raise HistoryError(f"expected whole numbers, got {', '.join(bad)}")
    impressions, clicks = int(counts["impressions"]), int(counts["clicks"])
    problem = _counts_problem(impressions, clicks)
    if problem:
        raise HistoryError(problem)
    if not line["campaign"] or not line["creative"]:
        raise HistoryError("campaign and creative must not be empty")
    texts = {name: line.get(name) or "" for name in ("headline", *OPTIONAL)}
    creative = Creative(line["creative"], **texts)
    return HistoryRow(campaign=line["campaign"], creative=creative, impressions=impressions, clicks=clicks)


def _is_integer(value: str) -> bool:
    return value.isascii() and value.removeprefix("-").isdigit()


def _counts_problem(impressions: int, clicks: int) -> str | None:
    if any(isinstance(count, bool) or not isinstance(count, int) for count in (impressions, clicks)):
        return f"expected whole numbers, got {impressions!r} impressions, {clicks!r} clicks"
    if impressions < 0 or clicks < 0:
        return f"negative counts: {impressions} impressions, {clicks} clicks"
    if clicks > impressions:
        return f"{clicks} clicks on {impressions} impressions"
    return None
