"""Learning: what the learner takes, the one transaction in which it writes a step, and how it resumes."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, final

import numpy as np
from sqlalchemy import Connection, Select, bindparam, delete, exists, func, insert, select, update

from storage import context_schema, leases, statistics
from storage.columns import canonical_json
from storage.errors import DatabaseDamagedError, StepConflictError
from storage.records import (
    ArmReadout,
    ArmRow,
    ArmStates,
    CountRow,
    HistoryCountRecord,
    LearnRow,
    LogRow,
    Snapshot,
    StepRecord,
)
from storage.schema import ArmState, ArmStatistics, Campaign, Decision, LearnStep, Posterior
from storage.session import Database, in_chunks, insert_into

KEPT_SNAPSHOTS: Final = 2
LEARN_COLUMNS: Final = (
    Decision.decision_id,
    Decision.campaign_id,
    Decision.creative_id,
    Decision.context,
    Decision.slots_version,
    Decision.click,
    Decision.settled_at,
)


@final
class Learning:
    """The topic `store.learning`: one public method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unlearnt(self, model_id: int, *, limit: int = 256) -> list[LearnRow]:
        """Return settled decisions that no step has taken, by time of settling and id."""
        query = _learn_rows(model_id).where(Decision.settled_at.is_not(None), Decision.learnt_batch.is_(None))
        return self._rows(query.limit(limit))

    def rows_of_batch(self, model_id: int, step: int) -> list[LearnRow]:
        """Return the decisions that a step learnt, in the same order as `unlearnt`."""
        return self._rows(_learn_rows(model_id).where(Decision.learnt_batch == step))

    def write_step(self, step: StepRecord) -> None:
        """Write a learning step: log row, learnt decisions, counters, arm states, snapshot and readouts.

        Args:
            step: All of it; it is written whole or not at all.

        Raises:
            LeaseLostError: Another learner holds the lease; nothing was written.
            StepConflictError: The step does not follow the newest one, or a decision is not settled, learnt
                already, or of another model; nothing was written.
            InvalidValueError: A value cannot be stored.
        """
        canonical_json(dict(step.parameters), what=f"step {step.step}: its parameters")

        def work(connection: Connection) -> None:
            leases.hold(connection, step.model_id, step.lease)
            newest = _latest_step(connection, step.model_id)
            if step.step != newest + 1:
                raise StepConflictError(
                    f"model {step.model_id}: expected step {newest + 1}, got {step.step}; "
                    "read the log again and resume from it"
                )
            connection.execute(
                insert(LearnStep).values(
                    model_id=step.model_id,
                    step=step.step,
                    kind=step.kind,
                    parameters=dict(step.parameters),
                    n_rows=len(step.decision_ids),
                    logged_at=step.logged_at,
                )
            )
            _mark_learnt(connection, step)
            context_schema.add_counts(connection, step.model_id, step.context_counts)
            if step.arm_states is not None:
                _write_arm_states(connection, step.model_id, step.step, step.arm_states)
            if step.snapshot is not None:
                _write_snapshot(connection, step.model_id, step.step, step.snapshot, step.logged_at)
            statistics.refresh(connection, step.readouts, step.logged_at)

        self._database.write(work)

    def write_snapshot(
        self, model_id: int, *, lease: int, step: int, state: bytes, created_at: datetime
    ) -> None:
        """Write a snapshot as of a step that was logged before, such as at close; prune older ones.

        Raises:
            LeaseLostError: Another learner holds the lease.
            StepConflictError: No such step is in the log.
        """

        def work(connection: Connection) -> None:
            leases.hold(connection, model_id, lease)
            newest = _latest_step(connection, model_id)
            if not 0 <= step <= newest:
                raise StepConflictError(
                    f"model {model_id}: a snapshot as of step {step}, but the log ends at {newest}"
                )
            _write_snapshot(connection, model_id, step, state, created_at)

        self._database.write(work)

    def latest_step(self, model_id: int) -> int:
        """Return the newest step of the log; 0 when nothing was learnt."""
        return self._database.read(lambda connection: _latest_step(connection, model_id))

    def log(self, model_id: int, *, after_step: int = 0) -> list[LogRow]:
        """Return the steps after `after_step`, in order."""
        query = (
            select(
                LearnStep.step, LearnStep.kind, LearnStep.parameters, LearnStep.n_rows, LearnStep.logged_at
            )
            .where(LearnStep.model_id == model_id, LearnStep.step > after_step)
            .order_by(LearnStep.step)
        )
        return self._database.read(
            lambda connection: [LogRow(**row) for row in connection.execute(query).mappings()]
        )

    def newest_snapshot(self, model_id: int) -> Snapshot | None:
        """Return the newest snapshot; None when there is none."""
        query = (
            select(Posterior.step, Posterior.snapshot.label("state"))
            .where(Posterior.model_id == model_id)
            .order_by(Posterior.step.desc())
            .limit(1)
        )

        def work(connection: Connection) -> Snapshot | None:
            row = connection.execute(query).mappings().one_or_none()
            return None if row is None else Snapshot(**row)

        return self._database.read(work)

    def arm_states(self, model_id: int, *, after_step: int = -1) -> ArmStates:
        """Return the states of the arms that changed after a step, by creative.

        Raises:
            DatabaseDamagedError: The states do not have one length.
        """
        query = (
            select(ArmState.creative_id, ArmState.u, ArmState.q, ArmState.k, ArmState.step)
            .where(ArmState.model_id == model_id, ArmState.step > after_step)
            .order_by(ArmState.creative_id)
        )
        rows = self._database.read(lambda connection: connection.execute(query).all())
        lengths = {len(row.u) for row in rows}
        if len(lengths) > 1:
            raise DatabaseDamagedError(
                f"model {model_id}: arm states have different lengths, {sorted(lengths)} bytes; "
                "run: creative-bandit storage check, and refit the model"
            )
        dim = lengths.pop() // 8 if lengths else 0
        return ArmStates(
            creative_ids=np.array([row.creative_id for row in rows], dtype=np.int64),
            u=np.frombuffer(b"".join(row.u for row in rows), dtype="<f8").reshape(len(rows), dim).copy(),
            q=np.array([row.q for row in rows], dtype=np.float64),
            k=np.array([row.k for row in rows], dtype=np.float64),
            steps=np.array([row.step for row in rows], dtype=np.int64),
        )

    def counts(self, model_id: int, *, up_to_step: int) -> list[CountRow]:
        """Return what a refit needs: learnt decisions that share creative, slots and context, counted.

        Args:
            model_id: The model.
            up_to_step: The last step whose decisions count.

        Returns:
            One row for each creative, version of the slots and context, in that order.
        """
        return self._database.read(lambda connection: statistics.counts(connection, model_id, up_to_step))

    def history_counts(self, model_id: int) -> list[HistoryCountRecord]:
        """Return the imported history of the model's creatives, by creative."""
        return self._database.read(lambda connection: statistics.history(connection, model_id))

    def add_history(
        self, model_id: int, rows: Sequence[tuple[int, int, int]], *, imported_at: datetime
    ) -> None:
        """Add imported counts to those that are there, all or none.

        Args:
            model_id: The model.
            rows: (creative_id, impressions, clicks); a creative may occur more than once.
            imported_at: When.

        Raises:
            InvalidValueError: Counts are negative, or there are more clicks than impressions.
            UnknownCreativeError: A creative is none of the model's.
        """
        statistics.check_history(rows)
        self._database.write(
            lambda connection: statistics.add_history(connection, model_id, rows, imported_at)
        )

    def impressions(self, model_id: int) -> dict[int, int]:
        """Return how many activated decisions each campaign has, learnt or pending."""
        return self._database.read(lambda connection: statistics.impressions(connection, model_id))

    def refresh_statistics(self, readouts: Sequence[ArmReadout], *, refreshed_at: datetime) -> None:
        """Store the posterior of arms as people read it, with pending counts and the share of the last 24 h.

        Args:
            readouts: Rates as fractions.
            refreshed_at: When.
        """
        self._database.write(lambda connection: statistics.refresh(connection, readouts, refreshed_at))

    def arm_rows(self, campaign_id: int, *, now: datetime) -> list[ArmRow]:
        """Return the arms of a campaign with their counts, pending ones and share as of `now`."""
        return self._database.read(lambda connection: statistics.arm_rows(connection, campaign_id, now))

    def _rows(self, query: Select[Any]) -> list[LearnRow]:
        return self._database.read(
            lambda connection: [LearnRow(**row) for row in connection.execute(query).mappings()]
        )


