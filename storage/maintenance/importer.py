"""Decisions of another database, written as if they had been made here: settled, and not learnt yet."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, final

from sqlalchemy import Connection, insert, select, update

from storage.database.dialect import insert_columns, insert_into, is_among
from storage.database.session import Database
from storage.errors import DecisionConflictError, InvalidValueError, SetupConflictError
from storage.maintenance.exporter import LoggedDecision, LoggedOutcome, Setup
from storage.records import CampaignRecord, NewCreative, NewDecision
from storage.schema.columns import canonical_json
from storage.schema.tables import Campaign, ContextField, ContextSlot, Decision, Model, Outcome
from storage.topics import context_schema, creatives
from storage.topics.campaigns import record_of, values_of
from storage.topics.decisions import columns_of
from storage.topics.outcomes import count_conversions
from storage.validation import check_decision, check_decision_ids, check_text

THERE: Final = select(Decision.decision_id, Decision.campaign_id, Decision.creative_id).where(
    is_among(Decision.decision_id, "ids")
)
OUTCOME_IDS: Final = select(Outcome.outcome_id, Outcome.decision_id, Outcome.kind, Outcome.key).where(
    is_among(Outcome.decision_id, "ids")
)


class Target(NamedTuple):
    """Where decisions go.

    Attributes:
        campaigns: The campaigns here, by name.
        creative_ids: Our ids, by campaign and the caller's id.
        slots_version: The version of the context slots by which they count; None keeps their own.
    """

    campaigns: Mapping[str, CampaignRecord]
    creative_ids: Mapping[tuple[str, str], int]
    slots_version: int | None


@final
class Imports:
    """The topic `store.imports`: one public method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def setup(self, setup: Setup) -> Target:
        """Add campaigns and creatives that are not here, and the context schema to a model without one.

        Args:
            setup: Of the other database.

        Returns:
            Where its decisions go. With a context schema of its own here, they count by that one.

        Raises:
            SetupConflictError: The encoder differs, or a creative is here with other texts; names all.
            ContextKindError: A context field is known here with another kind of values.
        """
        names = [campaign.name for campaign in setup.campaigns]

        def work(connection: Connection) -> Target:
            model_id = _model(connection, setup)
            slots_version = _context(connection, model_id, setup)
            for campaign in setup.campaigns:
                values = {**values_of(campaign), "model_id": model_id}
                statement = insert_into(connection, Campaign).on_conflict_do_nothing(index_elements=["name"])
                connection.execute(statement.values(values))
            query = select(Campaign.__table__).where(Campaign.name.in_(names)).order_by(Campaign.campaign_id)
            found = {row["name"]: record_of(row) for row in connection.execute(query).mappings()}
            return Target(found, _creatives(connection, found, setup), slots_version)

        return self._database.write(work)

    def decisions(self, target: Target, decisions: Sequence[LoggedDecision]) -> int:
        """Add the decisions whose ids are not here, with their outcomes.

        Args:
            target: From `setup`.
            decisions: A number that is bearable in one transaction.

        Returns:
            How many were added.

        Raises:
            DecisionConflictError: An id is here with another campaign or creative; nothing was added.
            InvalidIdError: An id is not 1 to 64 printable ASCII characters.
            InvalidValueError: A value cannot be stored, or a campaign or creative is none of the setup's.
        """
        check_decision_ids(logged.decision_id for logged in decisions)
        rows = {logged.decision_id: (logged, _new(logged, target)) for logged in decisions}
        for _, new in rows.values():
            check_decision(new)

        def work(connection: Connection) -> int:
            here = connection.execute(THERE, {"ids": list(rows)}).all()
            for name, campaign_id, creative_id in here:
                _, new = rows[name]
                if (campaign_id, creative_id) != (new.campaign_id, new.creative_id):
                    raise DecisionConflictError(
                        f"decision {name!r} is here with another campaign or creative; nothing of this part "
                        "was imported. Import into another database"
                    )
            ordered = [rows[name] for name in sorted(rows.keys() - {row.decision_id for row in here})]
            _write(connection, target, ordered)
            return len(ordered)

        return self._database.write(work)


def _model(connection: Connection, setup: Setup) -> int:
    """Give the model here the encoder and components of the other one, if it has none."""
    query = select(Model.__table__).where(Model.name == setup.model.name).with_for_update()
    here, theirs = connection.execute(query).mappings().one(), setup.model
    if here["components"] is None:
        settings = {**here["settings"], **theirs.settings}
        statement = update(Model).where(Model.model_id == here["model_id"])
        connection.execute(
            statement.values(
                encoder_fingerprint=theirs.encoder_fingerprint,
                components=theirs.components,
                settings=settings,
            )
        )
    elif theirs.components is not None and (here["encoder_fingerprint"], here["components"]) != (
        theirs.encoder_fingerprint,
        theirs.components,
    ):
        raise SetupConflictError(
            f"the decisions were made with the encoder {theirs.encoder_fingerprint}, this database has "
            f"{here['encoder_fingerprint']} or other components; import into a new database"
        )
    return int(here["model_id"])


