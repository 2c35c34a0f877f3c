"""The statements behind the arms' numbers: counts for refits, summaries, and what `Engine.arms` shows."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    or_,
    select,
    union_all,
    update,
)

from storage.database.dialect import in_chunks
from storage.learning_records import ArmRow, ArmSummary, CountRow
from storage.schema.columns import BigInt
from storage.schema.tables import (
    ArmStatistics,
    Campaign,
    Creative,
    Decision,
    HistoryCount,
    Outcome,
    PrunedCount,
)

SHARE_SPAN: Final = timedelta(hours=24)


def counts(
    connection: Connection,
    model_id: int,
    after_step: int,
    up_to_step: int,
    *,
    with_conversions: bool = False,
) -> list[CountRow]:
    """Count the learnt decisions by creative, version of the slots and context, pruned ones included.

    Clicks that were found invalid count until the step that took note of it. Only decisions up to the newest
    refit are pruned, so an earlier step than that one cannot be asked for any more.
    """
    keys = (Decision.creative_id, Decision.slots_version, Decision.context)
    is_noted_later = or_(Decision.corrected_step.is_(None), Decision.corrected_step > up_to_step)
    click = case((and_(Decision.corrected_at.is_not(None), is_noted_later), 1), else_=Decision.click)
    stored = (
        select(
            *keys,
            func.count().label("impressions"),
            func.sum(click).label("clicks"),
            *([func.sum(_converted(click)).label("conversions")] if with_conversions else []),
        )
        .join(Campaign, Campaign.campaign_id == Decision.campaign_id)
        .where(
            Campaign.model_id == model_id,
            Decision.learnt_batch > after_step,
            Decision.learnt_batch <= up_to_step,
        )
        .group_by(*keys)
    )
    pruned = (
        select(
            PrunedCount.creative_id,
            PrunedCount.slots_version,
            PrunedCount.context,
            PrunedCount.impressions,
            PrunedCount.clicks,
            *([_at_most(PrunedCount.conversions, PrunedCount.clicks)] if with_conversions else []),
        )
        .join(Creative, Creative.creative_id == PrunedCount.creative_id)
        .join(Campaign, Campaign.campaign_id == Creative.campaign_id)
        .where(
            Campaign.model_id == model_id,
            PrunedCount.forgotten_step >= after_step,
            PrunedCount.forgotten_step < up_to_step,
        )
    )
    # One statement, so that a decision that is pruned meanwhile is seen in one of the two.
    both = union_all(stored, pruned).subquery()
    groups = (both.c.creative_id, both.c.slots_version, both.c.context)
    rows = connection.execute(
        select(
            *groups,
            func.sum(both.c.impressions).label("impressions"),
            func.sum(both.c.clicks).label("clicks"),
            *([func.sum(both.c.conversions).label("conversions")] if with_conversions else []),
        )
        .group_by(*groups)
        .order_by(*groups)
    )
    return [
        CountRow(
            creative_id=row.creative_id,
            slots_version=row.slots_version,
            context=row.context,
            impressions=int(row.impressions),
            clicks=int(row.clicks),
            conversions=int(row.conversions) if with_conversions else None,
        )
        for row in rows
    ]


def _converted(click: ColumnElement[int]) -> ColumnElement[int]:
    """Return 1 for a click that led to a conversion, however many; else 0."""
    is_bought = exists().where(
        Outcome.decision_id == Decision.decision_id,
        Outcome.kind == "conversion",
        Outcome.valid,
        ~Outcome.late,
    )
    return case((and_(click == 1, is_bought), 1), else_=0)


def _at_most(count: Any, most: Any) -> ColumnElement[int]:
    return case((count < most, count), else_=most)


def impressions(connection: Connection, model_id: int) -> dict[int, int]:
    """Count activated decisions by campaign: learnt ones from the counters, the others by their index."""
    learnt = connection.execute(
        select(Campaign.campaign_id, func.coalesce(func.sum(ArmStatistics.impressions), 0))
        .outerjoin(Creative, Creative.campaign_id == Campaign.campaign_id)
        .outerjoin(ArmStatistics, ArmStatistics.creative_id == Creative.creative_id)
        .where(Campaign.model_id == model_id)
        .group_by(Campaign.campaign_id)
    )
    totals = {campaign_id: int(count) for campaign_id, count in learnt}
    campaign_of = (
        select(Creative.creative_id, Creative.campaign_id)
        .join(Campaign, Campaign.campaign_id == Creative.campaign_id)
        .where(Campaign.model_id == model_id)
    )
    campaigns: dict[int, int] = dict(connection.execute(campaign_of).all())
    for creative_id, (count, _) in _pending(connection, list(campaigns)).items():
        totals[campaigns[creative_id]] += count
    return totals


def readout_rows(
    connection: Connection, summaries: Sequence[ArmSummary], refreshed_at: datetime
) -> list[dict[str, Any]]:
    """Return the posterior of arms as people read it, with pending counts and share; reads only."""
    if not summaries:
        return []
    ids = [summary.creative_id for summary in summaries]
    pending = _pending(connection, ids)
    shares: dict[int, float] = {}
    for chunk in in_chunks(ids):
        query = select(Creative.campaign_id).where(Creative.creative_id.in_(chunk)).distinct()
        for campaign_id in connection.execute(query).scalars():
            shares |= _shares(connection, campaign_id, refreshed_at)
    return [
        {
            "arm": summary.creative_id,
            "pending_impressions": pending.get(summary.creative_id, (0, 0))[0],
            "pending_clicks": pending.get(summary.creative_id, (0, 0))[1],
            "ctr": summary.ctr,
            "ctr_low": summary.ctr_low,
            "ctr_high": summary.ctr_high,
            "p_best": summary.p_best,
            "expected_loss": summary.expected_loss,
            "value_remaining": summary.value_remaining,
            "share": shares.get(summary.creative_id),
            "version": summary.version,
            "as_of": summary.version,
            "refreshed_at": refreshed_at,
        }
        for summary in sorted(summaries, key=lambda summary: summary.creative_id)
    ]


def write_readouts(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write what `readout_rows` gave."""
    if not rows:
        return
    columns: dict[str, Any] = {name: bindparam(name) for name in rows[0] if name not in {"arm", "as_of"}}
    # A follower that lags behind must not put an older posterior in the place of a newer one.
    is_newer = or_(ArmStatistics.version.is_(None), ArmStatistics.version <= bindparam("as_of"))
    statement = update(ArmStatistics).where(ArmStatistics.creative_id == bindparam("arm"), is_newer)
    connection.execute(statement.values(columns), rows)


