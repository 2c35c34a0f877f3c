"""The decision log as records that mean the same in another database: names instead of our ids.

What one campaign's decisions need to be learnt again (settings, texts, the context schema, the encoder's
components) is the setup; secrets, posteriors and imported history are not part of it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar, final

from sqlalchemy import Connection, Select, and_, func, select, text

from storage.database.dialect import is_among
from storage.database.session import Database, allow_idling
from storage.records import CampaignRecord, ContextRecord, CreativeRecord, ModelRecord
from storage.schema.tables import Campaign, CandidateSet, Creative, Decision, Model, Outcome
from storage.topics import context_schema
from storage.topics.campaigns import record_of

T = TypeVar("T")

CHUNK: Final = 1_000  # decisions a fetch
DECISIONS: Final = select(
    Decision.decision_id,
    Decision.campaign_id,
    Decision.creative_id,
    CandidateSet.creative_ids,
    Decision.propensities,
    Decision.propensity,
    Decision.place,
    Decision.list_propensity,
    Decision.request_id,
    Decision.is_control,
    Decision.context,
    Decision.model_version,
    Decision.slots_version,
    Decision.horizon,
    Decision.kappa,
    Decision.point_set,
    Decision.decided_at,
    Decision.activated_at,
    Decision.closed_at,
    Decision.settled_at,
    Decision.click,
).join(CandidateSet, CandidateSet.candidate_set_id == Decision.candidate_set_id)
OUTCOMES: Final = (
    select(
        Outcome.decision_id,
        Outcome.outcome_id,
        Outcome.kind,
        Outcome.key,
        Outcome.value,
        Outcome.occurred_at,
        Outcome.received_at,
        Outcome.late,
        Outcome.valid,
        Outcome.corrects,
    )
    .where(is_among(Outcome.decision_id, "ids"))
    .order_by(Outcome.outcome_id)
)


class LoggedOutcome(NamedTuple):
    """One report of a decision; `corrects` is the place, in the decision's list, of the one it takes back."""

    kind: str
    key: str
    value: float
    occurred_at: datetime | None
    received_at: datetime
    late: bool
    valid: bool
    corrects: int | None


class LoggedDecision(NamedTuple):
    """A decision with all that was reported about it; campaign and creatives by the names that users gave."""

    decision_id: str
    campaign: str
    creative: str
    candidates: tuple[str, ...]
    propensities: tuple[float, ...]
    propensity: float
    place: int
    list_propensity: float | None
    request_id: str | None
    is_control: bool
    context: dict[str, Any]
    model_version: int
    slots_version: int
    horizon: float | None
    kappa: float
    point_set: int
    decided_at: datetime
    activated_at: datetime | None
    closed_at: datetime | None
    settled_at: datetime | None
    click: int | None
    outcomes: tuple[LoggedOutcome, ...]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What decisions of some campaigns were made with."""

    model: ModelRecord
    context: ContextRecord
    campaigns: tuple[CampaignRecord, ...]
    creatives: tuple[CreativeRecord, ...]

    def contents(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the content of each creative, by its campaign's name and its own."""
        names = {campaign.campaign_id: campaign.name for campaign in self.campaigns}
        return {(names[c.campaign_id], c.external_id): c.content for c in self.creatives}


@final
class Exports:
    """The topic `store.exports`: one public method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def setup(self, model_id: int, *, campaign: str | None = None) -> Setup:
        """Return what the decisions of a model, or of one of its campaigns, were made with."""

        def work(connection: Connection) -> Setup:
            is_asked = Campaign.model_id == model_id
            if campaign is not None:
                is_asked = and_(is_asked, Campaign.name == campaign)
            campaigns = select(Campaign.__table__).where(is_asked).order_by(Campaign.campaign_id)
            creatives = (
                select(Creative.__table__)
                .join(Campaign, Campaign.campaign_id == Creative.campaign_id)
                .where(is_asked)
                .order_by(Creative.creative_id)
            )
            model = connection.execute(select(Model.__table__).where(Model.model_id == model_id))
            return Setup(
                model=ModelRecord(**model.mappings().one()),
                context=context_schema.read(connection, model_id),
                campaigns=tuple(record_of(row) for row in connection.execute(campaigns).mappings()),
                creatives=tuple(CreativeRecord(**row) for row in connection.execute(creatives).mappings()),
            )

        return self._database.read(work)

    def decisions(self, setup: Setup, consume: Callable[[Iterator[LoggedDecision]], T]) -> T:
        """Read the decisions of a setup's campaigns, as of one moment and a piece at a time.

        Args:
            setup: From `setup`.
            consume: Takes the decisions, in the order of their ids; it is called again from the start when
                the database gave up a first time.

        Returns:
            What `consume` returned.
        """
        query = (
            DECISIONS.where(Decision.campaign_id.in_([c.campaign_id for c in setup.campaigns]))
            .order_by(Decision.decision_id)
            .execution_options(yield_per=CHUNK)
        )

        def work(connection: Connection) -> T:
            if connection.dialect.name == "postgresql":  # SQLite reads as of one moment anyway
                connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
                allow_idling(connection)  # who consumes may write to a slow place
            return consume(_logged(connection, query, setup))

        return self._database.read(work)

    def count(self, setup: Setup) -> int:
        """Return how many decisions there are now, for a progress bar."""
        query = select(func.count()).where(Decision.campaign_id.in_([c.campaign_id for c in setup.campaigns]))
        return self._database.read(lambda connection: connection.execute(query).scalar_one())


def _logged(
    connection: Connection, query: Select[*tuple[Any, ...]], setup: Setup
) -> Iterator[LoggedDecision]:
    campaigns = {campaign.campaign_id: campaign.name for campaign in setup.campaigns}
    names = {creative.creative_id: creative.external_id for creative in setup.creatives}
    for rows in connection.execute(query).partitions():
        outcomes = _outcomes(connection, [row.decision_id for row in rows])
        for row in rows:
            yield LoggedDecision._make(
                (
                    row.decision_id,
                    campaigns[row.campaign_id],
                    names[row.creative_id],
                    tuple(names[creative] for creative in row.creative_ids),
                    tuple(row.propensities),
                    *row[5:],
                    tuple(outcomes[row.decision_id]),
                )
            )


def _outcomes(connection: Connection, ids: Sequence[str]) -> defaultdict[str, list[LoggedOutcome]]:
    found: defaultdict[str, list[LoggedOutcome]] = defaultdict(list)
    place: dict[int, int] = {}
    for row in connection.execute(OUTCOMES, {"ids": ids}):
        of_decision = found[row.decision_id]
        place[row.outcome_id] = len(of_decision)
        corrects = None if row.corrects is None else place[row.corrects]
        of_decision.append(LoggedOutcome._make((*row[2:9], corrects)))
    return found