def _context(connection: Connection, model_id: int, setup: Setup) -> int | None:
    """Take the other schema over where there is none; return the version to count by, None for their own."""
    known = context_schema.read(connection, model_id)
    theirs = setup.context
    if known.slots == theirs.slots:
        context_schema.add_fields(connection, model_id, theirs.fields, max_slots=0)
        return None
    if known.fields:
        return context_schema.add_fields(connection, model_id, theirs.fields, max_slots=0).version
    fields = [{"model_id": model_id, "field": name, "kind": kind} for name, kind in theirs.fields.items()]
    connection.execute(insert(ContextField), fields)
    slots = [{"model_id": model_id, **vars(slot)} for slot in theirs.slots]
    if slots:
        connection.execute(insert(ContextSlot), slots)
    return None


def _creatives(
    connection: Connection, campaigns: Mapping[str, CampaignRecord], setup: Setup
) -> dict[tuple[str, str], int]:
    theirs = {campaign.campaign_id: campaign.name for campaign in setup.campaigns}
    found: dict[tuple[str, str], int] = {}
    others = []
    for name, campaign in campaigns.items():
        known = {c.external_id: c for c in creatives.of_campaign(connection, campaign.campaign_id)}
        wanted = [creative for creative in setup.creatives if theirs[creative.campaign_id] == name]
        new = [creative for creative in wanted if creative.external_id not in known]
        others += [
            f"{creative.external_id!r} of {name!r}"
            for creative in wanted
            if creative.external_id in known and known[creative.external_id].content != creative.content
        ]
        added = creatives.add(
            connection,
            campaign.campaign_id,
            [
                NewCreative(
                    external_id=creative.external_id,
                    content=creative.content,
                    content_hash=creative.content_hash,
                    picture=creative.picture,
                    floor=creative.floor,
                    cap=creative.cap,
                    status=creative.status,
                )
                for creative in new
            ],
            campaign.created_at,
        )
        found |= {(name, c.external_id): c.creative_id for c in (*known.values(), *added)}
    if others:
        raise SetupConflictError(
            f"creatives are here with other texts: {', '.join(others)}; nothing was imported. Import into a "
            "new database"
        )
    return found


def _new(logged: LoggedDecision, target: Target) -> NewDecision:
    """Return a decision with our ids."""
    campaign = target.campaigns.get(logged.campaign)
    named = (logged.creative, *logged.candidates)
    ids = [target.creative_ids.get((logged.campaign, name)) for name in named]
    if campaign is None or None in ids:
        raise InvalidValueError(
            f"decision {logged.decision_id!r}: its campaign {logged.campaign!r} or one of its creatives is "
            "none of the setup's"
        )
    known = [creative_id for creative_id in ids if creative_id is not None]
    return NewDecision(
        decision_id=logged.decision_id,
        campaign_id=campaign.campaign_id,
        creative_id=known[0],
        candidate_creative_ids=tuple(known[1:]),
        propensities=logged.propensities,
        propensity=logged.propensity,
        context=logged.context,
        model_version=logged.model_version,
        slots_version=logged.slots_version if target.slots_version is None else target.slots_version,
        horizon=logged.horizon,
        kappa=logged.kappa,
        point_set=logged.point_set,
        decided_at=logged.decided_at,
        activated_at=logged.activated_at,
        place=logged.place,
        request_id=logged.request_id,
        list_propensity=logged.list_propensity,
        is_control=logged.is_control,
    )


def _write(
    connection: Connection, target: Target, rows: Sequence[tuple[LoggedDecision, NewDecision]]
) -> None:
    if not rows:
        return
    new = [decision for _, decision in rows]
    contexts = [
        canonical_json(dict(decision.context), what=f"decision {decision.decision_id!r}: its context")
        for decision in new
    ]
    windows = {c.campaign_id: c.attribution_window_s for c in target.campaigns.values()}
    columns = columns_of(connection, new, contexts, windows)
    for name in ("closed_at", "settled_at", "click"):
        columns[name] = [getattr(logged, name) for logged, _ in rows]
    insert_columns(connection, Decision, columns)
    _write_outcomes(connection, rows)


def _write_outcomes(connection: Connection, rows: Sequence[tuple[LoggedDecision, NewDecision]]) -> None:
    reports = [(logged.decision_id, outcome) for logged, _ in rows for outcome in logged.outcomes]
    for name, outcome in reports:
        check_text(outcome.key, f"outcome of decision {name!r}: key", is_empty_allowed=True)
    originals = [(name, outcome, None) for name, outcome in reports if outcome.corrects is None]
    _insert(connection, originals)
    if len(originals) < len(reports):
        ids = [logged.decision_id for logged, _ in rows]
        stored = {
            (r.decision_id, r.kind, r.key): r.outcome_id
            for r in connection.execute(OUTCOME_IDS, {"ids": ids})
        }
        _insert(
            connection,
            [
                (logged.decision_id, outcome, stored[logged.decision_id, theirs.kind, theirs.key])
                for logged, _ in rows
                for outcome in logged.outcomes
                if outcome.corrects is not None
                for theirs in [logged.outcomes[outcome.corrects]]
            ],
        )
    bought = [
        (decision.creative_id, outcome.value)
        for logged, decision in rows
        for outcome in logged.outcomes
        if outcome.kind == "conversion" and outcome.valid and not outcome.late
    ]
    count_conversions(connection, bought)


def _insert(connection: Connection, reports: Iterable[tuple[str, LoggedOutcome, int | None]]) -> None:
    rows = [
        {**outcome._asdict(), "decision_id": name, "corrects": corrects}
        for name, outcome, corrects in reports
    ]
    if rows:
        insert_columns(connection, Outcome, {name: [row[name] for row in rows] for name in rows[0]})
