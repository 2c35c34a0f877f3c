"""The posterior in memory: the fold over the log of learning steps, as far as it was read.

It is read from a snapshot and the steps after it, or from the log alone, and follows what other processes
learn. Who learns here computes a step from it, stores the step, and lets it follow: so it never knows more
than SQL does.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import jax
import numpy as np

from bandit.jax_runtime import double_precision
from bandit.learning.aggregation import BinomialCount, aggregate, count_distinct, count_learnt, room_to_fit
from bandit.learning.kernels import CountedRows, apply_change, arm_rows, fade, learn_batch
from bandit.learning.refit import fit_counts
from bandit.learning.schedule import MaintenanceSchedule, decay_since, fixed_scales
from bandit.learning.snapshots import all_arms, forgets_of, restored, steps_to_fold
from bandit.learning.view import PosteriorView
from bandit.model.catalog import Catalog
from bandit.model.device_tables import capacity_for, padded_campaigns
from bandit.model.model import Model
from bandit.padding import padded_size, room_for
from bandit.posterior import Change, RefitInfo, SiteInfo, State, grow, initial_state
from storage import ArmStates, LearnRows, LogRow, Snapshot, Store
from storage.learning_records import StepKind

BATCH = 256  # decisions a step learns at most, and rows of counts if more of a backlog are learnt at once
ROWS = (8, 32, 64, 128, BATCH)
SNAPSHOT_TRIES = 5  # a snapshot is read in two steps; a learner elsewhere may write the next one between them


class PosteriorReplica:
    """One model's posterior, as it follows from the log. Not thread-safe.

    Args:
        store: The database.
        model: Campaigns, contents and contexts.
        schedule: Does the steps that need no data.
        from_prior: Whether to begin at the prior and fold the whole log, whatever snapshots there are.

    Attributes:
        view: The posterior as selection sees it.
        step: The learning step at which it stands.
        n_learnt: Decisions learnt by then.
        n_at_refit: Of these, those that the newest refit saw.
        forgot_at: When the last step of forgetting was logged.
        touched: Creatives that have learnt since the newest snapshot that is known here.
        unread: Campaigns of which what people read must be written anew.
    """

    def __init__(
        self, store: Store, model: Model, schedule: MaintenanceSchedule, *, from_prior: bool = False
    ) -> None:
        self._store = store
        self._model = model
        self._model_id = model.record.model_id
        self._schedule = schedule
        self._from_prior = from_prior
        self._is_distrusted = False
        self.step = self.n_learnt = self.n_at_refit = 0
        self.forgot_at: datetime | None = None
        self.touched: set[int] = set()
        self.unread: set[int] = set()
        self.resume()

    def resume(self) -> None:
        """Read the posterior from the newest snapshot and fold what the log has since."""
        stored = self._reread()
        with double_precision():
            n_arms, n_campaigns = capacity_for(self._model.catalog)
            self.forgot_at = None
            if stored is None:
                state = initial_state(self._schedule.prior(), n_arms, n_campaigns)
            else:
                snapshot, arms = stored
                index = np.array([self._model.catalog.arm[int(i)] for i in arms.creative_ids], np.int64)
                arm_campaign = padded_campaigns(self._model.catalog, n_arms)
                forgets = self._store.learning.forgets(self._model_id, up_to_step=snapshot.step)
                self.forgot_at = forgets[-1].logged_at if forgets else None
                decay = decay_since(arms, forgets)
                state = restored(snapshot.state, arms, index, decay, arm_campaign, n_campaigns)
            self.step = 0 if stored is None else stored[0].step
            self.touched.clear()
            self.publish(state)
        self.n_learnt, self.n_at_refit = self._store.learning.learnt_decisions(
            self._model_id, up_to_step=self.step
        )
        self.catch_up()

    def catch_up(self) -> None:
        """Learn what only the log knows: its own steps after a failure, or those of another process."""
        latest = self._store.learning.latest_step(self._model_id)
        # Not built upon: what was learnt under a lost lease, and what a server lost when it crashed.
        if self._is_distrusted or latest < self.step:
            self._is_distrusted = False
            self.resume()
        elif latest > self.step:
            log = self._store.learning.log(self._model_id, after_step=self.step)
            stored = None
            if not self._from_prior:
                stored = self._stored_state(after_step=self.step, ahead=steps_to_fold(log))
            if stored is not None:
                # The snapshot may be newer than the log was.
                log = self._store.learning.log(self._model_id, after_step=self.step)
                self._take_over(*stored, [row for row in log if row.step <= stored[0].step])
                log = [row for row in log if row.step > self.step]
            self._follow(log)

    def distrust(self) -> None:
        """Read the posterior anew at the next `catch_up`: what was learnt here was not stored."""
        self._is_distrusted = True

    def republish(self) -> None:
        """Let selection see the catalog as it is now."""
        with double_precision():
            self.publish(self.view.state)

    def mark_unread(self, before: Catalog | None = None) -> None:
        """Note campaigns of which what people read must be written anew.

        Args:
            before: The catalog before a change; marks campaigns whose creatives differ. None marks all.
        """
        known = {} if before is None else before.campaigns
        self.unread |= {
            entry.record.campaign_id
            for name, entry in self._model.catalog.campaigns.items()
            if name not in known or known[name].creatives != entry.creatives
        }

    def learnt(self, counted: Sequence[BinomialCount]) -> tuple[Change, SiteInfo]:
        """Return what a batch changes, and how learning it went; called in double precision."""
        catalog = self._model.catalog
        capacity = len(self.view.state.arm_precision)
        if any(catalog.arm[each.creative_id] >= capacity for each in counted):
            self.republish()
        size = partial(padded_size, sizes=ROWS)
        data = aggregate(counted, self._model.schema, catalog.arm, catalog.arm_campaign, size)
        learnt: tuple[Change, SiteInfo] = learn_batch(self.view.state, self.view.tables, data)
        return learnt

    def apply(self, change: Change, step: int) -> None:
        """Let the posterior in memory follow a batch that is stored as a step; called in double precision.

        Its buffers are reused: whoever reads a view's state does it in a block of double precision, and takes
        it from `view` there.
        """
        try:
            self.step = step
            self.publish(apply_change(self.view.state, change))
        except BaseException:  # the old state is gone, and a new one may not be there
            self.resume()
            raise

    def take(self, state: State, step: int, kind: StepKind, at: datetime) -> None:
        """Let the posterior in memory be what a stored step that is no batch made it; as `apply`.

        Args:
            state: The posterior after it.
            step: Its number.
            kind: Its kind.
            at: When it was logged.
        """
        try:
            self.step = step
            if kind == "forget":
                self.forgot_at = at
            if kind in ("forget", "refit"):
                self.mark_unread()
            self.publish(state)
        except BaseException:  # or later steps would build on what is not the log's
            self.resume()
            raise

    def maintained(self, kind: StepKind, parameters: Mapping[str, Any]) -> State:
        """Return the posterior after a step that needs no data; called in double precision."""
        state = self.view.state
        if kind == "correction":  # it is for the refits after it
            return state
        arm_campaign = padded_campaigns(self._model.catalog, len(state.arm_precision))
        if kind == "scales":
            return self._schedule.rescaled(state, parameters, arm_campaign)
        faded: State = fade(state, parameters["kept"], arm_campaign)
        return faded

    def fit(
        self,
        rows: CountedRows,
        scales: Mapping[str, float] | None = None,
        catalog: Catalog | None = None,
    ) -> tuple[State, RefitInfo]:
        """Return the posterior fitted to counts, and how the search went; called outside double precision.

        Args:
            rows: All counts.
            scales: The prior's scales, by name, where they are not to be learnt from the counts; those that
                are not named are the initial ones.
            catalog: With other contents than those in use; None for these.
        """
        n_arms, n_campaigns = capacity_for(self._model.catalog)
        with double_precision():
            tables = self._model.tables.of(catalog or self._model.catalog, n_arms, n_campaigns)
            prior, tables = jax.block_until_ready((self._schedule.prior(scales), tables))
        arm_campaign = padded_campaigns(self._model.catalog, n_arms)
        return fit_counts(prior, tables, rows, arm_campaign, n_campaigns, scales is None)

    def publish(self, state: State) -> None:
        """Let selection see a posterior, with the catalog as it is now; called in double precision."""
        n_arms, n_campaigns = capacity_for(self._model.catalog)
        if (n_arms, n_campaigns) != (len(state.arm_precision), len(state.campaign_precision)):
            state = grow(state, n_arms, n_campaigns)
        # Waited for here: nothing of a block in double precision may still run after it.
        state, tables = jax.block_until_ready(
            (state, self._model.tables.of(self._model.catalog, n_arms, n_campaigns))
        )
        self.view = PosteriorView(
            state, tables, self._model.catalog, self.step, self._model.impressions.by_campaign(), {}
        )

    def note(self, rows: LearnRows) -> None:
        """Note whose state, and what people read, some decisions change."""
        self.touched.update(rows.creative_ids)
        self.unread.update(rows.campaign_ids)

    def warm_up(self) -> Iterator[None]:
        """Compile, or load, the programs of learning; stop after each. A batch of padding changes nothing."""
        for size in ROWS:
            padded = partial(padded_size, sizes=(size,))
            with double_precision():
                change, _ = learn_batch(self.view.state, self.view.tables, self._nothing(padded))
                self.apply(jax.block_until_ready(change), self.step)
            yield
        with double_precision():
            state = self.view.state
            arm_campaign = padded_campaigns(self._model.catalog, len(state.arm_precision))
            scales = self._schedule.learnt_scales(state, arm_campaign)
            others = {**scales, "arm": 2 * scales["arm"]}  # another τ is another program
            jax.block_until_ready([self._schedule.rescaled(state, s, arm_campaign) for s in (scales, others)])
        yield
        self.fit(self._nothing(room_to_fit))
        yield
        for n in (1, ROWS[0], 2 * ROWS[0]):
            with double_precision():
                arms = np.zeros(room_for(n, ROWS[0]), np.int64)
                jax.block_until_ready(arm_rows(self.view.state, arms))

    def _nothing(self, padded: Callable[[int], int]) -> CountedRows:
        return aggregate([], self._model.schema, {}, self._model.catalog.arm_campaign, padded)

    def arm_states(self, state: State, change: Change | None = None) -> ArmStates:
        """Return the states of the arms touched since the last snapshot, as a change will leave them.

        Called in double precision.
        """
        ids = np.array(sorted(self.touched), np.int64)
        arms = np.array([self._model.catalog.arm[creative_id] for creative_id in ids], np.int64)
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
            n_arms, n_campaigns = capacity_for(self._model.catalog)
            state = self.view.state
            if n_arms > len(state.arm_precision):
                state = grow(state, n_arms, n_campaigns)
            index = np.array([self._model.catalog.arm[int(i)] for i in arms.creative_ids], np.int64)
            everything, decay = all_arms(state, arms, index, forgets)
            arm_campaign = padded_campaigns(self._model.catalog, n_arms)
            followed = restored(
                snapshot.state, everything, everything.creative_ids, decay, arm_campaign, n_campaigns
            )
            self.step = snapshot.step
            self.touched.clear()
            self.publish(followed)
        self._count(log)
        self.mark_unread()

    def _count(self, log: Sequence[LogRow]) -> None:
        """Take from the log what a refit or a snapshot after its rows does not tell."""
        for row in log:
            self.n_learnt += row.n_rows
            if row.kind == "refit":
                self.n_at_refit = self.n_learnt
            elif row.kind == "forget":
                self.forgot_at = row.logged_at

    def _follow(self, log: Sequence[LogRow]) -> None:
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
                counts = count_learnt(self._store, self._model, row.step)
                state, _ = self.fit(counts, fixed_scales(row.parameters))
                self.touched.update(self._model.catalog.arm)
                with double_precision():
                    self.take(state, row.step, row.kind, row.logged_at)
            elif row.kind == "batch":
                rows = self._store.learning.rows_of_batch(self._model_id, row.step)
                with double_precision():
                    change, _ = self.learnt(count_distinct(rows))
                    self.note(rows)
                    self.apply(change, row.step)
            else:
                with double_precision():
                    state = self.maintained(row.kind, row.parameters)
                    self.take(state, row.step, row.kind, row.logged_at)

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
