"""Learning: settled decisions in, posterior and arm statistics out, every step a row of the log.

A step is computed outside any transaction and then written whole: log row, learnt marks, counters and, now
and then, a snapshot. The posterior in memory follows only after the commit, so it never knows more than SQL
does; the fold over the log, from the prior or from any snapshot, gives it again.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import jax
import numpy as np

from bandit.context import count_contexts
from bandit.counting import count_learnt, room_to_fit
from bandit.embedding import LazyEncoder
from bandit.errors import PosteriorError
from bandit.features import weight_prior
from bandit.fitting import fit_counts
from bandit.following import all_arms, forgets_of, steps_to_fold
from bandit.model import Features, Model, new_features
from bandit.numerics import double_precision
from bandit.pooling import Counted, leading_rows, pool, tallied
from bandit.posterior import (
    Change,
    Prior,
    RefitInfo,
    SiteInfo,
    State,
    grow,
    initial_state,
    with_shared,
)
from bandit.programs import (
    CountedRows,
    apply_change,
    arm_rows,
    fade,
    learn_batch,
)
from bandit.readouts import Readouts
from bandit.roster import CampaignEntry, Roster
from bandit.selection import padded_size, room_for
from bandit.snapshot import restored, snapshot_to_bytes
from bandit.upkeep import Upkeep, kept_since, scales_of
from bandit.view import View
from storage import (
    ArmReadout,
    ArmStates,
    ContextCountRecord,
    LearnRows,
    LeaseLostError,
    LogRow,
    Snapshot,
    StepConflictError,
    StepRecord,
    Store,
)
from storage.learning_records import StepKind

BATCH = 256  # decisions a step learns at most, and rows of counts if more of a backlog are learnt at once
BACKLOG = 8_192  # decisions that a step learns at most of a backlog
ROWS = (8, 32, 64, 128, BATCH)
SNAPSHOT_EVERY_S = 1.0
READOUTS_EVERY_S = 1.0
READOUT_REST = 20  # times as long as writing what people read took it is not written again
CORRECTION_REST = 20  # times as long as a refit due to corrections took nothing else is refitted for them
SNAPSHOT_TRIES = 5  # a snapshot is read in two steps; a learner elsewhere may write the next one between them


class Learner:
    """Keeps one model's posterior. Not thread-safe: the engine calls it under its lock.

    Args:
        store: The database.
        model: Campaigns, contents and contexts.
        clock: Gives the time, aware.
        owner: Who asks for the lease, for people.
        from_prior: Whether to begin at the prior and fold the whole log, whatever snapshots there are.

    Attributes:
        view: The posterior as selection sees it.
        has_more: Whether settled decisions were left waiting when the last batch was taken.
    """

    def __init__(
        self,
        store: Store,
        model: Model,
        clock: Callable[[], datetime],
        owner: str,
        *,
        from_prior: bool = False,
    ) -> None:
        self._store = store
        self._model = model
        self._clock = clock
        self._owner = owner
        self._from_prior = from_prior
        self._model_id = model.record.model_id
        self._upkeep = Upkeep(model)
        self._readouts = Readouts(store, model, lambda: self.view)
        self.lease: int | None = None
        self._has_lost_lease = False
        self.has_more = False
        self._forgot_at: datetime | None = None
        self._n_learnt = self._n_at_refit = self._n_in_batch = 0
        self._touched: set[int] = set()
        self._unread: set[int] = set()
        self._saved_at = time.monotonic()
        self._reads_out_at = self._saved_at + READOUTS_EVERY_S
        self._corrects_at = -math.inf
        self.resume()

    def resume(self) -> None:
        """Read the posterior from the newest snapshot and fold what the log has since."""
        stored = self._reread()
        with double_precision():
            n_arms, n_campaigns = self._model.capacity()
            if stored is None:
                state = initial_state(self._prior(), n_arms, n_campaigns)
            else:
                snapshot, arms = stored
                index = np.array([self._model.roster.arm[int(i)] for i in arms.creative_ids], np.int64)
                arm_campaign = self._model.arm_campaign(n_arms)
                forgets = self._store.learning.forgets(self._model_id, up_to_step=snapshot.step)
                self._forgot_at = forgets[-1].logged_at if forgets else None
                kept = kept_since(arms, forgets)
                state = restored(snapshot.state, arms, index, kept, arm_campaign, n_campaigns)
            self._step = 0 if stored is None else stored[0].step
            self._touched.clear()
            self._publish(state)
        self._n_learnt, self._n_at_refit = self._store.learning.learnt_decisions(
            self._model_id, up_to_step=self._step
        )
        self.catch_up()

    def catch_up(self) -> None:
        """Learn what only the log knows: its own steps after a failure, or those of another process."""
        latest = self._store.learning.latest_step(self._model_id)
        # Not built upon: what was learnt under a lost lease, and what a server lost when it crashed.
        if self._has_lost_lease or latest < self._step:
            self._has_lost_lease = False
            self.resume()
        elif latest > self._step:
            log = self._store.learning.log(self._model_id, after_step=self._step)
            stored = None
            if not self._from_prior:
                stored = self._stored_state(after_step=self._step, ahead=steps_to_fold(log))
            if stored is not None:
                # The snapshot may be newer than the log was.
                log = self._store.learning.log(self._model_id, after_step=self._step)
                self._take_over(*stored, [row for row in log if row.step <= stored[0].step])
                log = [row for row in log if row.step > self._step]
            self._fold(log)

    def _take_over(self, snapshot: Snapshot, arms: ArmStates, log: Sequence[LogRow]) -> None:
        """Go on from a snapshot ahead of us.

        Args:
            snapshot: The snapshot.
            arms: The states as of it of the arms that have changed.
            log: The steps between.
        """
        if any(row.kind == "refit" for row in log):
            self._model.reread_features()
        self._model.reload()
        if snapshot.step < self._model.features_step:  # changed once more since the snapshot was read
            self.resume()
            return
        forgets = forgets_of(log)
        with double_precision():
            n_arms, n_campaigns = self._model.capacity()
            state = self.view.state
            if n_arms > len(state.arm_precision):
                state = grow(state, n_arms, n_campaigns)
            index = np.array([self._model.roster.arm[int(i)] for i in arms.creative_ids], np.int64)
            everything, kept = all_arms(state, arms, index, forgets)
            arm_campaign = self._model.arm_campaign(n_arms)
            followed = restored(
                snapshot.state, everything, everything.creative_ids, kept, arm_campaign, n_campaigns
            )
            self._step = snapshot.step
            self._touched.clear()
            self._publish(followed)
        self._count(log)
        self._forgot_at = forgets[-1].logged_at if forgets else self._forgot_at
        self.mark_unread()

    def _count(self, log: Sequence[LogRow]) -> None:
        for row in log:
            self._n_learnt += row.n_rows
            if row.kind == "refit":
                self._n_at_refit = self._n_learnt

    def _fold(self, log: Sequence[LogRow]) -> None:
        if not log:
            return
        self._count(log)
        refits = [position for position, row in enumerate(log) if row.kind == "refit"]
        if refits:
            log = log[refits[-1] :]
            self._model.reread_features()
        self._model.reload()
        if not refits:  # else the fit brings state and contents together
            self.republish()
        for row in log:
            if row.kind == "refit":
                state, _ = self._fitted(row.step, row.parameters)
                self._touched.update(self._model.roster.arm)
                self.mark_unread()
                with double_precision():
                    self._step = row.step
                    self._publish(state)
            elif row.kind == "batch":
                rows = self._store.learning.rows_of_batch(self._model_id, row.step)
                with double_precision():
                    change, _ = self._learnt(tallied(rows))
                    self._note(rows)
                    self._step = row.step
                    self._apply(change)
            else:
                with double_precision():
                    self._step = row.step
                    self._publish(self._kept_up(row.kind, row.parameters, row.logged_at))

    def ensure_lease(self, *, force: bool = False) -> bool:
        """Return whether this process may learn; takes the lease when nobody holds it.

        Args:
            force: Take it from another process too.
        """
        if self.lease is None:
            self.lease = self._store.leases.acquire(self._model_id, self._owner, force=force)
            if self.lease is not None:
                self.catch_up()
                self._model.reread_settings()
                if self._model.is_refit_due():
                    self.refit()
        return self.lease is not None

    def renew(self) -> None:
        """Hold the lease longer; called every two seconds."""
        lease = self.lease
        if lease is not None and not self._store.leases.renew(self._model_id, lease) and self.lease == lease:
            self._lose_lease()

    def _lose_lease(self) -> None:
        self._has_lost_lease = True
        self.lease = None

    def learn(self) -> int:
        """Learn one batch of settled decisions.

        Returns:
            How many; 0 when none was waiting or another process learns.
        """
        if not self.ensure_lease():
            return 0
        if self._model.is_refit_due() and not self.refit():
            return 0
        if not self._keep_up():
            return 0
        learnt = self._learn_batch()
        if self._upkeep.is_refit_due(self._n_learnt, self._n_at_refit):
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
        kept = self._upkeep.kept(self._clock(), self._forgot_at)
        if kept is not None and not self._do("forget", {"kept": kept}):
            return False
        if not self._upkeep.is_scales_due(self._step + 1):
            return True
        with double_precision():
            state = self.view.state
            arm_campaign = self._model.arm_campaign(len(state.arm_precision))
            scales = self._upkeep.learnt_scales(state, arm_campaign)
        return self._do("scales", scales)

    def _do(self, kind: StepKind, parameters: Mapping[str, float]) -> bool:
        with double_precision():
            state = jax.block_until_ready(self._kept_up(kind, parameters, self._clock()))
            if not self._write(state, kind, _told(state), (), (), None, parameters):
                return False
            self._publish(state)
        return True

    def _kept_up(self, kind: StepKind, parameters: Mapping[str, Any], at: datetime) -> State:
        """Return the posterior after a step that needs no data."""
        state = self.view.state
        if kind == "correction":  # it is for the refits after it
            return state
        arm_campaign = self._model.arm_campaign(len(state.arm_precision))
        if kind == "scales":
            return self._upkeep.rescaled(state, parameters, arm_campaign)
        self._forgot_at = at
        self.mark_unread()
        faded: State = fade(state, parameters["kept"], arm_campaign)
        return faded

    def _learn_batch(self) -> int:
        # One row more than is learnt says whether others wait: the last batch needs no read to find that out.
        most = batch_limit(self._n_learnt, self._n_in_batch) if self.has_more else BATCH
        waiting = self._store.learning.unlearnt(self._model_id, limit=most + 1)
        rows = leading_rows(waiting.first(most), BATCH)
        self.has_more, self._n_in_batch = len(waiting) > len(rows), len(rows)
        if not rows:
            return 0
        if not self._model.knows(rows):
            self._model.reload()
            self.republish()
        counted = tallied(rows)
        with double_precision():
            change, info = jax.block_until_ready(self._learnt(counted))
            self._note(rows)
            after = with_shared(self.view.state, change)
            told = {**_told(after, info), "clicks": sum(each.clicks for each in counted)}
            counts = count_contexts(
                [each.context for each in counted],
                self._model.schema,
                [int(each.impressions) for each in counted],
            )
            arms = self._arm_states(after, change) if self._is_snapshot_due else None
            if not self._write(after, "batch", told, tuple(rows.decision_ids), counts, arms):
                return 0
            self._apply(change)
        self._n_learnt += len(rows)
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
        parameters: dict[str, Any] = {"learns_scales": self._model.learns_scales}
        if features is not None:
            parameters["encoder"] = features.encoder.fingerprint
        rows = count_learnt(self._store, self._model, self._step)
        state, info = self._fit(rows, self._model.learns_scales, features and features.roster)
        self._touched = set(self._model.roster.arm)
        self.mark_unread()
        with double_precision():
            arms = self._arm_states(state)
            told = _told(state, info)
            if not self._write(state, "refit", told, (), (), arms, parameters, features):
                return False
            if features is not None:
                self._model.adopt(features)
            self._publish(state)
        self._n_at_refit = self._n_learnt
        self._model.mark_refit(is_due=False)
        return True

    def republish(self) -> None:
        """Let selection see the roster as it is now."""
        with double_precision():
            self._publish(self.view.state)

    def mark_unread(self, before: Roster | None = None) -> None:
        """Note campaigns of which what people read must be written anew.

        Args:
            before: The roster before a change; marks campaigns whose creatives differ. None marks all.
        """
        known = {} if before is None else before.campaigns
        self._unread |= {
            entry.record.campaign_id
            for name, entry in self._model.roster.campaigns.items()
            if name not in known or known[name].creatives != entry.creatives
        }

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
        if lease is None or not self._touched:
            return
        with double_precision():
            try:
                self._write_snapshot(lease)
            except LeaseLostError:
                self._lose_lease()

    def warm_up(self) -> Iterator[None]:
        """Compile, or load, the programs of learning; stop after each. A batch of padding changes nothing."""
        for size in ROWS:
            padded = partial(padded_size, sizes=(size,))
            nothing = pool([], self._model.schema, {}, self._model.roster.arm_campaign, padded)
            with double_precision():
                change, _ = learn_batch(self.view.state, self.view.tables, nothing)
                self._apply(jax.block_until_ready(change))
            yield
        with double_precision():
            state = self.view.state
            arm_campaign = self._model.arm_campaign(len(state.arm_precision))
            scales = self._upkeep.learnt_scales(state, arm_campaign)
            others = {**scales, "arm": 2 * scales["arm"]}  # another τ is another program
            jax.block_until_ready([self._upkeep.rescaled(state, s, arm_campaign) for s in (scales, others)])
        yield
        self._fit(pool([], self._model.schema, {}, self._model.roster.arm_campaign, room_to_fit), True)
        yield
        for n in (1, ROWS[0], 2 * ROWS[0]):
            with double_precision():
                jax.block_until_ready(arm_rows(self.view.state, np.zeros(room_for(n, ROWS[0]), np.int64)))
        yield from self._readouts.warm_up()

    def release(self) -> None:
        """Give the lease back."""
        if self.lease is not None:
            self._store.leases.release(self._model_id, self.lease)
            self.lease = None

    def refresh_statistics(self) -> None:
        """Write what people read of the campaigns that have learnt since it was last written."""
        began = time.monotonic()
        self._reads_out_at = began + READOUTS_EVERY_S
        if not self._unread:
            return
        entries = [e for e in self._model.roster.campaigns.values() if e.record.campaign_id in self._unread]
        readouts = [readout for entry in entries for readout in self._readouts.of(entry)]
        if readouts:
            self._store.learning.refresh_statistics(readouts, refreshed_at=self._clock())
        self._unread.clear()
        took = time.monotonic() - began
        self._reads_out_at = began + max(READOUTS_EVERY_S, READOUT_REST * took)

    def readouts(self, entry: CampaignEntry) -> list[ArmReadout]:
        """Return the posterior of a campaign's arms as people read it."""
        return self._readouts.of(entry)

    def _reread(self) -> tuple[Snapshot, ArmStates] | None:
        """Reread the model, and return the newest snapshot of its features; None when there is none."""
        for _ in range(SNAPSHOT_TRIES):
            stored = None if self._from_prior else self._stored_state()
            # After the snapshot, as its arms may be newer than what was read at the opening.
            self._model.reread_features()
            is_read = self._model.reload()
            if is_read and (stored is None or stored[0].step >= self._model.features_step):
                return stored
        return None

    def _stored_state(self, after_step: int = -1, ahead: int = 0) -> tuple[Snapshot, ArmStates] | None:
        """Return the newest snapshot with the arms as of the same step; None when there is none.

        Args:
            after_step: The arms are those that have changed after this step.
            ahead: More than so many steps after it the snapshot must be.
        """
        for _ in range(SNAPSHOT_TRIES):
            snapshot = self._store.learning.newest_snapshot(self._model_id, after_step=after_step + ahead)
            if snapshot is None:
                return None
            arms = self._store.learning.arm_states(self._model_id, after_step=after_step)
            if arms.steps is None or max(arms.steps, default=0) <= snapshot.step:
                return snapshot, arms
        return None

    def _prior(self) -> Prior:
        return weight_prior(self._model.scales)

    def _publish(self, state: State) -> None:
        n_arms, n_campaigns = self._model.capacity()
        if (n_arms, n_campaigns) != (len(state.arm_precision), len(state.campaign_precision)):
            state = grow(state, n_arms, n_campaigns)
        # Waited for here: nothing of a block in double precision may still run after it.
        state, tables = jax.block_until_ready((state, self._model.tables(n_arms, n_campaigns)))
        self.view = View(state, tables, self._model.roster, self._step, dict(self._model.activated), {})

    def _apply(self, change: Change) -> None:
        """Let the posterior in memory follow a step that is stored.

        Its buffers are reused: whoever reads a view's state does it in a block of double precision, and takes
        it from `view` there.
        """
        try:
            self._publish(apply_change(self.view.state, change))
        except BaseException:  # the old state is gone, and a new one may not be there
            self.resume()
            raise

    def _learnt(self, counted: Sequence[Counted]) -> tuple[Change, SiteInfo]:
        """Return what a batch changes, and how learning it went."""
        roster = self._model.roster
        capacity = len(self.view.state.arm_precision)
        if any(roster.arm[each.creative_id] >= capacity for each in counted):
            self.republish()
        size = partial(padded_size, sizes=ROWS)
        data = pool(counted, self._model.schema, roster.arm, roster.arm_campaign, size)
        learnt: tuple[Change, SiteInfo] = learn_batch(self.view.state, self.view.tables, data)
        return learnt

    def _fitted(self, step: int, parameters: Mapping[str, Any]) -> tuple[State, RefitInfo]:
        """Return the posterior fitted to all that was learnt up to a step, and to the history."""
        return self._fit(
            count_learnt(self._store, self._model, step), bool(parameters.get("learns_scales", False))
        )

    def _fit(
        self, rows: CountedRows, learns_scales: bool, roster: Roster | None = None
    ) -> tuple[State, RefitInfo]:
        n_arms, n_campaigns = self._model.capacity()
        with double_precision():
            tables = self._model.tables(n_arms, n_campaigns, roster)
            prior, tables = jax.block_until_ready((self._prior(), tables))
        arm_campaign = self._model.arm_campaign(n_arms)
        return fit_counts(prior, tables, rows, arm_campaign, n_campaigns, learns_scales)

    def _note(self, rows: LearnRows) -> None:
        self._touched.update(rows.creative_ids)
        self._unread.update(rows.campaign_ids)

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
    ) -> bool:
        """Write a step, and a snapshot when arms are given.

        Returns:
            False, with the posterior reread, when another process learns now.
        """
        lease = self.lease
        if lease is None:  # the renewing thread has just found it lost
            self.resume()
            return False
        if not np.isfinite(state.weights).all():
            raise PosteriorError(
                f"learning step {self._step + 1} ({kind}) would make the posterior infinite or NaN; nothing "
                "was written. Run `creative-bandit storage check`, and report this with its output"
            )
        record = StepRecord(
            model_id=self._model_id,
            lease=lease,
            step=self._step + 1,
            kind=kind,
            parameters=parameters or {},
            info=info,
            logged_at=self._clock(),
            decision_ids=decision_ids,
            context_counts=tuple(counts),
            arm_states=arms,
            snapshot=None if arms is None else snapshot_to_bytes(state),
            features=features and new_features(features, self._step + 1),
        )
        try:
            self._store.learning.write_step(record)
        except LeaseLostError:
            self.lease = None
            self.resume()
            return False
        except StepConflictError:
            self.resume()
            return False
        self._step += 1
        if arms is not None:
            self._saved()
        return True

    def _write_snapshot(self, lease: int) -> None:
        state = self.view.state
        self._store.learning.write_snapshot(
            self._model_id,
            lease=lease,
            step=self._step,
            state=snapshot_to_bytes(state),
            arm_states=self._arm_states(state),
            created_at=self._clock(),
        )
        self._saved()

    def _saved(self) -> None:
        self._touched.clear()
        self._saved_at = time.monotonic()

    def _arm_states(self, state: State, change: Change | None = None) -> ArmStates:
        """Return the states of the arms touched since the last snapshot, as a change will leave them."""
        ids = np.array(sorted(self._touched), np.int64)
        arms = np.array([self._model.roster.arm[creative_id] for creative_id in ids], np.int64)
        padding = room_for(len(arms), ROWS[0]) - len(arms)
        columns = [np.array(column)[: len(arms)] for column in arm_rows(state, np.pad(arms, (0, padding)))]
        if change is not None:
            changed = np.asarray(change.arms)  # in order
            place = np.minimum(np.searchsorted(changed, arms), len(changed) - 1)
            is_changed = changed[place] == arms
            new = (change.rows.arm_cross, change.rows.arm_precision, change.rows.arm_information)
            for column, values in zip(columns, new, strict=True):
                column[is_changed] = np.asarray(values)[place[is_changed]]
        columns[1] -= float(state.prior.arm_scale) ** -2
        return ArmStates(ids, *columns)


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


def _told(state: State, info: SiteInfo | RefitInfo | None = None) -> dict[str, Any]:
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
