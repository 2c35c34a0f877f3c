"""Learning steps: each is written in one transaction, whole or not at all."""

from collections import Counter
from datetime import datetime
from typing import Final

import numpy as np
from sqlalchemy import Connection, bindparam, delete, exists, func, insert, select, update

from storage.database.dialect import fetch_raw, insert_into, is_among
from storage.database.session import prefer_indexes
from storage.errors import StepConflictError
from storage.learning_records import ArmStates, StepRecord
from storage.schema.tables import (
    ArmState,
    ArmStatistics,
    Campaign,
    Decision,
    LearnStep,
    ModelLog,
    Posterior,
)
from storage.topics import context_schema, corrections, leases, models
from storage.topics import notifications as notices

KEPT_SNAPSHOTS: Final = 2
# Statements are built once: building one takes longer than SQLite takes to run it.
LATEST: Final = select(func.max(LearnStep.step)).where(LearnStep.model_id == bindparam("model_id"))
LOG: Final = insert(LearnStep)
LOG_INFO: Final = insert(ModelLog)
# Reports lock decisions in the order of their ids, and so do we.
LEARNABLE: Final = (
    select(Decision.decision_id, Decision.creative_id, Decision.click)
    .where(
        is_among(Decision.decision_id, "ids"),
        Decision.settled_at.is_not(None),
        Decision.learnt_batch.is_(None),
        exists().where(
            Campaign.campaign_id == Decision.campaign_id, Campaign.model_id == bindparam("model_id")
        ),
    )
    .order_by(Decision.decision_id)
    .with_for_update(of=Decision)
)
MARK_LEARNT: Final = (
    update(Decision).where(is_among(Decision.decision_id, "ids")).values(learnt_batch=bindparam("step"))
)
COUNT_CLICKS: Final = (
    update(ArmStatistics)
    .where(ArmStatistics.creative_id == bindparam("arm"))
    .values(
        impressions=ArmStatistics.impressions + bindparam("new_impressions"),
        clicks=ArmStatistics.clicks + bindparam("new_clicks"),
    )
)


def write(connection: Connection, step: StepRecord) -> None:
    """Write a step; the transaction is the caller's.

    Raises:
        LeaseLostError: Another learner holds the lease.
        StepConflictError: The step does not follow the newest one, a decision is not there to be learnt, or
            a creative came whose new features were not computed.
    """
    leases.hold(connection, step.model_id, step.lease)
    newest = latest(connection, step.model_id)
    if step.step != newest + 1:
        raise StepConflictError(
            f"model {step.model_id}: expected step {newest + 1}, got {step.step}; "
            "read the log again and resume from it"
        )
    connection.execute(
        LOG,
        {
            "model_id": step.model_id,
            "step": step.step,
            "kind": step.kind,
            "parameters": dict(step.parameters),
            "n_rows": len(step.decision_ids),
            "logged_at": step.logged_at,
        },
    )
    connection.execute(LOG_INFO, {"model_id": step.model_id, "step": step.step, "info": dict(step.info)})
    _mark_learnt(connection, step)
    if step.kind == "correction":
        corrections.note(connection, step.model_id, step.step)
    context_schema.add_counts(connection, step.model_id, step.context_counts)
    if step.features is not None:
        models.change_features(connection, step.model_id, step.features)
        # Snapshots of the features before could be read by nobody.
        connection.execute(delete(Posterior).where(Posterior.model_id == step.model_id))
    if step.arm_states is not None:
        write_arm_states(connection, step.model_id, step.step, step.arm_states)
    if step.snapshot is not None:
        write_snapshot(connection, step.model_id, step.step, step.snapshot, step.logged_at)
    notices.tell(connection, step.model_id)


def latest(connection: Connection, model_id: int) -> int:
    """Return the newest step of the log; 0 when nothing was learnt."""
    return connection.execute(LATEST, {"model_id": model_id}).scalar() or 0


def _mark_learnt(connection: Connection, step: StepRecord) -> None:
    """Write the step into its decisions, and add them to the counters of their arms."""
    ids = sorted(step.decision_ids)
    if not ids:
        return
    prefer_indexes(connection)
    rows = fetch_raw(connection, LEARNABLE, {"ids": ids, "model_id": step.model_id})
    if len(rows) != len(ids):
        wrong = sorted(Counter(ids) - Counter(decision_id for decision_id, _, _ in rows))
        raise StepConflictError(
            f"model {step.model_id}, step {step.step}: {len(wrong)} of its decisions are not settled, "
            f"learnt already, given twice or of another model, the first {wrong[0]!r}; "
            "take `unlearnt` again"
        )
    connection.execute(MARK_LEARNT, {"ids": ids, "step": step.step})
    impressions = Counter(creative_id for _, creative_id, _ in rows)
    clicks = Counter(creative_id for _, creative_id, click in rows if click)
    connection.execute(
        COUNT_CLICKS,
        [
            {"arm": arm, "new_impressions": count, "new_clicks": clicks[arm]}
            for arm, count in sorted(impressions.items())
        ],
    )


def write_arm_states(connection: Connection, model_id: int, step: int, states: ArmStates) -> None:
    """Write the states of arms as of a step; the transaction is the caller's."""
    rows = [
        {
            "creative_id": int(creative_id),
            "model_id": model_id,
            "step": step,
            "u": np.ascontiguousarray(u, dtype="<f8").tobytes(),
            "q": float(q),
            "k": float(k),
        }
        for creative_id, u, q, k in zip(states.creative_ids, states.u, states.q, states.k, strict=True)
    ]
    if not rows:
        return
    statement = insert_into(connection, ArmState)
    new = statement.excluded
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["creative_id"], set_={"step": new.step, "u": new.u, "q": new.q, "k": new.k}
        ),
        rows,
    )


def write_snapshot(
    connection: Connection, model_id: int, step: int, state: bytes, created_at: datetime
) -> None:
    """Write a snapshot, and prune all but the newest; the transaction is the caller's."""
    statement = insert_into(connection, Posterior).values(
        model_id=model_id, step=step, snapshot=state, created_at=created_at
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["model_id", "step"],
            set_={"snapshot": statement.excluded.snapshot, "created_at": statement.excluded.created_at},
        )
    )
    kept = (
        select(Posterior.step)
        .where(Posterior.model_id == model_id)
        .order_by(Posterior.step.desc())
        .limit(KEPT_SNAPSHOTS)
    )
    steps = list(connection.execute(kept).scalars())
    connection.execute(delete(Posterior).where(Posterior.model_id == model_id, Posterior.step < steps[-1]))
