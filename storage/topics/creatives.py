"""The statements behind a campaign's creatives: each runs in a transaction of `Campaigns`."""

import difflib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NoReturn

from sqlalchemy import Connection, insert, select, update

from storage.database.dialect import in_chunks
from storage.errors import (
    DuplicateCreativeError,
    InvalidValueError,
    RetiredCreativeError,
    UnknownCampaignError,
    UnknownCreativeError,
)
from storage.records import CampaignRecord, CreativeRecord, CreativeStatus, NewCreative
from storage.schema.columns import canonical_json
from storage.schema.tables import ArmStatistics, Campaign, Creative
from storage.topics.limits import check_feasible, check_limits
from storage.validation import LONGEST_NAME, check_text

STATUSES: Final = ("active", "paused", "retired")


def check_new(creatives: Sequence[NewCreative]) -> None:
    """Refuse what cannot be stored.

    Raises:
        InvalidLimitsError: A floor or cap is no fraction.
        InvalidValueError: A text cannot be stored, or there is no such status.
    """
    for creative in creatives:
        what = f"creative {creative.external_id!r}"
        check_text(creative.external_id, "a creative's id", longest=LONGEST_NAME)
        check_text(creative.content_hash, f"{what}: content_hash")
        canonical_json(dict(creative.content), what=f"{what}: its content")
        if creative.picture is not None:
            check_text(creative.picture, f"{what}: picture")
        check_limits(what, creative.floor, creative.cap)
        check_status(creative.status, STATUSES, what)


def add(
    connection: Connection, campaign_id: int, creatives: Sequence[NewCreative], created_at: datetime
) -> list[CreativeRecord]:
    """Add creatives, all or none, and return them in the order given."""
    # The lock lets two who add the same id find out in turn, and with the same message.
    name = _lock(connection, campaign_id)
    ids = [creative.external_id for creative in creatives]
    taken = {external_id for external_id, times in Counter(ids).items() if times > 1}
    taken |= {row.external_id for row in of_campaign(connection, campaign_id, ids)}
    if taken:
        listed = ", ".join(sorted(map(repr, taken)))
        raise DuplicateCreativeError(
            f"campaign {name!r} has these creative ids already, or they are given twice: {listed}; "
            "nothing was added"
        )
    if not ids:
        return []
    connection.execute(insert(Creative), [_row(new, campaign_id, created_at) for new in creatives])
    _check_feasible(connection, campaign_id)
    stored = {row.external_id: row for row in of_campaign(connection, campaign_id, ids)}
    statistics = [{"creative_id": stored[external_id].creative_id} for external_id in ids]
    connection.execute(insert(ArmStatistics), statistics)
    return [stored[external_id] for external_id in ids]


def of_campaign(
    connection: Connection, campaign_id: int, external_ids: Sequence[str] | None = None
) -> list[CreativeRecord]:
    """Return a campaign's creatives, all or those with the given ids, in the order of our ids."""
    query = select(Creative.__table__).where(Creative.campaign_id == campaign_id)
    query = query.order_by(Creative.creative_id)
    if external_ids is None:
        return [CreativeRecord(**row) for row in connection.execute(query).mappings()]
    return [
        CreativeRecord(**row)
        for chunk in in_chunks(external_ids)
        for row in connection.execute(query.where(Creative.external_id.in_(chunk))).mappings()
    ]


def set_status(
    connection: Connection, campaign: CampaignRecord, external_id: str, status: CreativeStatus
) -> CreativeRecord:
    """Change a creative's status, and return the creative as it is now."""
    creative = _locked(connection, campaign, external_id)
    if creative.status == "retired" != status:
        raise RetiredCreativeError(
            f"creative {external_id!r} of campaign {campaign.name!r} is retired and cannot become "
            f"{status}; add it under a new id"
        )
    return _changed(connection, creative, status=status)


def set_limits(
    connection: Connection, campaign: CampaignRecord, external_id: str, floor: float | None, cap: float | None
) -> CreativeRecord:
    """Change a creative's limits, and return the creative as it is now; None leaves a limit as it is."""
    creative = _locked(connection, campaign, external_id)
    limits = {
        "floor": creative.floor if floor is None else floor,
        "cap": creative.cap if cap is None else cap,
    }
    check_limits(f"creative {external_id!r} of campaign {campaign.name!r}", **limits)
    is_it = Campaign.campaign_id == campaign.campaign_id
    connection.execute(update(Campaign).where(is_it).values(settings_version=Campaign.settings_version + 1))
    return _changed(connection, creative, **limits)


def check_status(status: str, known: tuple[str, ...], what: str) -> None:
    """Refuse a status that there is not.

    Raises:
        InvalidValueError: Names it, and those that there are.
    """
    if status not in known:
        raise InvalidValueError(f"{what}: status must be one of {', '.join(known)}, got {status!r}")


def close_names(name: str, known: Sequence[str]) -> str:
    """End a message with the names that may have been meant."""
    near = difflib.get_close_matches(str(name), known)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def _row(new: NewCreative, campaign_id: int, created_at: datetime) -> dict[str, Any]:
    return {
        "campaign_id": campaign_id,
        "external_id": new.external_id,
        "content": dict(new.content),
        "content_hash": new.content_hash,
        "picture": new.picture,
        "floor": new.floor,
        "cap": new.cap,
        "status": new.status,
        "created_at": created_at,
    }


def _lock(connection: Connection, campaign_id: int) -> str:
    """Let one transaction at a time change a campaign's creatives, and return its name."""
    query = select(Campaign.name).where(Campaign.campaign_id == campaign_id).with_for_update(key_share=True)
    name = connection.execute(query).scalar_one_or_none()
    if name is None:
        raise UnknownCampaignError(f"there is no campaign with campaign_id {campaign_id}")
    return name


def _locked(connection: Connection, campaign: CampaignRecord, external_id: str) -> CreativeRecord:
    """Return a creative, with its campaign locked."""
    _lock(connection, campaign.campaign_id)
    found = of_campaign(connection, campaign.campaign_id, [external_id])
    return found[0] if found else _raise_unknown(connection, campaign, external_id)


def _changed(connection: Connection, creative: CreativeRecord, **values: Any) -> CreativeRecord:
    """Change a creative, and return it as it is now; an active one must leave limits that can be kept."""
    connection.execute(update(Creative).where(Creative.creative_id == creative.creative_id).values(values))
    (changed,) = of_campaign(connection, creative.campaign_id, [creative.external_id])
    if changed.status == "active":  # pausing must never be refused
        _check_feasible(connection, creative.campaign_id)
    return changed


def _check_feasible(connection: Connection, campaign_id: int) -> None:
    """Refuse what a change has made of the campaign's floors and caps, if they cannot all be kept."""
    shares = select(Campaign.name, Campaign.uniform_share + Campaign.control_share)
    name, spread = connection.execute(shares.where(Campaign.campaign_id == campaign_id)).one()
    active = select(Creative.external_id, Creative.floor, Creative.cap).where(
        Creative.campaign_id == campaign_id, Creative.status == "active"
    )
    check_feasible(name, spread, {i: (floor, cap) for i, floor, cap in connection.execute(active)})


def _raise_unknown(connection: Connection, campaign: CampaignRecord, external_id: str) -> NoReturn:
    known = [creative.external_id for creative in of_campaign(connection, campaign.campaign_id)]
    raise UnknownCreativeError(
        f"campaign {campaign.name!r} has no creative {external_id!r}{close_names(external_id, known)}"
    )
