"""Learning: settled decisions in, posterior and arm statistics out, every step a row of the log.

A step is computed outside any transaction and then written whole: log row, learnt marks, counters and, now
and then, a snapshot. The posterior in memory follows only after the commit.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import jax
import numpy as np

from bandit.errors import PosteriorError
from bandit.features.context import count_contexts
from bandit.jax_runtime import double_precision
from bandit.learning.aggregation import count_distinct, count_learnt, leading_rows
from bandit.learning.arm_summaries import ArmSummaries
from bandit.learning.replica import BATCH, PosteriorReplica
from bandit.learning.schedule import MaintenanceSchedule, fixed_scales, is_refit_due, scales_of
from bandit.learning.snapshots import snapshot_to_bytes
from bandit.model.catalog import CampaignEntry
from bandit.model.content import Features, new_features
from bandit.model.device_tables import padded_campaigns
from bandit.model.embeddings import LazyEncoder
from bandit.model.model import Model
from bandit.posterior import RefitInfo, SiteInfo, State, with_shared
from storage import (
    ArmStates,
    ArmSummary,
    ContextCountRecord,
    LeaseLostError,
    StepConflictError,
    StepRecord,
    Store,
)
from storage.learning_records import StepKind

BACKLOG = 8_192  # decisions that a step learns at most of a backlog
SNAPSHOT_EVERY_S = 1.0
READOUTS_EVERY_S = 1.0
READOUT_REST = 20  # times as long as writing what people read took it is not written again
CORRECTION_REST = 20  # times as long as a refit due to corrections took nothing else is refitted for them


class Learner:
    """Learns one model's decisions. Not thread-safe: the engine calls it under its lock.

    Args:
        store: The database.
        model: Campaigns, contents and contexts.
        clock: Gives the time, aware.
        owner: Who asks for the lease, for people.

    Attributes:
        replica: The posterior; the learner's own steps and those of other processes.
        lease: Number of the lease under which this process learns; None when it does not.
        has_more: Whether settled decisions were left waiting when the last batch was taken.
    """

    def __init__(self, store: Store, model: Model, clock: Callable[[], datetime], owner: str) -> None:
        self._store = store
        self._model = model
        self._clock = clock
        self._owner = owner
        self._model_id = model.record.model_id
        self._schedule = MaintenanceSchedule(model)
        self.replica = PosteriorReplica(store, model, self._schedule)
        self._summaries = ArmSummaries(store, model, lambda: self.replica.view)
        self.lease: int | None = None
        self.has_more = False
        self._n_in_batch = 0
        self._saved_at = time.monotonic()
        self._reads_out_at = self._saved_at + READOUTS_EVERY_S
        self._corrects_at = -math.inf

    def ensure_lease(self, *, force: bool = False) -> bool:
        """Return whether this process may learn; takes the lease when nobody holds it.

        Args:
            force: Take it from another process too.
        """
        if self.lease is None:
            self.lease = self._store.leases.acquire(self._model_id, self._owner, force=force)
            if self.lease is not None:
                self.replica.catch_up()
                self._model.reread_settings()
                if self._model.settings.is_refit_due:
                    self.refit()
        return self.lease is not None

    def renew(self) -> None:
        """Hold the lease longer; called every two seconds."""
        lease = self.lease
        if lease is not None and not self._store.leases.renew(self._model_id, lease) and self.lease == lease:
            self._lose_lease()

    def _lose_lease(self) -> None:
        self.replica.distrust()
        self.lease = None

    def learn(self) -> int:
        """Learn one batch of settled decisions.

        Returns:
            How many; 0 when none was waiting or another process learns.
        """
        if not self.ensure_lease():
            return 0
        if self._model.settings.is_refit_due and not self.refit():
            return 0
        if not self._keep_up():
            return 0
        learnt = self._learn_batch()
        if is_refit_due(self.replica.n_learnt, self.replica.n_at_refit):
            self._refit()
        elif not self.has_more and time.monotonic() >= self._corrects_at and self._has_corrections():
            began = time.monotonic()
            self._refit()
            self._corrects_at = time.monotonic() + CORRECTION_REST * (time.monotonic() - began)
        return learnt

    def _has_corrections(self) -> bool:
        return self._store.learning.has_corrections(self._model_id)

    def _keep_up(self) -> bool:
        """Do the steps that are due without data; return False when another process learns now."""
        decay = self._schedule.decay(self._clock(), self.replica.forgot_at)
        if decay is not None and not self._do("forget", {"kept": decay}):
            return False
        if not self._schedule.is_scales_due(self.replica.step + 1):
            return True
        with double_precision():
            state = self.replica.view.state
            arm_campaign = padded_campaigns(self._model.catalog, len(state.arm_precision))
            scales = self._schedule.learnt_scales(state, arm_campaign)
        return self._do("scales", scales)

    def _do(self, kind: StepKind, parameters: Mapping[str, float]) -> bool:
        with double_precision():
            state = jax.block_until_ready(self.replica.maintained(kind, parameters))
            now, step = self._clock(), self.replica.step + 1
            if not self._write(state, kind, _step_info(state), (), (), None, parameters, at=now):
                return False
            self.replica.take(state, step, kind, now)
        return True

    def _learn_batch(self) -> int:
        # One row more than is learnt says whether others wait: the last batch needs no read to find that out.
        most = batch_limit(self.replica.n_learnt, self._n_in_batch) if self.has_more else BATCH
        waiting = self._store.learning.unlearnt(self._model_id, limit=most + 1)
        rows = leading_rows(waiting.first(most), BATCH)
        self.has_more, self._n_in_batch = len(waiting) > len(rows), len(rows)
        if not rows:
            return 0
        if not self._model.knows(rows):
            self._model.reload()
            self.replica.republish()
        counted = count_distinct(rows)
        with double_precision():
            change, info = jax.block_until_ready(self.replica.learnt(counted))
            self.replica.note(rows)
            after = with_shared(self.replica.view.state, change)
            told = {**_step_info(after, info), "clicks": sum(each.clicks for each in counted)}
            counts = count_contexts(
                [each.context for each in counted],
                self._model.schema,
                [int(each.impressions) for each in counted],
            )
            arms = self.replica.arm_states(after, change) if self._is_snapshot_due else None
            step = self.replica.step + 1
            if not self._write(after, "batch", told, tuple(rows.decision_ids), counts, arms):
                return 0
            self.replica.apply(change, step)
        self.replica.n_learnt += len(rows)
        if counts:
            self._model.give_slots()
        return len(rows)

    def refit(self) -> bool:
        """Fit the posterior anew to all counts, imported history included.

        Returns:
            Whether it was done; False when another process learns.
        """
        if not self.ensure_lease():
            return False
        while self._learn_batch():
            pass
        return self._refit()

    def swap_encoder(self, encoder: LazyEncoder) -> bool:
        """Turn to another encoder: new features of all creatives, and the posterior fitted anew by them.

        All of it is one step, and no count is lost. The lease is taken from whoever holds it.

        Returns:
            Whether it was done; False when another process took the lease or added creatives meanwhile.
        """
        self.ensure_lease(force=True)
        return self._refit(self._model.features_by(encoder))

    def _refit(self, features: Features | None = None) -> bool:
        if self._has_corrections() and not self._do("correction", {}):
            return False
        self._model.reload()
        features = features or self._model.better_features()
        learns_scales = self._model.settings.learns_scales
        parameters: dict[str, Any] = {"learns_scales": learns_scales}
        if features is not None:
            parameters["encoder"] = features.encoder.fingerprint
        if not learns_scales:
            with double_precision():
                scales = scales_of(self.replica.view.state.prior)
            # Other components may have another unit: what was learnt of contents does not hold in it.
            names = scales if features is None else ("context", "campaign", "arm")
            parameters["scales"] = {name: scales[name] for name in names}
        rows = count_learnt(self._store, self._model, self.replica.step)
        state, info = self.replica.fit(rows, fixed_scales(parameters), features and features.catalog)
        self.replica.touched = set(self._model.catalog.arm)
        with double_precision():
            arms = self.replica.arm_states(state)
            told = _step_info(state, info)
            now, step = self._clock(), self.replica.step + 1
            if not self._write(state, "refit", told, (), (), arms, parameters, features, at=now):
                return False
            try:
                if features is not None:
                    self._model.adopt(features)
            except BaseException:  # it is stored, and neither contents nor posterior here have followed
                self.replica.resume()
                raise
            self.replica.take(state, step, "refit", now)
        self.replica.n_at_refit = self.replica.n_learnt
        self._model.mark_refit(is_due=False)
        return True

    def save(self) -> None:
        """Write a snapshot of what was learnt since the last one, and what people read."""
        self._save_snapshot()
        if self.lease is not None:
            self.refresh_statistics()

    def save_what_is_due(self) -> None:
        """Write a snapshot and what people read, each when its time has come."""
        if self._is_snapshot_due:
            self._save_snapshot()
        if self.lease is not None and time.monotonic() >= self._reads_out_at:
            self.refresh_statistics()

    def _save_snapshot(self) -> None:
        lease = self.lease
        if lease is None or not self.replica.touched:
            return
        with double_precision():
            try:
                self._write_snapshot(lease)
            except LeaseLostError:
                self._lose_lease()

    def warm_up(self) -> Iterator[None]:
        """Compile, or load, the programs of learning and of what people read; stop after each."""
        yield from self.replica.warm_up()
        yield from self._summaries.warm_up()

    def release(self) -> None:
        """Give the lease back."""
        if self.lease is not None:
            self._store.leases.release(self._model_id, self.lease)
            self.lease = None

    def refresh_statistics(self) -> None:
        """Write what people read of the campaigns that have learnt since it was last written."""
        began = time.monotonic()
        self._reads_out_at = began + READOUTS_EVERY_S
        unread = self.replica.unread
        if not unread:
            return
        entries = [e for e in self._model.catalog.campaigns.values() if e.record.campaign_id in unread]
        summaries = [summary for entry in entries for summary in self._summaries.of(entry)]
        if summaries:
            self._store.learning.refresh_statistics(summaries, refreshed_at=self._clock())
        unread.clear()
        took = time.monotonic() - began
        self._reads_out_at = began + max(READOUTS_EVERY_S, READOUT_REST * took)

    def summaries(self, entry: CampaignEntry) -> list[ArmSummary]:
        """Return the posterior of a campaign's arms as people read it."""
        return self._summaries.of(entry)

    @property
    def _is_snapshot_due(self) -> bool:
        return time.monotonic() - self._saved_at >= SNAPSHOT_EVERY_S

    def _write(
        self,
        state: State,
        kind: StepKind,
        info: Mapping[str, object],
        decision_ids: tuple[str, ...],
        counts: Sequence[ContextCountRecord],
        arms: ArmStates | None,
        parameters: Mapping[str, Any] | None = None,
        features: Features | None = None,
        at: datetime | None = None,
    ) -> bool:
        """Write a step, and a snapshot when arms are given; the posterior in memory must follow it.

        Returns:
            False, with the posterior reread, when another process learns now.
        """
        lease, step = self.lease, self.replica.step + 1
        if lease is None:  # the renewing thread has just found it lost
            self.replica.resume()
            return False
        if not np.isfinite(state.weights).all():
            raise PosteriorError(
                f"learning step {step} ({kind}) would make the posterior infinite or NaN; nothing "
                "was written. Run `creative-bandit storage check`, and report this with its output"
            )
        record = StepRecord(
            model_id=self._model_id,
            lease=lease,
            step=step,
            kind=kind,
            parameters=parameters or {},
            info=info,
            logged_at=at or self._clock(),
            decision_ids=decision_ids,
            context_counts=tuple(counts),
            arm_states=arms,
            snapshot=None if arms is None else snapshot_to_bytes(state),
            features=features and new_features(features, step),
        )
        try:
            self._store.learning.write_step(record)
        except LeaseLostError:
            self.lease = None
            self.replica.resume()
            return False
        except StepConflictError:
            self.replica.resume()
            return False
        if arms is not None:
            self._saved()
        return True

    def _write_snapshot(self, lease: int) -> None:
        state = self.replica.view.state
        self._store.learning.write_snapshot(
            self._model_id,
            lease=lease,
            step=self.replica.step,
            state=snapshot_to_bytes(state),
            arm_states=self.replica.arm_states(state),
            created_at=self._clock(),
        )
        self._saved()

    def _saved(self) -> None:
        self.replica.touched.clear()
        self._saved_at = time.monotonic()


def batch_limit(n_learnt: int, n_before: int) -> int:
    """Return how many decisions of a backlog are read to be learnt at once.

    No more than a quarter of those learnt so far: a step finds its sites in two passes from what is known,
    which is near enough while it adds little. No more than half again as many as the batch before had, which
    may have been cut short by `leading_rows`.

    Example:
        >>> batch_limit(10_000, 256), batch_limit(10_000, 4_000), batch_limit(1_000_000, 8_192)
        (384, 2500, 8192)
    """
    return max(BATCH, min(n_learnt // 4, n_before + n_before // 2, BACKLOG))


def _step_info(state: State, info: SiteInfo | RefitInfo | None = None) -> dict[str, Any]:
    """Return what a step reports about itself: numbers, and the scales that are in force after it.

    The smallest pivot of the weights' precision says how far it is from losing its positive definiteness:
    its smallest eigenvalue lies at or below it.
    """
    pivot = np.min(np.diagonal(state.factor)) ** 2
    numbers = {
        **({} if info is None else {name: float(value) for name, value in info._asdict().items()}),
        "smallest_pivot": float(pivot),
    }
    told: dict[str, Any] = {name: value for name, value in numbers.items() if np.isfinite(value)}
    return {**told, "scales": scales_of(state.prior)}
