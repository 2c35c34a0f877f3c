"""Imported history: counts of creatives from before, by context, each import once."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, insert, select

from storage.database.dialect import in_chunks, insert_into
from storage.database.session import allow_idling
from storage.errors import InvalidValueError, UnknownCreativeError
from storage.learning_records import HistoryCountRecord
from storage.schema.columns import canonical_json, context_hash
from storage.schema.tables import Campaign, Creative, HistoryCount, HistoryImport

Summed = Mapping[tuple[int, str], tuple[int, int]]


def summed(rows: Sequence[HistoryCountRecord]) -> Summed:
    """Return (impressions, clicks) by creative and canonical context.

    Raises:
        InvalidValueError: Names the first creative whose counts cannot be.
    """
    totals: dict[tuple[int, str], tuple[int, int]] = {}
    for row in rows:
        where = f"history of creative {row.creative_id}"
        if not 0 <= row.clicks <= row.impressions:
            raise InvalidValueError(
                f"{where}: expected 0 <= clicks <= impressions, "
                f"got {row.clicks} clicks of {row.impressions} impressions"
            )
        key = row.creative_id, canonical_json(dict(row.context), what=f"{where}: its context")
        impressions, clicks = totals.get(key, (0, 0))
        totals[key] = impressions + row.impressions, clicks + row.clicks
    return totals


def counts(connection: Connection, model_id: int) -> list[HistoryCountRecord]:
    """Return the imported counts of a model's creatives, by creative, import and context."""
    rows = connection.execute(
        select(
            HistoryCount.creative_id,
            HistoryCount.impressions,
            HistoryCount.clicks,
            HistoryCount.context,
            HistoryCount.slots_version,
            HistoryCount.imported_at,
        )
        .join(Creative, Creative.creative_id == HistoryCount.creative_id)
        .join(Campaign, Campaign.campaign_id == Creative.campaign_id)
        .where(Campaign.model_id == model_id)
        .order_by(HistoryCount.creative_id, HistoryCount.import_id, HistoryCount.context_hash)
    )
    return [HistoryCountRecord(**row) for row in rows.mappings()]


def imported_at(connection: Connection, model_id: int, import_id: str) -> datetime | None:
    """Return when an import was made; None when it never was."""
    query = select(HistoryImport.imported_at).where(
        HistoryImport.model_id == model_id, HistoryImport.import_id == import_id
    )
    return connection.execute(query).scalar_one_or_none()


def add(
    connection: Connection,
    model_id: int,
    rows: Summed,
    import_id: str,
    slots_version: int,
    imported_at: datetime,
) -> bool:
    """Add counts, unless this import was made before; say whether they were added."""
    allow_idling(connection, rows=len(rows))
    _check_creatives(connection, model_id, sorted({creative_id for creative_id, _ in rows}))
    noted = connection.execute(
        insert_into(connection, HistoryImport)
        .values(
            model_id=model_id,
            import_id=import_id,
            impressions=sum(impressions for impressions, _ in rows.values()),
            clicks=sum(clicks for _, clicks in rows.values()),
            imported_at=imported_at,
        )
        .on_conflict_do_nothing()
        .returning(HistoryImport.import_id)
    ).scalar_one_or_none()
    if noted is None:
        return False
    if not rows:
        return True
    connection.execute(
        insert(HistoryCount),
        [
            {
                "creative_id": creative_id,
                "import_id": import_id,
                "slots_version": slots_version,
                "context_hash": context_hash(context),
                "context": context,
                "impressions": impressions,
                "clicks": clicks,
                "imported_at": imported_at,
            }
            for (creative_id, context), (impressions, clicks) in sorted(rows.items())
        ],
    )
    return True


def _check_creatives(connection: Connection, model_id: int, ids: Sequence[int]) -> None:
    of_model = (
        select(Creative.creative_id)
        .join(Campaign, Campaign.campaign_id == Creative.campaign_id)
        .where(Campaign.model_id == model_id)
    )
    known = {
        creative_id
        for chunk in in_chunks(ids)
        for creative_id in connection.execute(of_model.where(Creative.creative_id.in_(chunk))).scalars()
    }
    if unknown := [creative_id for creative_id in ids if creative_id not in known]:
        listed = ", ".join(map(str, unknown))
        raise UnknownCreativeError(f"model {model_id} has no creative with creative_id {listed}")
