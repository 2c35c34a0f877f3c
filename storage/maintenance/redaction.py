"""Removing one context field from all that is stored: its values are gone, its name stays known.

Contexts lose the field wherever they are: decisions, counts of pruned ones and of imported history. Levels
that have a slot are overwritten, as the slot's number is a place in the posterior. A refit must follow, which
the caller notes before and after: what was learnt with the field is fitted anew without it.
"""

import json
from collections import defaultdict
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Connection,
    String,
    Text,
    bindparam,
    delete,
    exists,
    insert,
    select,
    type_coerce,
    update,
)

from storage.schema.columns import canonical_json, context_hash
from storage.schema.tables import (
    Campaign,
    ContextCount,
    ContextSlot,
    Creative,
    Decision,
    HistoryCount,
    PrunedCount,
)

DECISIONS: Final = (
    select(Decision.decision_id, type_coerce(Decision.context, Text).label("context"))
    .where(
        Decision.decision_id > bindparam("after"),
        exists().where(
            Campaign.campaign_id == Decision.campaign_id, Campaign.model_id == bindparam("model_id")
        ),
    )
    .order_by(Decision.decision_id)
    .limit(bindparam("limit"))
    .with_for_update(of=Decision)
)
WITHOUT: Final = (
    update(Decision).where(Decision.decision_id == bindparam("id")).values(context=bindparam("less"))
)


class Redacted(NamedTuple):
    """What one call did: how many contexts lost the field, and where to go on; None at the end."""

    changed: int
    cursor: str | None


def redact_decisions(connection: Connection, model_id: int, field: str, after: str, limit: int) -> Redacted:
    """Take a field out of the contexts of some decisions."""
    rows = connection.execute(DECISIONS, {"model_id": model_id, "after": after, "limit": limit}).all()
    changed = [
        {"id": row.decision_id, "less": less}
        for row in rows
        if (less := _without(row.context, field)) is not None
    ]
    if changed:
        connection.execute(WITHOUT, changed)
    return Redacted(len(changed), rows[-1].decision_id if len(rows) == limit else None)


def redact_counts(connection: Connection, model_id: int, field: str) -> None:
    """Take a field out of counts by context, of levels and of slots."""
    _merge_counts(connection, model_id, field, PrunedCount, ("impressions", "clicks", "conversions", "value"))
    _merge_counts(connection, model_id, field, HistoryCount, ("impressions", "clicks"))
    connection.execute(
        delete(ContextCount).where(ContextCount.model_id == model_id, ContextCount.field == field)
    )
    overwritten = "removed " + type_coerce(ContextSlot.slot.cast(String), String)
    connection.execute(
        update(ContextSlot)
        .where(ContextSlot.model_id == model_id, ContextSlot.field == field, ContextSlot.level.is_not(None))
        .values(level=overwritten)
    )


def _merge_counts(
    connection: Connection,
    model_id: int,
    field: str,
    table: type[PrunedCount] | type[HistoryCount],
    numbers: tuple[str, ...],
) -> None:
    """Rewrite the rows whose contexts have a field; those that are alike without it become one."""
    columns = [c for c in table.__table__.columns if c.name != "context"]
    rows = connection.execute(
        select(*columns, type_coerce(table.context, Text).label("context"))
        .join(Creative, Creative.creative_id == table.creative_id)
        .join(Campaign, Campaign.campaign_id == Creative.campaign_id)
        .where(Campaign.model_id == model_id)
    )
    key_names = [c.name for c in table.__table__.primary_key if c.name != "context_hash"]
    groups: defaultdict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    is_concerned = set()
    for row in map(dict, rows.mappings()):
        less = _without(row["context"], field)
        key = (*(row[name] for name in key_names), row["context"] if less is None else less)
        groups[key].append(row)
        if less is not None:
            is_concerned.add(key)
    for key in is_concerned:
        context = key[-1]
        merged = {
            **groups[key][0],
            "context": context,
            "context_hash": context_hash(context),
            **{name: sum(row[name] for row in groups[key]) for name in numbers},
        }
        for old in groups[key]:
            same = [c == old[c.name] for c in table.__table__.primary_key]
            connection.execute(delete(table).where(*same))
        connection.execute(insert(table), merged)


def _without(context: str, field: str) -> str | None:
    """Return a context's canonical text without a field; None when it has none."""
    values = json.loads(context)
    if field not in values:
        return None
    del values[field]
    return canonical_json(values)
