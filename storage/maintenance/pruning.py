"""Pruning: old decisions become counts, so that a database does not grow for ever and forgets visitors.

Only what a refit has seen goes: a replay of the log begins at the newest refit, which needs no more than
counts, and the steps after it need their decisions. Each call is one transaction that looks at a bounded
number of decisions, so a killed run leaves nothing half done and the next one goes on.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple, final

from sqlalchemy import Connection, Text, and_, bindparam, delete, exists, func, or_, select, type_coerce

from storage.database.dialect import insert_into, is_among
from storage.database.session import Database
from storage.maintenance import redaction as redacting
from storage.maintenance.redaction import Redacted
from storage.schema.columns import context_hash
from storage.schema.tables import Campaign, Decision, LearnStep, Outcome, PrunedCount

CHUNK: Final = (
    2_000  # decisions a transaction; it holds SQLite's only write lock for some hundredths of a second
)
OLD: Final = (
    select(Decision.decision_id, Decision.activated_at)
    .where(
        Decision.campaign_id == bindparam("campaign_id"),
        Decision.activated_at < bindparam("before"),
        Decision.activated_at >= bindparam("since"),
        or_(Decision.activated_at > bindparam("since"), Decision.decision_id > bindparam("after_id")),
    )
    .order_by(Decision.activated_at, Decision.decision_id)
    .limit(bindparam("limit"))
)
# Reports lock decisions in the order of their ids, and so do we.
LOCKED: Final = (
    select(
        Decision.decision_id,
        Decision.creative_id,
        Decision.activated_at,
        Decision.slots_version,
        Decision.is_control,
        type_coerce(Decision.context, Text).label("context"),
        Decision.click,
        Decision.learnt_batch,
    )
    .where(
        is_among(Decision.decision_id, "ids"),
        Decision.learnt_batch <= bindparam("refit"),
        or_(Decision.corrected_at.is_(None), Decision.corrected_step <= bindparam("refit")),
    )
    .order_by(Decision.decision_id)
    .with_for_update(of=Decision)
)
CONVERSIONS: Final = (
    select(Outcome.decision_id, func.count(), func.sum(Outcome.value))
    .where(
        is_among(Outcome.decision_id, "ids"),
        Outcome.kind == "conversion",
        Outcome.valid,
        ~Outcome.late,
    )
    .group_by(Outcome.decision_id)
)
DELETE_OUTCOMES: Final = delete(Outcome).where(is_among(Outcome.decision_id, "ids"))
DELETE_DECISIONS: Final = delete(Decision).where(is_among(Decision.decision_id, "ids"))
EARLIEST: Final = datetime(1, 1, 1, tzinfo=UTC)


class Cursor(NamedTuple):
    """How far a run has come in a campaign: the last decision that it looked at."""

    activated_at: datetime
    decision_id: str


START: Final = Cursor(EARLIEST, "")


class Pruned(NamedTuple):
    """What one call did.

    Attributes:
        pruned: Decisions that are counts now.
        kept: Decisions that are as old and stay: not learnt, or not seen by a refit.
        cursor: Where to go on; None when nothing as old is left.
    """

    pruned: int
    kept: int
    cursor: Cursor | None


class _Key(NamedTuple):
    """What decisions share that become one row, in the words of the table."""

    creative_id: int
    day: date
    slots_version: int
    forgotten_step: int
    is_control: bool
    context: str


@final
class Pruning:
    """The topic `store.pruning`: one public method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def needs_refit(self, campaign_id: int, *, before: datetime) -> bool:
        """Return whether a refit would let more decisions be pruned.

        Args:
            campaign_id: The campaign.
            before: Decisions shown before it are old.
        """

        def work(connection: Connection) -> bool:
            refit = _newest_refit(connection, campaign_id)
            is_unseen = or_(
                Decision.learnt_batch > refit,
                and_(
                    Decision.corrected_at.is_not(None),
                    func.coalesce(Decision.corrected_step, refit + 1) > refit,
                ),
            )
            old = and_(Decision.campaign_id == campaign_id, Decision.activated_at < before)
            query = select(exists().where(old, Decision.learnt_batch.is_not(None), is_unseen))
            return bool(connection.execute(query).scalar())

        return self._database.read(work)

    def prune(
        self, campaign_id: int, *, before: datetime, after: Cursor = START, limit: int = CHUNK
    ) -> Pruned:
        """Turn old decisions of a campaign into counts and delete them with their outcomes.

        Counts by creative, day, context and version of its slots are kept: statistics, reports by day and
        refits stay as they were. Decisions that are not learnt, or that no refit has seen, stay.

        Args:
            campaign_id: The campaign.
            before: Decisions shown before it are old; at least the conversion window ago, or conversions
                that are still to come would find no decision.
            after: Where an earlier call ended.
            limit: How many decisions are looked at.

        Returns:
            What was done, and where to go on.
        """
        bounds = {
            "campaign_id": campaign_id,
            "before": before,
            "since": after.activated_at,
            "after_id": after.decision_id,
            "limit": limit,
        }

        def work(connection: Connection) -> Pruned:
            _overwrite_what_goes(connection)
            old = connection.execute(OLD, bounds).all()
            if not old:
                return Pruned(0, 0, None)
            pruned = _prune(connection, campaign_id, [row.decision_id for row in old])
            cursor = Cursor(old[-1].activated_at, old[-1].decision_id) if len(old) == limit else None
            return Pruned(pruned, len(old) - pruned, cursor)

        return self._database.write(work)

    def remove_field(self, model_id: int, field: str, *, after: str = "", limit: int = CHUNK) -> Redacted:
        """Take one context field out of the contexts of some decisions; see redacting.py.

        Args:
            model_id: The model.
            field: The field.
            after: Where an earlier call ended.
            limit: How many decisions are looked at.

        Returns:
            How many contexts had it, and where to go on. When nothing is left, counts by context and the
            levels of the field have been cleared too.
        """

        def work(connection: Connection) -> Redacted:
            _overwrite_what_goes(connection)
            redacted = redacting.redact_decisions(connection, model_id, field, after, limit)
            if redacted.cursor is None:
                redacting.redact_counts(connection, model_id, field)
            return redacted

        return self._database.write(work)

    def finish(self) -> None:
        """Bring what was overwritten from SQLite's log into its file, as far as no reader needs the old."""
        self._database.checkpoint()


