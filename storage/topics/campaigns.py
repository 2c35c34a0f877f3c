"""Campaigns and their creatives."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NoReturn, final

from sqlalchemy import ColumnElement, Connection, RowMapping, case, cast, func, select, update
from sqlalchemy.orm import InstrumentedAttribute

from storage.database.dialect import insert_into
from storage.database.session import Database
from storage.errors import (
    DuplicateCampaignError,
    InvalidValueError,
    UnknownCampaignError,
)
from storage.records import (
    CampaignRecord,
    CampaignStatus,
    CreativeRecord,
    CreativeStatus,
    Horizon,
    NewCreative,
)
from storage.schema.columns import BigInt
from storage.schema.tables import Campaign, Creative
from storage.topics import creatives, models
from storage.validation import LONGEST_NAME, check_integer, check_text

CAMPAIGN_STATUSES: Final = ("active", "paused", "ended")


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
        check_text(name, "the campaign's name", longest=LONGEST_NAME)
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
            lambda connection: [record_of(row) for row in connection.execute(query).mappings()]
        )

    def set_status(self, name: str, status: CampaignStatus) -> None:
        """Make a campaign active, paused or ended.

        Raises:
            UnknownCampaignError: No campaign has this name.
            InvalidValueError: There is no such status.
        """
        creatives.check_status(status, CAMPAIGN_STATUSES, f"campaign {name!r}")

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
        self,
        campaign_id: int,
        new: Sequence[NewCreative],
        *,
        created_at: datetime,
        encoder_fingerprint: str | None = None,
    ) -> list[CreativeRecord]:
        """Add creatives, all or none.

        Args:
            campaign_id: The campaign.
            new: With ids that the campaign does not have.
            created_at: When.
            encoder_fingerprint: What encoded their texts; None where nobody has.

        Returns:
            The stored creatives, in the order given.

        Raises:
            DuplicateCreativeError: Names every id that is taken or given twice.
            EncoderSwappedError: The model has another encoder now.
            InvalidLimitsError: A floor or cap is no fraction, or the campaign's cannot all be kept.
            InvalidValueError: A text cannot be stored.
            UnknownCampaignError: No such campaign.
        """
        creatives.check_new(new)

        def work(connection: Connection) -> list[CreativeRecord]:
            if encoder_fingerprint is not None:
                models.hold_encoder(connection, campaign_id, encoder_fingerprint)
            return creatives.add(connection, campaign_id, new, created_at)

        return self._database.write(work)

    def creatives(self, campaign: str) -> list[CreativeRecord]:
        """Return the creatives of a campaign, retired ones too, in the order of our ids.

        Raises:
            UnknownCampaignError: No campaign has this name.
        """
        return self._database.read(
            lambda connection: creatives.of_campaign(connection, _campaign(connection, campaign).campaign_id)
        )

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
        of_creatives = (
            select(func.count(), *_status_sums(Creative.creative_id, Creative.status, creatives.STATUSES))
            .join(Campaign, Campaign.campaign_id == Creative.campaign_id)
            .where(Campaign.model_id == model_id)
        )
        of_campaigns = select(
            func.count(),
            cast(func.coalesce(func.sum(Campaign.settings_version), 0), BigInt),
            *_status_sums(Campaign.campaign_id, Campaign.status, CAMPAIGN_STATUSES),
        ).where(Campaign.model_id == model_id)

        def work(connection: Connection) -> tuple[int, ...]:
            return (*connection.execute(of_creatives).one(), *connection.execute(of_campaigns).one())

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
        creatives.check_status(status, creatives.STATUSES, f"creative {external_id!r}")

        def work(connection: Connection) -> CreativeRecord:
            return creatives.set_status(connection, _campaign(connection, campaign), external_id, status)

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
            return creatives.set_limits(connection, _campaign(connection, campaign), external_id, floor, cap)

        return self._database.write(work)


def _campaign(connection: Connection, name: str) -> CampaignRecord:
    row = connection.execute(select(Campaign.__table__).where(Campaign.name == name)).mappings().one_or_none()
    return _raise_unknown(connection, name) if row is None else record_of(row)


def _raise_unknown(connection: Connection, name: str) -> NoReturn:
    known = list(connection.execute(select(Campaign.name)).scalars())
    raise UnknownCampaignError(f"there is no campaign {name!r}{creatives.close_names(name, known)}")


def record_of(row: RowMapping) -> CampaignRecord:
    """Return a campaign as it is stored."""
    fields: dict[str, Any] = dict(row)
    mode = fields.pop("horizon_mode")
    return CampaignRecord(**{**fields, "horizon": mode if mode == "auto" else fields["horizon"]})


def values_of(record: CampaignRecord) -> dict[str, Any]:
    """Return a campaign's columns but its key: what makes the same campaign in another database."""
    fields = {name: value for name, value in vars(record).items() if name not in ("campaign_id", "horizon")}
    horizon = record.horizon
    mode = "none" if horizon is None else horizon if horizon == "auto" else "fixed"
    return {**fields, "horizon_mode": mode, "horizon": horizon if mode == "fixed" else None}


def _status_sums(
    key: InstrumentedAttribute[int], status: InstrumentedAttribute[Any], statuses: tuple[str, ...]
) -> list[ColumnElement[int]]:
    """Return, per status, the sum of squares of the keys that have it: two swaps do not cancel out."""
    return [func.coalesce(func.sum(case((status == name, key * key), else_=0)), 0) for name in statuses]
