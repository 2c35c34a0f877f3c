"""Corrections: a click or conversion that was reported and is later found invalid.

A correction is a row of its own that names the row it corrects; that one is no longer valid. What counts
changes at once. What was learnt stays as it was in the log: a decision that settled with the click keeps a
note of it (`corrected_at`), so that replaying the step that learnt it still meets a click. A learning step
takes note of corrections (`corrected_step`), and refits after that step count them.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, case, exists, func, select, update

from storage.database.dialect import insert_columns, is_among
from storage.errors import UnknownOutcomeError
from storage.records import NewOutcome, OutcomeRecord
from storage.schema.tables import ArmStatistics, Campaign, Decision, Outcome
from storage.topics.settlement import REPORTED
from storage.validation import CORRECTION_KEY

# What a decision's click was when it settled, which is what its step learns.
SETTLED_CLICK: Final = case((Decision.corrected_at.is_not(None), 1), else_=Decision.click)

REPORTS: Final = (
    select(
        Outcome.outcome_id,
        Outcome.decision_id,
        Outcome.kind,
        Outcome.key,
        Outcome.value,
        Outcome.late,
        Outcome.valid,
        Decision.creative_id,
    )
    .join(Decision, Decision.decision_id == Outcome.decision_id)
    .where(is_among(Outcome.decision_id, "ids"))
)
INVALIDATE: Final = update(Outcome).where(Outcome.outcome_id == bindparam("id")).values(valid=False)
# Of decisions that settled with a click of which no valid report is left.
LOST_CLICKS: Final = (
    select(Decision.decision_id, Decision.creative_id, Decision.learnt_batch)
    .where(is_among(Decision.decision_id, "ids"), Decision.click == 1, func.coalesce(REPORTED, 0) == 0)
    .order_by(Decision.decision_id)
)
UNCLICK: Final = (
    update(Decision)
    .where(is_among(Decision.decision_id, "ids"))
    .values(click=0, corrected_at=bindparam("now"))
)
COUNT_BACK: Final = (
    update(ArmStatistics)
    .where(ArmStatistics.creative_id == bindparam("arm"))
    .values(
        clicks=ArmStatistics.clicks - bindparam("n_clicks"),
        conversions=ArmStatistics.conversions - bindparam("n_conversions"),
        value=ArmStatistics.value - bindparam("amount"),
    )
)
OF_MODEL: Final = exists().where(
    Campaign.campaign_id == Decision.campaign_id, Campaign.model_id == bindparam("model")
)
# The order keeps the index of corrections in the lead: others have the learnt decisions, which are all.
UNNOTED: Final = (
    select(Decision.decision_id)
    .where(
        Decision.corrected_at.is_not(None),
        Decision.corrected_step.is_(None),
        Decision.learnt_batch.is_not(None),
        OF_MODEL,
    )
    .order_by(Decision.corrected_at)
)
ANY_UNNOTED: Final = UNNOTED.limit(1)
# Reports lock decisions in the order of their ids, and so do we.
LOCKED: Final = (
    select(Decision.decision_id)
    .where(is_among(Decision.decision_id, "ids"))
    .order_by(Decision.decision_id)
    .with_for_update(of=Decision)
)
NOTE: Final = (
    update(Decision).where(is_among(Decision.decision_id, "ids")).values(corrected_step=bindparam("step"))
)


class _Report(NamedTuple):
    """A stored report that may be corrected."""

    outcome_id: int
    decision_id: str
    kind: str
    key: str
    value: float
    late: bool
    valid: bool
    creative_id: int


class _Row(NamedTuple):
    """A correction, in the words of the table of outcomes."""

    decision_id: str
    kind: str
    key: str
    value: float
    occurred_at: datetime | None
    received_at: datetime
    late: bool
    valid: bool
    corrects: int


def correct(
    connection: Connection, corrections: Sequence[NewOutcome], received_at: datetime
) -> list[OutcomeRecord]:
    """Take back reports of decisions whose rows are locked.

    Args:
        connection: Inside a write transaction.
        corrections: The reports again, as they came.
        received_at: When they were found invalid.

    Returns:
        What became of each, in the order given: recorded, or repeated when it was taken back before.

    Raises:
        UnknownOutcomeError: Names every one that was never reported; nothing was written.
    """
    if not corrections:
        return []
    ids = sorted({new.decision_id for new in corrections})
    stored = [_Report(*row) for row in connection.execute(REPORTS, {"ids": ids})]
    reports = {(report.decision_id, report.kind, report.key): report for report in stored}
    wanted = [(new.decision_id, new.kind, new.key) for new in corrections]
    _refuse_unreported([key for key in wanted if key not in reports])
    taken: dict[tuple[str, str, str], _Row] = {}
    answers = []
    for key, new in zip(wanted, corrections, strict=True):
        report = reports[key]
        is_new = report.valid and key not in taken
        if is_new:
            taken[key] = _Row(
                decision_id=report.decision_id,
                kind=report.kind,
                key=f"{CORRECTION_KEY}{report.key}",
                value=report.value,
                occurred_at=new.occurred_at,
                received_at=received_at,
                late=False,
                valid=False,
                corrects=report.outcome_id,
            )
        answers.append(
            OutcomeRecord(
                decision_id=new.decision_id,
                status="recorded" if is_new else "repeated",
                has_settled=False,
            )
        )
    if taken:
        rows = list(taken.values())
        insert_columns(connection, Outcome, dict(zip(_Row._fields, zip(*rows, strict=True), strict=True)))
        connection.execute(INVALIDATE, [{"id": row.corrects} for row in rows])
        _count_back(connection, [reports[key] for key in taken], received_at)
    return answers


def has_unnoted(connection: Connection, model_id: int) -> bool:
    """Return whether something that was learnt was corrected and no step has taken note of it."""
    return connection.execute(ANY_UNNOTED, {"model": model_id}).first() is not None


def note(connection: Connection, model_id: int, step: int) -> None:
    """Write a step into the corrections that no step has taken note of; refits after it count them."""
    ids = list(connection.execute(UNNOTED, {"model": model_id}).scalars())
    if ids:
        connection.execute(LOCKED, {"ids": ids})
        connection.execute(NOTE, {"ids": ids, "step": step})


def _count_back(connection: Connection, reports: Sequence[_Report], now: datetime) -> None:
    """Take reports that are no longer valid from clicks and counters, in the order of the arms' ids."""
    totals: dict[int, tuple[int, int, float]] = {}

    def add(arm: int, clicks: int, conversions: int, value: float) -> None:
        before = totals.get(arm, (0, 0, 0.0))
        totals[arm] = (before[0] + clicks, before[1] + conversions, before[2] + value)

    for report in reports:
        if report.kind == "conversion" and not report.late:
            add(report.creative_id, 0, 1, report.value)
    clicked = sorted({report.decision_id for report in reports if report.kind == "click"})
    lost = connection.execute(LOST_CLICKS, {"ids": clicked}).all()
    if lost:
        connection.execute(UNCLICK, {"ids": [row.decision_id for row in lost], "now": now})
    for row in lost:
        if row.learnt_batch is not None:
            add(row.creative_id, 1, 0, 0.0)
    if totals:
        connection.execute(
            COUNT_BACK,
            [
                {"arm": arm, "n_clicks": clicks, "n_conversions": conversions, "amount": value}
                for arm, (clicks, conversions, value) in sorted(totals.items())
            ],
        )


def _refuse_unreported(missing: Sequence[tuple[str, str, str]]) -> None:
    if missing:
        listed = ", ".join(
            f"the {kind}{f' {key!r}' if key else ''} of decision {decision_id!r}"
            for decision_id, kind, key in dict.fromkeys(missing)
        )
        raise UnknownOutcomeError(
            f"{listed} was never reported, so it cannot be invalid; nothing was written. "
            "Send decision, kind and key as they were reported"
        )
