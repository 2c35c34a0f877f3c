"""Campaigns and their creatives."""

import difflib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NoReturn, final

from sqlalchemy import ColumnElement, Connection, RowMapping, case, cast, func, insert, select, update
from sqlalchemy.orm import InstrumentedAttribute

from storage.border import check_integer, check_text
from storage.columns import BigInt, canonical_json
from storage.errors import (
    DuplicateCampaignError,
    DuplicateCreativeError,
    InvalidValueError,
    RetiredCreativeError,
    UnknownCampaignError,
    UnknownCreativeError,
)
from storage.limits import check_feasible, check_limits
from storage.records import (
    CampaignRecord,
    CampaignStatus,
    CreativeRecord,
    CreativeStatus,
    Horizon,
    NewCreative,
)
from storage.schema import ArmStatistics, Campaign, Creative
from storage.session import Database, in_chunks, insert_into

CAMPAIGN_STATUSES: Final = ("active", "paused", "ended")
CREATIVE_STATUSES: Final = ("active", "paused", "retired")


@final
class Campaigns:
    """The topic `store.campaigns`: one public method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        model_id: int,
        name: str,
        *,
        objective: str = "click",
        horizon: Horizon = "auto",
        attribution_window_s: float = 1800.0,
        conversion_window_s: float = 604_800.0,
        uniform_share: float = 0.01,
        control_share: float = 0.0,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
        created_at: datetime,
    ) -> CampaignRecord:
        """Add a campaign.

        Args:
            model_id: The model that serves it.
            name: Unique in the database.
            objective: What is maximised.
            horizon: Impressions still to come; "auto", or None for a campaign without an end.
            attribution_window_s: Seconds for which silence is no answer; 0: every outcome is reported.
            conversion_window_s: Seconds for which conversions count.
            uniform_share: The share of traffic spread evenly, 0 to 1.
            control_share: The share of traffic kept as control, 0 to 1.
            starts_at: Its start, if known.
            ends_at: Its end, if known.
            created_at: When.

        Returns:
            The stored campaign.

        Raises:
            DuplicateCampaignError: The name is taken.
            InvalidValueError: A value is out of its range.
        """
        check_text(name, "the campaign's name")
        check_text(objective, "objective")
        mode = horizon if horizon == "auto" else "none" if horizon is None else "fixed"
        if isinstance(horizon, int):
            check_integer(horizon, f"campaign {name!r}: horizon")
        elif mode == "fixed":
            raise InvalidValueError(
                f"campaign {name!r}: horizon must be a whole number, 'auto' or None, got {horizon!r}"
            )
        values = {
            "model_id": model_id,
            "name": name,
            "objective": objective,
            "horizon_mode": mode,
            "horizon": horizon if mode == "fixed" else None,
            "attribution_window_s": attribution_window_s,
            "conversion_window_s": conversion_window_s,
            "uniform_share": uniform_share,
            "control_share": control_share,
            "starts_at": starts_at,
            "ends_at": ends_at,
            "created_at": created_at,
        }

        def work(connection: Connection) -> CampaignRecord:
            statement = insert_into(connection, Campaign).on_conflict_do_nothing(index_elements=["name"])
            # Asked for by RETURNING: the count of rows is not reliable where the database makes the key.
            added = connection.execute(statement.values(values).returning(Campaign.campaign_id))
            if added.scalar_one_or_none() is None:
                raise DuplicateCampaignError(f"campaign {name!r} exists; choose another name")
            return _campaign(connection, name)

        return self._database.write(work)

    def get(self, name: str) -> CampaignRecord:
        """Return a campaign.

        Raises:
            UnknownCampaignError: No campaign has this name; the message lists close ones.
        """
        return self._database.read(lambda connection: _campaign(connection, name))

    def all(self, model_id: int) -> list[CampaignRecord]:
        """Return the campaigns of a model, in the order in which they were added."""
        query = select(Campaign.__table__).where(Campaign.model_id == model_id).order_by(Campaign.campaign_id)
        return self._database.read(
            lambda connection: [_record(row) for row in connection.execute(query).mappings()]
        )

    def set_status(self, name: str, status: CampaignStatus) -> None:
        """Make a campaign active, paused or ended.

        Raises:
            UnknownCampaignError: No campaign has this name.
            InvalidValueError: There is no such status.
        """
        _check_status(status, CAMPAIGN_STATUSES, f"campaign {name!r}")

        def work(connection: Connection) -> None:
            statement = update(Campaign).where(Campaign.name == name).values(status=status)
            if connection.execute(statement).rowcount == 0:
                _raise_unknown(connection, name)

        self._database.write(work)

    def set_mean_content(self, campaign_id: int, mean_content: bytes, *, force: bool = False) -> bytes:
        """Store the campaign's mean content vector, unless there is one.

        Args:
            campaign_id: The campaign.
            mean_content: The vector's bytes, as the engine reads them.
            force: Replace it; only a refit may.

        Returns:
            The vector that is stored now: of two processes the first gave it.

        Raises:
            UnknownCampaignError: No such campaign.
        """

        def work(connection: Connection) -> bytes:
            statement = update(Campaign).where(Campaign.campaign_id == campaign_id)
            if not force:
                statement = statement.where(Campaign.mean_content.is_(None))
            connection.execute(statement.values(mean_content=mean_content))
            query = select(Campaign.mean_content).where(Campaign.campaign_id == campaign_id)
            stored = connection.execute(query).scalar_one_or_none()
            if stored is None:
                raise UnknownCampaignError(f"there is no campaign with campaign_id {campaign_id}")
            return stored

        return self._database.write(work)

    def add_creatives(
        self, campaign_id: int, creatives: Sequence[NewCreative], *, created_at: datetime
    ) -> list[CreativeRecord]:
        """Add creatives, all or none.

        Args:
            campaign_id: The campaign.
            creatives: With ids that the campaign does not have.
            created_at: When.

        Returns:
            The stored creatives, in the order given.

        Raises:
            DuplicateCreativeError: Names every id that is taken or given twice.
            InvalidLimitsError: A floor or cap is no fraction, or the campaign's cannot all be kept.
            InvalidValueError: A text cannot be stored.
            UnknownCampaignError: No such campaign.
        """
        ids = [creative.external_id for creative in creatives]
        for creative in creatives:
            what = f"creative {creative.external_id!r}"
            check_text(creative.external_id, "a creative's id")
            check_text(creative.content_hash, f"{what}: content_hash")
            canonical_json(dict(creative.content), what=f"{what}: its content")
            if creative.picture is not None:
                check_text(creative.picture, f"{what}: picture")
            check_limits(what, creative.floor, creative.cap)
            _check_status(creative.status, CREATIVE_STATUSES, what)
        rows = [
            {
                "campaign_id": campaign_id,
                "external_id": creative.external_id,
                "content": dict(creative.content),
                "content_hash": creative.content_hash,
                "picture": creative.picture,
                "floor": creative.floor,
                "cap": creative.cap,
                "status": creative.status,
                "created_at": created_at,
            }
            for creative in creatives
        ]

        def work(connection: Connection) -> list[CreativeRecord]:
            # The lock lets two who add the same id find out in turn, and with the same message.
            name = _lock(connection, campaign_id)
            taken = {external_id for external_id, times in Counter(ids).items() if times > 1}
            taken |= {row.external_id for row in _creatives_of(connection, campaign_id, ids)}
            if taken:
                listed = ", ".join(sorted(map(repr, taken)))
                raise DuplicateCreativeError(
                    f"campaign {name!r} has these creative ids already, or they are given twice: {listed}; "
                    "nothing was added"
                )
            if not rows:
                return []
            connection.execute(insert(Creative), rows)
            _check_feasible(connection, campaign_id)
            stored = {row.external_id: row for row in _creatives_of(connection, campaign_id, ids)}
            statistics = [{"creative_id": stored[external_id].creative_id} for external_id in ids]
            connection.execute(insert(ArmStatistics), statistics)
            return [stored[external_id] for external_id in ids]

        return self._database.write(work)

    def creatives(self, campaign: str) -> list[CreativeRecord]:
        """Return the creatives of a campaign, retired ones too, in the order of our ids.

        Raises:
            UnknownCampaignError: No campaign has this name.
        """

        def work(connection: Connection) -> list[CreativeRecord]:
            return _creatives_of(connection, _campaign(connection, campaign).campaign_id)

        return self._database.read(work)

    def all_creatives(self, model_id: int) -> list[CreativeRecord]:
        """Return the creatives of all campaigns of a model, retired ones too, in the order of our ids."""
        query = (
            select(Creative.__table__)
            .join(Campaign, Campaign.campaign_id == Creative.campaign_id)
            .where(Campaign.model_id == model_id)
            .order_by(Creative.creative_id)
        )
        return self._database.read(
            lambda connection: [CreativeRecord(**row) for row in connection.execute(query).mappings()]
        )

    def version(self, model_id: int) -> tuple[int, ...]:
        """Return numbers that change when a campaign or creative is added, or its status or limits change.

        One pass over the creatives' statuses, without their contents; cheap enough for once a second.
        """
        creatives = (
            select(func.count(), *_status_sums(Creative.creative_id, Creative.status, CREATIVE_STATUSES))
            .join(Campaign, Campaign.campaign_id == Creative.campaign_id)
            .where(Campaign.model_id == model_id)
        )
        campaigns = select(
            func.count(),
            cast(func.coalesce(func.sum(Campaign.settings_version), 0), BigInt),
            *_status_sums(Campaign.campaign_id, Campaign.status, CAMPAIGN_STATUSES),
        ).where(Campaign.model_id == model_id)

        def work(connection: Connection) -> tuple[int, ...]:
            return (*connection.execute(creatives).one(), *connection.execute(campaigns).one())

        return self._database.read(work)

    def set_creative_status(self, campaign: str, external_id: str, status: CreativeStatus) -> CreativeRecord:
        """Make a creative active, paused or retired; retired is final.

        Returns:
            The creative as it is now.

        Raises:
            UnknownCampaignError: No campaign has this name.
            UnknownCreativeError: The campaign has no such creative.
            RetiredCreativeError: It is retired.
            InvalidLimitsError: With it active, the campaign's floors and caps could not all be kept.
            InvalidValueError: There is no such status.
        """
        _check_status(status, CREATIVE_STATUSES, f"creative {external_id!r}")

        def work(connection: Connection) -> CreativeRecord:
            campaign_id = _campaign(connection, campaign).campaign_id
            _lock(connection, campaign_id)
            is_it = (Creative.campaign_id == campaign_id) & (Creative.external_id == external_id)
            statement = update(Creative).where(is_it)
            if status != "retired":
                statement = statement.where(Creative.status != "retired")
            changed = connection.execute(statement.values(status=status)).rowcount
            row = connection.execute(select(Creative.__table__).where(is_it)).mappings().one_or_none()
            if row is None:
                _raise_unknown_creative(connection, campaign, campaign_id, external_id)
            if not changed:
                raise RetiredCreativeError(
                    f"creative {external_id!r} of campaign {campaign!r} is retired and cannot become "
                    f"{status}; add it under a new id"
                )
            if status == "active":  # but pausing must never be refused
                _check_feasible(connection, campaign_id)
            return CreativeRecord(**row)

        return self._database.write(work)

    def set_limits(
        self, campaign: str, external_id: str, *, floor: float | None = None, cap: float | None = None
    ) -> CreativeRecord:
        """Set the least and the most of the campaign's traffic that a creative may get.

        Args:
            campaign: The campaign's name.
            external_id: The creative.
            floor: A fraction; None leaves it as it is.
            cap: A fraction, likewise.

        Returns:
            The creative as it is now.

        Raises:
            UnknownCampaignError: No campaign has this name.
            UnknownCreativeError: The campaign has no such creative.
            InvalidLimitsError: They are no fractions, or the campaign's could not all be kept.
        """

        def work(connection: Connection) -> CreativeRecord:
            campaign_id = _campaign(connection, campaign).campaign_id
            _lock(connection, campaign_id)
            found = _creatives_of(connection, campaign_id, [external_id])
            if not found:
                _raise_unknown_creative(connection, campaign, campaign_id, external_id)
            limits = {
                "floor": found[0].floor if floor is None else floor,
                "cap": found[0].cap if cap is None else cap,
            }
            check_limits(f"creative {external_id!r} of campaign {campaign!r}", **limits)
            is_it = Creative.creative_id == found[0].creative_id
            connection.execute(update(Creative).where(is_it).values(limits))
            _check_feasible(connection, campaign_id)
            connection.execute(
                update(Campaign)
                .where(Campaign.campaign_id == campaign_id)
                .values(settings_version=Campaign.settings_version + 1)
            )
            return _creatives_of(connection, campaign_id, [external_id])[0]

        return self._database.write(work)


def _campaign(connection: Connection, name: str) -> CampaignRecord:
    row = connection.execute(select(Campaign.__table__).where(Campaign.name == name)).mappings().one_or_none()
    return _raise_unknown(connection, name) if row is None else _record(row)


def _lock(connection: Connection, campaign_id: int) -> str:
    """Let one transaction at a time change a campaign's creatives, and return its name."""
    query = select(Campaign.name).where(Campaign.campaign_id == campaign_id).with_for_update(key_share=True)
    name = connection.execute(query).scalar_one_or_none()
    if name is None:
        raise UnknownCampaignError(f"there is no campaign with campaign_id {campaign_id}")
    return name