def _learn_rows(model_id: int) -> Select[Any]:
    # EXISTS keeps the decisions' own partial index in the lead; a join may begin at the campaigns.
    is_ours = exists().where(Campaign.campaign_id == Decision.campaign_id, Campaign.model_id == model_id)
    return select(*LEARN_COLUMNS).where(is_ours).order_by(Decision.settled_at, Decision.decision_id)


def _latest_step(connection: Connection, model_id: int) -> int:
    query = select(func.max(LearnStep.step)).where(LearnStep.model_id == model_id)
    return connection.execute(query).scalar() or 0


def _mark_learnt(connection: Connection, step: StepRecord) -> None:
    """Write the step into its decisions, and add them to the counters of their arms."""
    ids = sorted(step.decision_ids)
    is_ours = exists().where(Campaign.campaign_id == Decision.campaign_id, Campaign.model_id == step.model_id)
    free = (Decision.settled_at.is_not(None), Decision.learnt_batch.is_(None), is_ours)
    impressions: Counter[int] = Counter()
    clicks: Counter[int] = Counter()
    for chunk in in_chunks(ids):
        # Reports lock decisions in the order of their ids, and so do we.
        query = select(Decision.decision_id, Decision.creative_id, Decision.click)
        query = query.where(Decision.decision_id.in_(chunk), *free).order_by(Decision.decision_id)
        rows = connection.execute(query.with_for_update(of=Decision)).all()
        if len(rows) != len(chunk):
            wrong = sorted(Counter(chunk) - Counter(row.decision_id for row in rows))
            raise StepConflictError(
                f"model {step.model_id}, step {step.step}: {len(wrong)} of its decisions are not settled, "
                f"learnt already, given twice or of another model, the first {wrong[0]!r}; "
                "take `unlearnt` again"
            )
        statement = update(Decision).where(Decision.decision_id.in_(chunk))
        connection.execute(statement.values(learnt_batch=step.step))
        for row in rows:
            impressions[row.creative_id] += 1
            clicks[row.creative_id] += row.click
    if impressions:
        connection.execute(
            update(ArmStatistics)
            .where(ArmStatistics.creative_id == bindparam("arm"))
            .values(
                impressions=ArmStatistics.impressions + bindparam("new_impressions"),
                clicks=ArmStatistics.clicks + bindparam("new_clicks"),
            ),
            [
                {"arm": arm, "new_impressions": count, "new_clicks": clicks[arm]}
                for arm, count in sorted(impressions.items())
            ],
        )


def _write_arm_states(connection: Connection, model_id: int, step: int, states: ArmStates) -> None:
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


def _write_snapshot(
    connection: Connection, model_id: int, step: int, state: bytes, created_at: datetime
) -> None:
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