def arm_rows(connection: Connection, campaign_id: int, now: datetime) -> list[ArmRow]:
    """Return a campaign's arms; pending counts and shares are counted now."""
    past = (
        select(
            HistoryCount.creative_id,
            func.sum(HistoryCount.impressions).label("impressions"),
            func.sum(HistoryCount.clicks).label("clicks"),
        )
        .join(Creative, Creative.creative_id == HistoryCount.creative_id)
        .where(Creative.campaign_id == campaign_id)
        .group_by(HistoryCount.creative_id)
        .subquery()
    )
    query = (
        select(
            Creative.creative_id,
            Creative.external_id,
            Creative.status,
            ArmStatistics.impressions,
            ArmStatistics.clicks,
            ArmStatistics.conversions,
            ArmStatistics.value,
            # A sum of whole numbers is a numeric on PostgreSQL.
            cast(func.coalesce(past.c.impressions, 0), BigInt).label("history_impressions"),
            cast(func.coalesce(past.c.clicks, 0), BigInt).label("history_clicks"),
            ArmStatistics.ctr,
            ArmStatistics.ctr_low,
            ArmStatistics.ctr_high,
            ArmStatistics.p_best,
            ArmStatistics.expected_loss,
            ArmStatistics.value_remaining,
            ArmStatistics.version,
            ArmStatistics.refreshed_at,
        )
        .join(ArmStatistics, ArmStatistics.creative_id == Creative.creative_id)
        .outerjoin(past, past.c.creative_id == Creative.creative_id)
        .where(Creative.campaign_id == campaign_id)
        .order_by(Creative.creative_id)
    )
    rows = connection.execute(query).mappings().all()
    pending = _pending(connection, [row["creative_id"] for row in rows])
    shares = _shares(connection, campaign_id, now)
    return [
        ArmRow(
            **row,
            pending_impressions=pending.get(row["creative_id"], (0, 0))[0],
            pending_clicks=pending.get(row["creative_id"], (0, 0))[1],
            share=shares.get(row["creative_id"], 0.0) if shares else None,
        )
        for row in rows
    ]


def _pending(connection: Connection, creative_ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Count activated decisions that are not learnt, and the settled clicks among them, by their index."""
    query = select(Decision.creative_id, func.count(), func.sum(Decision.click)).where(
        Decision.activated_at.is_not(None), Decision.learnt_batch.is_(None)
    )
    return {
        creative_id: (count, int(clicks or 0))
        for chunk in in_chunks(creative_ids)
        for creative_id, count, clicks in connection.execute(
            query.where(Decision.creative_id.in_(chunk)).group_by(Decision.creative_id)
        )
    }


def _shares(connection: Connection, campaign_id: int, now: datetime) -> dict[int, float]:
    """Return each creative's share of the campaign's impressions in the last 24 h; empty without any."""
    rows = connection.execute(
        select(Decision.creative_id, func.count())
        .where(Decision.campaign_id == campaign_id, Decision.activated_at > now - SHARE_SPAN)
        .group_by(Decision.creative_id)
    ).all()
    total = sum(count for _, count in rows)
    return {creative_id: count / total for creative_id, count in rows}
