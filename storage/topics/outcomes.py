"""Outcomes: what is reported about decisions, and when a decision's click becomes final.

A report is one row, unique by (decision, kind, key); sent again it changes nothing. A click and the lack of
one are reports of their own: what says "no click" is stored under the key "no-click", so that a click that is
reported after it under the same key is a new row, and counts. A decision's click is the maximum of its rows
that are valid. Reports that are taken back: corrections.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple, final

from sqlalchemy import Connection, bindparam, select, update

from storage.database.dialect import insert_columns, is_among
from storage.database.group_commit import GroupCommit
from storage.database.session import Database, allow_idling, prefer_indexes
from storage.records import NewOutcome, OutcomeRecord, OutcomeStatus
from storage.schema.tables import ArmStatistics, Campaign, Decision, Outcome
from storage.topics import corrections
from storage.topics.decisions import Decisions, refuse_unknown
from storage.topics.settlement import settle
from storage.validation import NO_CLICK_KEY, check_decision_ids, check_outcome

# Statements are built once: building one takes longer than SQLite takes to run it.
LOCKED: Final = (
    select(
        Decision.decision_id,
        Decision.creative_id,
        Decision.activated_at,
        Decision.settles_at,
        Decision.closed_at,
        Decision.settled_at,
        Campaign.attribution_window_s,
        Campaign.conversion_window_s,
    )
    .join(Campaign, Campaign.campaign_id == Decision.campaign_id)
    .where(is_among(Decision.decision_id, "ids"))
    .order_by(Decision.decision_id)
    .with_for_update(of=Decision)
)
REPORTS: Final = select(Outcome.decision_id, Outcome.kind, Outcome.key).where(
    is_among(Outcome.decision_id, "ids")
)
DUE: Final = (
    select(Decision.decision_id)
    .where(
        Decision.settles_at.is_not(None),
        Decision.settled_at.is_(None),
        Decision.settles_at <= bindparam("now"),
    )
    .order_by(Decision.settles_at)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
)
CLOSE: Final = (
    update(Decision).where(Decision.decision_id == bindparam("id")).values(closed_at=bindparam("now"))
)
COUNT_CONVERSIONS: Final = (
    update(ArmStatistics)
    .where(ArmStatistics.creative_id == bindparam("arm"))
    .values(
        conversions=ArmStatistics.conversions + bindparam("count"),
        value=ArmStatistics.value + bindparam("amount"),
    )
)


@final
class Outcomes:
    """The topic `store.outcomes`: one public method is one transaction."""

    def __init__(self, database: Database, decisions: Decisions) -> None:
        self._database = database
        self._decisions = decisions
        self._recording: GroupCommit[_Reports, list[OutcomeRecord]] = GroupCommit(
            self._record, size=lambda call: len(call.outcomes)
        )

    def record(self, outcomes: Sequence[NewOutcome], *, received_at: datetime) -> list[OutcomeRecord]:
        """Store reports, all or none.

        With attribution window 0 a click or non-click settles its decision at once. Otherwise it waits for
        the end of the window. A click counts when it occurred inside the window and the decision was neither
        settled nor closed; a conversion when it occurred inside the conversion window. Others are kept as
        late rows. What is not valid takes back an earlier report, of the same list too.

        Args:
            outcomes: In the order in which they were reported.
            received_at: When they came.

        Returns:
            What became of each, in the same order.

        Raises:
            UnknownDecisionError: Names every unknown id; nothing was written.
            UnknownOutcomeError: Names what is to be taken back and was never reported; nothing was written.
            InvalidIdError: An id is not 1 to 64 printable ASCII characters.
            InvalidValueError: A kind, value or key is wrong.
        """
        check_decision_ids(new.decision_id for new in outcomes)
        for new in outcomes:
            check_outcome(new)
        self._decisions.backlog.wait_for(new.decision_id for new in outcomes)
        return self._recording.run(_Reports(outcomes, received_at)) if outcomes else []

    def settle_due(self, *, now: datetime, limit: int = 10_000) -> int:
        """Settle the decisions whose attribution window is over, the oldest first.

        Args:
            now: The time; windows that end at it or before are over.
            limit: How many at most.

        Returns:
            How many were settled; fewer than `limit` means that none is left, unless another process
            is settling them.
        """

        def work(connection: Connection) -> int:
            prefer_indexes(connection)
            due = list(connection.execute(DUE, {"now": now, "limit": limit}).scalars())
            return settle(connection, due, now, is_silence_final=True)

        return self._database.write(work)

    def _record(self, calls: Sequence["_Reports"]) -> list[list[OutcomeRecord]]:
        """Store the reports of several calls in one transaction, in the order in which they came."""
        names = [new.decision_id for call in calls for new in call.outcomes]
        ids = sorted(set(names))

        def work(connection: Connection) -> list[list[OutcomeRecord]]:
            allow_idling(connection, rows=len(names))
            cases = _lock(connection, ids)
            refuse_unknown(names, cases.keys())
            rows: list[_Row] = []
            answers = iter(
                [
                    _judge(cases[new.decision_id], new, call.received_at, rows)
                    for call in calls
                    for new in call.outcomes
                    if new.valid
                ]
            )
            # What settles or closes now does so at the time of the group's latest report.
            now = max(call.received_at for call in calls)
            _write(connection, cases, rows, now)
            taken_back = [new for call in calls for new in call.outcomes if not new.valid]
            corrected = iter(corrections.correct(connection, taken_back, now))
            return [[next(answers if new.valid else corrected) for new in call.outcomes] for call in calls]

        return self._database.write(work)


class _Reports(NamedTuple):
    """The reports of one call, and when they came."""

    outcomes: Sequence[NewOutcome]
    received_at: datetime


class _Row(NamedTuple):
    """A row of outcomes, in the words of the table."""

    decision_id: str
    kind: str
    key: str
    value: float
    occurred_at: datetime | None
    received_at: datetime
    late: bool
    valid: bool = True


@dataclass(slots=True)
class _Case:
    """One decision, as `LOCKED` gives it, while its reports are judged in memory under its lock."""

    decision_id: str
    creative_id: int
    activated_at: datetime | None
    settles_at: datetime | None
    closed_at: datetime | None
    settled_at: datetime | None
    attribution_window_s: float
    conversion_window_s: float
    keys: set[tuple[str, str]] = field(default_factory=set)
    closes: bool = False
    settles: bool = False

    @property
    def is_over(self) -> bool:
        """Whether no further click counts."""
        return self.settles or self.closes or self.settled_at is not None or self.closed_at is not None


def _lock(connection: Connection, ids: Sequence[str]) -> dict[str, _Case]:
    """Lock the decisions, in one order everywhere, and read what the judgement needs."""
    cases = {row[0]: _Case(*row) for row in connection.execute(LOCKED, {"ids": ids}).all()}
    for decision_id, kind, key in connection.execute(REPORTS, {"ids": ids}).all():
        cases[decision_id].keys.add((kind, key))
    return cases


def _judge(case: _Case, new: NewOutcome, received_at: datetime, rows: list[_Row]) -> OutcomeRecord:
    """Decide what a report becomes, change the case by it, and add its row."""
    key = _stored_key(new)
    is_new = (new.kind, key) not in case.keys
    is_late = _is_late(case, new, received_at)
    settles_now = False
    if is_new:
        case.keys.add((new.kind, key))
        value = float(new.value)
        rows.append(_Row(new.decision_id, new.kind, key, value, new.occurred_at, received_at, is_late))
        is_at_once = case.attribution_window_s == 0 and case.activated_at is not None
        settles_now = new.kind == "click" and is_at_once and not is_late
        case.settles |= settles_now
    if new.final and case.closed_at is None:
        case.closes = True
    status: OutcomeStatus = "repeated" if not is_new else "late" if is_late else "recorded"
    return OutcomeRecord(decision_id=new.decision_id, status=status, has_settled=settles_now)


def _is_late(case: _Case, new: NewOutcome, received_at: datetime) -> bool:
    occurred_at = received_at if new.occurred_at is None else new.occurred_at
    if new.kind == "click":
        return case.is_over or (case.settles_at is not None and occurred_at > case.settles_at)
    if case.activated_at is None:
        return False
    return occurred_at > case.activated_at + timedelta(seconds=case.conversion_window_s)


def _stored_key(new: NewOutcome) -> str:
    if new.kind == "click" and not new.value:
        return f"{NO_CLICK_KEY}:{new.key}" if new.key else NO_CLICK_KEY
    return new.key


def _write(
    connection: Connection, cases: dict[str, _Case], rows: Sequence[_Row], received_at: datetime
) -> None:
    if rows:
        insert_columns(connection, Outcome, dict(zip(_Row._fields, zip(*rows, strict=True), strict=True)))
    closing = [{"id": case.decision_id, "now": received_at} for case in cases.values() if case.closes]
    if closing:
        connection.execute(CLOSE, closing)
    settling = [case.decision_id for case in cases.values() if case.settles]
    settle(connection, settling, received_at, is_silence_final=False)
    bought = [row for row in rows if row.kind == "conversion" and not row.late]
    count_conversions(connection, [(cases[row.decision_id].creative_id, row.value) for row in bought])


def count_conversions(connection: Connection, bought: Iterable[tuple[int, float]]) -> None:
    """Add conversions to the arms' counters, in the order of their ids: two who do it cannot lock each other.

    Args:
        connection: Inside a write transaction.
        bought: The arm and the value of each.
    """
    totals: dict[int, tuple[int, float]] = {}
    for arm, value in bought:
        count, total = totals.get(arm, (0, 0.0))
        totals[arm] = (count + 1, total + value)
    if totals:
        connection.execute(
            COUNT_CONVERSIONS,
            [{"arm": arm, "count": count, "amount": total} for arm, (count, total) in sorted(totals.items())],
        )
