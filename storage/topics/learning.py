"""Learning: what the learner takes, what it writes, and what it resumes from."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, final

import numpy as np
from sqlalchemy import Connection, Select, Text, bindparam, case, exists, func, select, type_coerce

from storage.database.dialect import fetch_raw
from storage.database.session import Database, prefer_indexes
from storage.errors import DatabaseDamagedError, StepConflictError
from storage.learning_records import (
    ArmRow,
    ArmStates,
    ArmSummary,
    CountRow,
    ForgetRow,
    HistoryCountRecord,
    InfoRow,
    LearnRows,
    LogRow,
    Snapshot,
    StepRecord,
)
from storage.records import ContextCountRecord
from storage.schema.columns import canonical_json
from storage.schema.tables import (
    ArmState,
    Campaign,
    Creative,
    Decision,
    LearnStep,
    ModelLog,
    Posterior,
    PrunedCount,
)
from storage.topics import context_schema, corrections, history, leases, statistics, steps
from storage.validation import check_text

LEARN_ROWS: Final = (
    select(
        Decision.decision_id,
        Decision.campaign_id,
        Decision.creative_id,
        Decision.slots_version,
        corrections.SETTLED_CLICK,
        type_coerce(Decision.context, Text),
    )
    # EXISTS keeps the decisions' own partial index in the lead; a join may begin at the campaigns.
    .where(
        exists().where(
            Campaign.campaign_id == Decision.campaign_id, Campaign.model_id == bindparam("model_id")
        )
    )
    .order_by(Decision.settled_at, Decision.decision_id)
)
UNLEARNT: Final = LEARN_ROWS.where(Decision.settled_at.is_not(None), Decision.learnt_batch.is_(None)).limit(
    bindparam("limit")
)
LEARNT_BY: Final = LEARN_ROWS.where(Decision.learnt_batch == bindparam("step"))


@final
class Learning:
    """The topic `store.learning`: one public method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unlearnt(self, model_id: int, *, limit: int = 256) -> LearnRows:
        """Return settled decisions that no step has taken, by time of settling and id."""
        return self._rows(UNLEARNT, {"model_id": model_id, "limit": limit})

    def rows_of_batch(self, model_id: int, step: int) -> LearnRows:
        """Return the decisions that a step learnt, in the same order as `unlearnt`."""
        return self._rows(LEARNT_BY, {"model_id": model_id, "step": step})

    def write_step(self, step: StepRecord) -> None:
        """Write a learning step: log row, learnt decisions, counters, arm states and snapshot.

        Args:
            step: All of it; it is written whole or not at all.

        Raises:
            LeaseLostError: Another learner holds the lease; nothing was written.
            StepConflictError: The step does not follow the newest one, a decision is not settled, learnt
                already, or of another model, or new features lack a creative; nothing was written.
            InvalidValueError: A value cannot be stored.
        """
        canonical_json(dict(step.parameters), what=f"step {step.step}: its parameters")
        canonical_json(dict(step.info), what=f"step {step.step}: its info")
        self._database.write(lambda connection: steps.write(connection, step))

    def write_snapshot(
        self,
        model_id: int,
        *,
        lease: int,
        step: int,
        state: bytes,
        arm_states: ArmStates,
        created_at: datetime,
    ) -> None:
        """Write a snapshot as of a step that was logged before, such as at close; prune older ones.

        Args:
            model_id: The model.
            lease: The number of the learner's lease.
            step: The step as of which everything is.
            state: The shared arrays, safetensors bytes.
            arm_states: The arms touched since the last snapshot.
            created_at: When.

        Raises:
            LeaseLostError: Another learner holds the lease.
            StepConflictError: No such step is in the log.
        """

        def work(connection: Connection) -> None:
            leases.hold(connection, model_id, lease)
            newest = steps.latest(connection, model_id)
            if not 0 <= step <= newest:
                raise StepConflictError(
                    f"model {model_id}: a snapshot as of step {step}, but the log ends at {newest}"
                )
            steps.write_arm_states(connection, model_id, step, arm_states)
            steps.write_snapshot(connection, model_id, step, state, created_at)

        self._database.write(work)

    def has_corrections(self, model_id: int) -> bool:
        """Return whether something that was learnt was corrected and no step has taken note of it."""
        return self._database.read(lambda connection: corrections.has_unnoted(connection, model_id))

    def latest_step(self, model_id: int) -> int:
        """Return the newest step of the log; 0 when nothing was learnt."""
        return self._database.read(lambda connection: steps.latest(connection, model_id))

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

    def forgets(self, model_id: int, *, up_to_step: int) -> list[ForgetRow]:
        """Return the steps that forgot a part of what was learnt before them, in order."""
        query = (
            select(LearnStep.step, LearnStep.parameters, LearnStep.logged_at)
            .where(LearnStep.model_id == model_id, LearnStep.kind == "forget", LearnStep.step <= up_to_step)
            .order_by(LearnStep.step)
        )
        return self._database.read(
            lambda connection: [
                ForgetRow(step=row.step, decay=row.parameters["kept"], logged_at=row.logged_at)
                for row in connection.execute(query)
            ]
        )

    def learnt_decisions(self, model_id: int, *, up_to_step: int) -> tuple[int, int]:
        """Return how many decisions the steps up to one have learnt, and how many before the newest refit."""
        steps_of = (LearnStep.model_id == model_id, LearnStep.step <= up_to_step)
        newest_refit = select(func.max(LearnStep.step)).where(*steps_of, LearnStep.kind == "refit")
        is_before = LearnStep.step < newest_refit.scalar_subquery()
        query = select(
            func.coalesce(func.sum(LearnStep.n_rows), 0),
            func.coalesce(func.sum(case((is_before, LearnStep.n_rows))), 0),
        ).where(*steps_of)

        def work(connection: Connection) -> tuple[int, int]:
            learnt, before_refit = connection.execute(query).one()
            return int(learnt), int(before_refit)

        return self._database.read(work)

    def model_log(self, model_id: int, *, limit: int) -> list[InfoRow]:
        """Return what the latest steps reported about themselves, the newest first."""
        query = (
            select(LearnStep.step, LearnStep.kind, LearnStep.n_rows, LearnStep.logged_at, ModelLog.info)
            .join_from(
                LearnStep,
                ModelLog,
                (ModelLog.model_id == LearnStep.model_id) & (ModelLog.step == LearnStep.step),
            )
            .where(LearnStep.model_id == model_id)
            .order_by(LearnStep.step.desc())
            .limit(limit)
        )
        return self._database.read(
            lambda connection: [InfoRow(**row) for row in connection.execute(query).mappings()]
        )

    def newest_snapshot(self, model_id: int, *, after_step: int = -1) -> Snapshot | None:
        """Return the newest snapshot; None when there is none as of a later step than `after_step`."""
        query = (
            select(Posterior.step, Posterior.snapshot.label("state"))
            .where(Posterior.model_id == model_id, Posterior.step > after_step)
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

    def counts(
        self, model_id: int, *, after_step: int = 0, up_to_step: int, with_conversions: bool = False
    ) -> list[CountRow]:
        """Return what a refit needs: learnt decisions that share creative, slots and context, counted.

        Decisions whose rows were pruned count too. Steps before the newest refit cannot be told apart then.

        Args:
            model_id: The model.
            after_step: The last step whose decisions do not count.
            up_to_step: The last step whose decisions count.
            with_conversions: Whether to count the clicks that led to a conversion. Of pruned decisions only
                the number of conversions is known: each counts as a click's, up to the clicks.

        Returns:
            One row for each creative, version of the slots and context, in that order.
        """
        return self._database.read(
            lambda connection: statistics.counts(
                connection, model_id, after_step, up_to_step, with_conversions=with_conversions
            )
        )

    def history_counts(self, model_id: int) -> list[HistoryCountRecord]:
        """Return the imported history of the model's creatives, by creative, import and context."""
        return self._database.read(lambda connection: history.counts(connection, model_id))

    def add_history(
        self,
        model_id: int,
        rows: Sequence[HistoryCountRecord],
        *,
        import_id: str,
        imported_at: datetime,
        slots_version: int = 0,
        context_counts: Sequence[ContextCountRecord] = (),
    ) -> bool:
        """Add imported counts to those that are there, all or none.

        Args:
            model_id: The model.
            rows: A creative and context may occur more than once.
            import_id: Names the import: one that is known already changes nothing.
            imported_at: When.
            slots_version: The context schema's version by which the contexts count, now and ever after.
            context_counts: What to add to the counts of context levels.

        Returns:
            Whether the counts were added; False when this import was made before.

        Raises:
            InvalidValueError: Counts are negative, there are more clicks than impressions, or a context
                cannot be stored.
            UnknownCreativeError: A creative is none of the model's.
        """
        summed = history.summed(rows)
        check_text(import_id, "import_id")

        def work(connection: Connection) -> bool:
            if not history.add(connection, model_id, summed, import_id, slots_version, imported_at):
                return False
            context_schema.add_counts(connection, model_id, context_counts)
            return True

        return self._database.write(work)

    def imported_at(self, model_id: int, import_id: str) -> datetime | None:
        """Return when an import was made; None when it never was."""
        return self._database.read(lambda connection: history.imported_at(connection, model_id, import_id))

    def recent_contexts(self, campaign_id: int, *, limit: int) -> list[dict[str, Any]]:
        """Return the contexts of a campaign's latest learnt decisions, the newest first.

        Where all of them are pruned, those of the newest days' counts, each once.
        """
        pruned = (
            select(PrunedCount.context)
            .join(Creative, Creative.creative_id == PrunedCount.creative_id)
            .where(Creative.campaign_id == campaign_id)
            .order_by(PrunedCount.day.desc(), PrunedCount.impressions.desc(), PrunedCount.context_hash)
            .limit(limit)
        )
        query = (
            select(Decision.context)
            .where(
                Decision.campaign_id == campaign_id,
                Decision.activated_at.is_not(None),
                Decision.learnt_batch.is_not(None),
            )
            .order_by(Decision.activated_at.desc(), Decision.decision_id.desc())
            .limit(limit)
        )

        def work(connection: Connection) -> list[dict[str, Any]]:
            recent = list(connection.execute(query).scalars())
            return recent or list(connection.execute(pruned).scalars())

        return self._database.read(work)

    def impressions(self, model_id: int) -> dict[int, int]:
        """Return how many activated decisions each campaign has, learnt or pending."""
        return self._database.read(lambda connection: statistics.impressions(connection, model_id))

    def refresh_statistics(self, summaries: Sequence[ArmSummary], *, refreshed_at: datetime) -> None:
        """Store the posterior of arms as people read it, with pending counts and the share of the last 24 h.

        Args:
            summaries: Rates as fractions.
            refreshed_at: When.
        """
        # Counted before the write transaction: on SQLite every other writer would wait for the counting.
        rows = self._database.read(
            lambda connection: statistics.readout_rows(connection, summaries, refreshed_at)
        )
        self._database.write(lambda connection: statistics.write_readouts(connection, rows))

    def arm_rows(self, campaign_id: int, *, now: datetime) -> list[ArmRow]:
        """Return the arms of a campaign with their counts, pending ones and share as of `now`."""
        return self._database.read(lambda connection: statistics.arm_rows(connection, campaign_id, now))

    def _rows(self, query: Select[*tuple[Any, ...]], parameters: dict[str, int]) -> LearnRows:
        def work(connection: Connection) -> Sequence[tuple[Any, ...]]:
            prefer_indexes(connection)
            return fetch_raw(connection, query, parameters)

        rows = self._database.read(work)
        if not rows:
            return LearnRows()
        ids, campaigns, creatives, versions, clicks, texts = zip(*rows, strict=True)
        place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        return LearnRows(
            decision_ids=ids,
            campaign_ids=campaigns,
            creative_ids=creatives,
            slots_versions=versions,
            clicks=clicks,
            context=[place[text] for text in texts],
            contexts=[json.loads(text) for text in place],
        )
