"""History from another database of ours: its campaigns and creatives, and what they have learnt."""

import os
from typing import Any

from bandit.types import Creative, HistoryRow
from bandit.warm_start.importer import History
from encoders import text_hash
from storage import CountRow, CreativeRecord, Store


def read_database(url: str | os.PathLike[str], *, with_conversions: bool = False) -> History:
    """Read what another database has learnt.

    Args:
        url: A path of an SQLite file, or a URL; it is only read.
        with_conversions: Whether to count the clicks that led to a conversion, too; of imported history that
            is not known.

    Returns:
        Learnt decisions, pruned ones and its own imported history, by creative and context; creatives without
        any too, with the settings of their campaigns.

    Raises:
        StorageError: There is no database of ours, or it has another schema.
    """
    with Store.open(url, create=False) as store:
        model_id = store.models.get().model_id
        campaigns = {campaign.campaign_id: campaign for campaign in store.campaigns.all(model_id)}
        creatives = {creative.creative_id: creative for creative in store.campaigns.all_creatives(model_id)}
        step = store.learning.latest_step(model_id)
        counts: list[Any] = [
            *store.learning.counts(model_id, up_to_step=step, with_conversions=with_conversions),
            *store.learning.history_counts(model_id),
        ]
        identity = database_identity(store, model_id)
    unseen = creatives.keys() - {count.creative_id for count in counts}
    names = {number: campaign.name for number, campaign in campaigns.items()}
    rows = [
        HistoryRow(
            campaign=names[creatives[count.creative_id].campaign_id],
            creative=_creative(creatives[count.creative_id]),
            impressions=count.impressions,
            clicks=count.clicks,
            context=count.context,
            conversions=count.conversions if isinstance(count, CountRow) else None,
        )
        for count in counts
    ]
    rows += [
        HistoryRow(
            campaign=names[creatives[number].campaign_id],
            creative=_creative(creatives[number]),
            impressions=0,
            clicks=0,
        )
        for number in sorted(unseen)
    ]
    return History(
        rows=tuple(rows),
        campaigns={campaign.name: campaign for campaign in campaigns.values()},
        statuses={
            (names[creative.campaign_id], creative.external_id): creative.status
            for creative in creatives.values()
        },
        import_id=identity,
    )


def database_identity(store: Store, model_id: int) -> str:
    """Return what tells this database from others, and stays as it grows: how its first campaign began."""
    first = next(iter(store.campaigns.all(model_id)), None)
    return "" if first is None else f"database {text_hash(f'{first.created_at.isoformat()} {first.name}')}"


def _creative(record: CreativeRecord) -> Creative:
    return Creative(
        record.external_id, **record.content, picture=record.picture, floor=record.floor, cap=record.cap
    )
