"""How a decision's click becomes final: one statement, used wherever decisions settle."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, func, not_, select, update

from storage.database.dialect import is_among
from storage.schema.tables import Decision, Outcome

REPORTED: Final = (
    select(func.max(Outcome.value))
    .where(
        Outcome.decision_id == Decision.decision_id,
        Outcome.kind == "click",
        Outcome.valid,
        not_(Outcome.late),
    )
    .scalar_subquery()
)
UNSETTLED: Final = update(Decision).where(
    is_among(Decision.decision_id, "ids"), Decision.settled_at.is_(None)
)
SETTLE_ALL: Final = UNSETTLED.values(settled_at=bindparam("now"), click=func.coalesce(REPORTED, 0))
SETTLE_REPORTED: Final = UNSETTLED.where(REPORTED.is_not(None)).values(
    settled_at=bindparam("now"), click=REPORTED
)


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
    statement = SETTLE_ALL if is_silence_final else SETTLE_REPORTED
    return connection.execute(statement, {"ids": decision_ids, "now": now}).rowcount if decision_ids else 0
