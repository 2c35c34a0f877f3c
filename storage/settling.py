"""How a decision's click becomes final: one statement, used wherever decisions settle."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, func, not_, select, update

from storage.schema import Decision, Outcome
from storage.session import in_chunks


def settle(
    connection: Connection, decision_ids: Sequence[str], now: datetime, *, is_silence_final: bool
) -> int:
    """Settle decisions whose rows are locked: the click is the maximum of the valid reports in time.

    The rows must have been locked by an earlier statement, so that this one sees every report that was
    committed before: on PostgreSQL each statement takes a new view of the data.

    Args:
        connection: Inside a write transaction.
        decision_ids: Activated decisions, not settled yet.
        now: When.
        is_silence_final: Whether a decision without a report settles as no click, or waits on.

    Returns:
        How many were settled.
    """
    reported = (
        select(func.max(Outcome.value))
        .where(
            Outcome.decision_id == Decision.decision_id,
            Outcome.kind == "click",
            Outcome.valid,
            not_(Outcome.late),
        )
        .scalar_subquery()
    )
    click = func.coalesce(reported, 0) if is_silence_final else reported
    settled = 0
    for chunk in in_chunks(decision_ids):
        statement = update(Decision).where(Decision.decision_id.in_(chunk), Decision.settled_at.is_(None))
        if not is_silence_final:
            statement = statement.where(reported.is_not(None))
        settled += connection.execute(statement.values(settled_at=now, click=click)).rowcount
    return settled