def _overwrite_what_goes(connection: Connection) -> None:
    """Let SQLite write zeros over what it deletes, which else stays in the file until it is used again."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")


def _prune(connection: Connection, campaign_id: int, candidates: Sequence[str]) -> int:
    refit = _newest_refit(connection, campaign_id)
    rows = connection.execute(LOCKED, {"ids": candidates, "refit": refit}).all()
    if not rows:
        return 0
    ids = [row.decision_id for row in rows]
    forgets = _forgets(connection, campaign_id)
    conversions = {name: (n, value) for name, n, value in connection.execute(CONVERSIONS, {"ids": ids})}
    totals: defaultdict[_Key, list[Any]] = defaultdict(lambda: [0, 0, 0, 0.0])
    for row in rows:
        position = bisect_left(forgets, row.learnt_batch)
        forgotten_step = forgets[position - 1] if position else 0
        day = row.activated_at.astimezone(UTC).date()
        key = _Key(row.creative_id, day, row.slots_version, forgotten_step, bool(row.is_control), row.context)
        n_conversions, value = conversions.get(row.decision_id, (0, 0.0))
        total = totals[key]
        for column, more in enumerate((1, row.click, n_conversions, value)):
            total[column] += more
    _add(connection, totals)
    connection.execute(DELETE_OUTCOMES, {"ids": ids})
    connection.execute(DELETE_DECISIONS, {"ids": ids})
    return len(ids)


def _add(connection: Connection, totals: dict[_Key, list[Any]]) -> None:
    names = ("impressions", "clicks", "conversions", "value")
    statement = insert_into(connection, PrunedCount)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[column.name for column in PrunedCount.__table__.primary_key],
            set_={name: getattr(PrunedCount, name) + statement.excluded[name] for name in names},
        ),
        [
            {
                **key._asdict(),
                "context_hash": context_hash(key.context),
                **dict(zip(names, total, strict=True)),
            }
            for key, total in sorted(totals.items())
        ],
    )


def _newest_refit(connection: Connection, campaign_id: int) -> int:
    """Return the newest refit of the campaign's model; 0 without one, as no decision is of that step."""
    query = (
        select(func.max(LearnStep.step))
        .join(Campaign, Campaign.model_id == LearnStep.model_id)
        .where(Campaign.campaign_id == campaign_id, LearnStep.kind == "refit")
    )
    return connection.execute(query).scalar() or 0


def _forgets(connection: Connection, campaign_id: int) -> list[int]:
    """Return the steps of the campaign's model that forgot something, in order."""
    query = (
        select(LearnStep.step)
        .join(Campaign, Campaign.model_id == LearnStep.model_id)
        .where(Campaign.campaign_id == campaign_id, LearnStep.kind == "forget")
        .order_by(LearnStep.step)
    )
    return list(connection.execute(query).scalars())
