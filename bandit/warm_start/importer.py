"""History from before: counts of creatives that ran already, checked and turned into the prior."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bandit.errors import ContextError, HistoryError, listed
from bandit.features.context import check_context, count_contexts
from bandit.model.model import Model
from bandit.types import Creative, HistoryRow, Imported, ImportedCounts
from encoders import text_hash
from storage import CampaignRecord, ContextRecord, HistoryCountRecord, NewCreative, Store
from storage.records import CreativeStatus

LONGEST_ID = 200  # characters; an import's name is part of a key, and PostgreSQL limits keys
UNKNOWN = ContextRecord(fields={}, slots=(), version=0)


@dataclass(frozen=True, kw_only=True)
class History:
    """What is imported at once.

    Attributes:
        rows: The counts.
        campaigns: Settings of campaigns, by name; one that is not among them gets the defaults.
        statuses: Of creatives, by campaign and the caller's id; active where none is given.
        import_id: Names the import; None makes a name of the counts.
    """

    rows: Sequence[HistoryRow]
    campaigns: Mapping[str, CampaignRecord] = field(default_factory=dict)
    statuses: Mapping[tuple[str, str], CreativeStatus] = field(default_factory=dict)
    import_id: str | None = None


def check_history(
    rows: Sequence[HistoryRow], source: str = "history", schema: ContextRecord = UNKNOWN
) -> None:
    """Check counts, contexts and the texts of repeated creatives.

    Raises:
        HistoryError: Names every bad row; rows are counted from 1.
    """
    problems = []
    first: dict[tuple[str, str], Creative] = {}
    seen = ContextRecord(fields=dict(schema.fields), slots=(), version=0)
    for number, row in enumerate(rows, start=1):
        problem = counts_problem(row.impressions, row.clicks)
        known = first.setdefault((row.campaign, row.creative.id), row.creative)
        where = f"creative {row.creative.id!r} of campaign {row.campaign!r}"
        if known.texts != row.creative.texts:
            problem = f"{where} has other texts than before"
        if not row.campaign:
            problem = "the campaign is empty"
        try:
            seen.fields.update(check_context(row.context, seen))
        except ContextError as error:
            problem = f"{where}: {error}"
        if problem:
            problems.append(f"row {number}: {problem}")
    refuse(problems, source)


def check_import_id(import_id: object) -> None:
    """Check the name that a caller gives an import.

    Raises:
        HistoryError: It is no string of 1 to 200 printable characters.
    """
    is_name = isinstance(import_id, str) and import_id.isprintable() and 0 < len(import_id) <= LONGEST_ID
    if not is_name:
        raise HistoryError(
            f"expected import_id to be a string of 1 to {LONGEST_ID} printable characters, "
            f"got {import_id!r:.80}"
        )


def refuse(problems: Sequence[str], source: str) -> None:
    """Raise one error for all problems, if there are any."""
    if problems:
        plural = "problem" if len(problems) == 1 else "problems"
        raise HistoryError(f"{source}: {len(problems)} {plural}; nothing was imported{listed(problems)}")


def import_history(store: Store, model: Model, history: History, *, now: datetime) -> Imported:
    """Add campaigns, creatives and their counts; only the counts, in one transaction, have an effect.

    Args:
        store: The database.
        model: The model, whose learner this process is.
        history: Checked.
        now: The time.

    Returns:
        What was imported; an import that was made before adds nothing.

    Raises:
        HistoryError: A creative is there already with other texts; nothing was imported.
    """
    model_id = model.record.model_id
    import_id = history.import_id or _import_id(history.rows)
    creatives: dict[str, dict[str, Creative]] = {}
    for row in history.rows:
        creatives.setdefault(row.campaign, {}).setdefault(row.creative.id, row.creative)
    imported = Imported(
        import_id=import_id,
        is_new=store.learning.imported_at(model_id, import_id) is None,
        campaigns={name: _totals(name, history.rows) for name in creatives},
    )
    if not imported.is_new:
        return imported
    _add_creatives(store, model, history, creatives, now)
    for name in creatives:
        model.fix_mean_content(model.catalog.campaigns[name], reload=False)
    model.reload()
    contexts = [row.context for row in history.rows]
    impressions = [row.impressions for row in history.rows]
    model.add_context_fields(model.check_contexts(contexts))
    model.give_slots(count_contexts(contexts, model.schema, impressions))
    model.mark_refit(is_due=True)
    ids = {
        (name, creative.external_id): creative.creative_id
        for name in creatives
        for creative in model.catalog.campaigns[name].creatives
    }
    store.learning.add_history(
        model_id,
        [
            HistoryCountRecord(
                creative_id=ids[row.campaign, row.creative.id],
                impressions=row.impressions,
                clicks=row.clicks,
                context=row.context,
            )
            for row in history.rows
        ],
        import_id=import_id,
        imported_at=now,
        slots_version=model.schema.version,
        # Of levels that now have slots nothing needs to be counted any more.
        context_counts=count_contexts(contexts, model.schema, impressions),
    )
    return imported


def new_creative(creative: Creative, status: CreativeStatus = "active") -> NewCreative:
    """Return the row of a creative; its hash tells whether two have the same content."""
    content = creative.texts
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return NewCreative(
        external_id=creative.id,
        content=content,
        content_hash=text_hash(canonical),
        picture=creative.picture,
        floor=creative.floor,
        cap=creative.cap,
        status=status,
    )


def counts_problem(impressions: int, clicks: int) -> str | None:
    """Say what is wrong with counts; None when nothing is."""
    if any(isinstance(count, bool) or not isinstance(count, int) for count in (impressions, clicks)):
        return f"expected whole numbers, got {impressions!r} impressions, {clicks!r} clicks"
    if impressions < 0 or clicks < 0:
        return f"negative counts: {impressions} impressions, {clicks} clicks"
    if clicks > impressions:
        return f"{clicks} clicks on {impressions} impressions"
    return None


def _add_creatives(
    store: Store,
    model: Model,
    history: History,
    creatives: Mapping[str, Mapping[str, Creative]],
    now: datetime,
) -> None:
    """Add the campaigns and creatives that are not there; those that are must have the same texts."""
    known = {
        name: {creative.external_id: creative for creative in entry.creatives}
        for name, entry in model.catalog.campaigns.items()
    }
    refuse(
        [
            f"creative {creative.id!r} of campaign {name!r} is there already with other texts"
            for name, theirs in creatives.items()
            for creative in theirs.values()
            if creative.id in known.get(name, {}) and known[name][creative.id].content != creative.texts
        ],
        "history",
    )
    encoder = model.prepare_texts(
        [creative.texts for theirs in creatives.values() for creative in theirs.values()]
    )
    for name, theirs in creatives.items():
        if name not in known:
            _add_campaign(store, model.record.model_id, name, history.campaigns.get(name), now)
        new = [
            new_creative(creative, history.statuses.get((name, creative.id), "active"))
            for creative in theirs.values()
            if creative.id not in known.get(name, {})
        ]
        if new:
            store.campaigns.add_creatives(
                store.campaigns.get(name).campaign_id, new, created_at=now, encoder_fingerprint=encoder
            )
    model.reload()


def _add_campaign(store: Store, model_id: int, name: str, like: CampaignRecord | None, now: datetime) -> None:
    if like is None:
        store.campaigns.add(model_id, name, created_at=now)
        return
    store.campaigns.add(
        model_id,
        name,
        objective=like.objective,
        horizon=like.horizon,
        attribution_window_s=like.attribution_window_s,
        conversion_window_s=like.conversion_window_s,
        uniform_share=like.uniform_share,
        control_share=like.control_share,
        starts_at=like.starts_at,
        ends_at=like.ends_at,
        created_at=now,
    )
    if like.status != "active":
        store.campaigns.set_status(name, like.status)


def _import_id(rows: Sequence[HistoryRow]) -> str:
    """Name an import by its counts, whatever their order."""
    counts: dict[tuple[str, str, str], list[int]] = {}
    for row in rows:
        context = json.dumps(dict(row.context), sort_keys=True, ensure_ascii=False)
        total = counts.setdefault((row.campaign, row.creative.id, context), [0, 0])
        total[0] += row.impressions
        total[1] += row.clicks
    listed: list[Any] = sorted((*key, *total) for key, total in counts.items())
    return f"counts {text_hash(json.dumps(listed))}"


def _totals(campaign: str, rows: Sequence[HistoryRow]) -> ImportedCounts:
    theirs = [row for row in rows if row.campaign == campaign]
    return ImportedCounts(
        creatives=len({row.creative.id for row in theirs}),
        impressions=sum(row.impressions for row in theirs),
        clicks=sum(row.clicks for row in theirs),
    )