def _check_feasible(connection: Connection, campaign_id: int) -> None:
    """Refuse what a change has made of the campaign's floors and caps, if they cannot all be kept."""
    shares = select(Campaign.name, Campaign.uniform_share + Campaign.control_share)
    name, spread = connection.execute(shares.where(Campaign.campaign_id == campaign_id)).one()
    active = select(Creative.external_id, Creative.floor, Creative.cap).where(
        Creative.campaign_id == campaign_id, Creative.status == "active"
    )
    check_feasible(name, spread, {i: (floor, cap) for i, floor, cap in connection.execute(active)})


def _raise_unknown_creative(
    connection: Connection, campaign: str, campaign_id: int, external_id: str
) -> NoReturn:
    known = [creative.external_id for creative in _creatives_of(connection, campaign_id)]
    raise UnknownCreativeError(
        f"campaign {campaign!r} has no creative {external_id!r}{_close(external_id, known)}"
    )


def _raise_unknown(connection: Connection, name: str) -> NoReturn:
    known = list(connection.execute(select(Campaign.name)).scalars())
    raise UnknownCampaignError(f"there is no campaign {name!r}{_close(name, known)}")


def _close(name: str, known: Sequence[str]) -> str:
    """End a message with the names that may have been meant."""
    near = difflib.get_close_matches(str(name), known)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def _record(row: RowMapping) -> CampaignRecord:
    fields: dict[str, Any] = dict(row)
    mode = fields.pop("horizon_mode")
    return CampaignRecord(**{**fields, "horizon": mode if mode == "auto" else fields["horizon"]})


def _creatives_of(
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


def _check_status(status: str, known: tuple[str, ...], what: str) -> None:
    if status not in known:
        raise InvalidValueError(f"{what}: status must be one of {', '.join(known)}, got {status!r}")


def _status_sums(
    key: InstrumentedAttribute[int], status: InstrumentedAttribute[Any], statuses: tuple[str, ...]
) -> list[ColumnElement[int]]:
    """Return, per status, the sum of squares of the keys that have it: two swaps do not cancel out."""
    return [func.coalesce(func.sum(case((status == name, key * key), else_=0)), 0) for name in statuses]
