"""`Engine`: the one place where posterior, storage and encoder meet."""

import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, cast, final, overload

from bandit.errors import (
    EngineClosedError,
    ForkedEngineError,
    HistoryError,
    InvalidSettingError,
    LearnerElsewhereError,
)
from bandit.explanation import explain, read_words, text_direction
from bandit.features.context_policy import Policy, allowed, rows_without_private
from bandit.jax_runtime import YIELD_S, keep_compiled_programs
from bandit.learning.arm_summaries import arm_report
from bandit.learning.learner import Learner
from bandit.learning.settlement import Settling
from bandit.learning.workers import Background
from bandit.model.catalog import CampaignEntry
from bandit.model.content import texts_of
from bandit.model.embeddings import LazyEncoder
from bandit.model.model import Model
from bandit.serving.selector import Selector
from bandit.types import (
    ArmReport,
    Creative,
    Decision,
    Explanation,
    HistoryRow,
    Imported,
    Outcome,
    Request,
    Settled,
    Swapped,
)
from bandit.validation import NonClickMonitor, check_campaign, reports_of
from bandit.warm_start.database import database_identity, read_database
from bandit.warm_start.importer import History, check_history, check_import_id, import_history, new_creative
from encoders import Encoder
from storage import (
    CreativeRecord,
    DecisionRecord,
    DuplicateCreativeError,
    Durability,
    OutcomeRecord,
    Store,
    UnknownCreativeError,
    UnknownDecisionError,
)
from storage.records import CampaignStatus, CreativeStatus

Horizon = int | Literal["auto"] | None
Role = Literal["both", "select", "learn"]
Learn = Literal["background", "inline", "manual"]


def utc_now() -> datetime:
    """Return the time, aware, in UTC."""
    return datetime.now(UTC)


@final
class Engine:
    """Chooses creatives, learns from outcomes, and keeps all of it in SQL.

    Open it with `Engine.open`; it is thread-safe, and a context manager that closes it.

    Example:
        >>> with Engine.open("ads.db") as engine:                           # doctest: +SKIP
        ...     decision = engine.select("spring-sale", {"device": "mobile"})
        ...     engine.update(decision.id, click=True)
    """

    def __init__(
        self,
        store: Store,
        *,
        role: Role,
        learn: Learn,
        clock: Callable[[], datetime],
        model: Model,
        durability: Durability = "normal",
    ) -> None:
        self._store = store
        self._clock = clock
        self._model = model
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._is_closed = False
        self._may_learn = role != "select"
        self._learn_mode = learn
        self._non_clicks = NonClickMonitor()
        self._learner = Learner(store, model, clock, owner=f"{socket.gethostname()}, pid {self._pid}")
        self._selector = Selector(
            store,
            model,
            self._learner,
            self._lock,
            clock,
            is_relaxed=durability == "relaxed",
            is_following=learn != "background",
        )
        self._settling = Settling(store, self._learner, self._lock, clock, may_learn=self._may_learn)
        if self._may_learn:
            self._learner.ensure_lease()
        is_background = learn == "background"
        self._background = Background(
            follow=self._selector.catch_up if is_background else None,
            wait_for_notification=self._wait_for_notification
            if is_background and store.notices.are_given
            else None,
            learn=self._settling.settle_and_learn if is_background and self._may_learn else None,
            renew=self._renew,
            begin=self.warm_up if is_background and model.catalog.campaigns else None,
        )
        self._background.start()

    @classmethod
    def open(
        cls,
        url: str | os.PathLike[str],
        *,
        role: Role = "both",
        learn: Learn = "background",
        clock: Callable[[], datetime] = utc_now,
        seed: int = 0,
        encoder: Encoder | str | Path | None = None,
        durability: Durability = "normal",
    ) -> Self:
        """Open a database, or make it, and resume from what it holds.

        Args:
            url: A path of an SQLite file, or a URL (`sqlite:///ads.db`, `postgresql://user@host/database`).
            role: "both" selects and learns, "select" only selects, "learn" only learns; of several processes
                one learns at a time, the others take over when it ends.
            learn: "background": threads learn, and follow other processes, within a second, and no request
                waits for it; "inline": inside `update`; "manual": only in `settle`. With the last two the
                calls themselves look, once a second, for what other processes have changed.
            clock: Gives the time, aware.
            seed: Seed of a new database's draws; an old one keeps its own.
            encoder: An encoder, a checkpoint's folder or hub id; None is the default one. It is loaded when
                a text comes that the database has no vector of.
            durability: What answers survive. "normal": a killed process; on PostgreSQL also a crash of the
                server. "full": a power cut too, at the price of one flush of the disk a group of calls.
                "relaxed": decisions whose ids are ours are answered before their commit, which comes some
                milliseconds later; a killed process loses those that wait, at most 8,192 or those of one
                call that has more, and never what `update` has answered: reports wait for its commit.

        Returns:
            The engine.

        Raises:
            StorageError: The database cannot be opened; the message says what to do.
            ValueError: A role, a mode or a durability that there is not.
        """
        if role not in ("both", "select", "learn"):
            raise ValueError(f"expected role to be 'both', 'select' or 'learn', got {role!r}")
        if learn not in ("background", "inline", "manual"):
            raise ValueError(f"expected learn to be 'background', 'inline' or 'manual', got {learn!r}")
        if durability not in ("normal", "full", "relaxed"):
            raise ValueError(f"expected durability to be 'normal', 'full' or 'relaxed', got {durability!r}")
        keep_compiled_programs()
        store = Store.open(url, durability=durability)
        try:
            model = Model(store, clock, seed, encoder)
            return cls(store, role=role, learn=learn, clock=clock, model=model, durability=durability)
        except BaseException:
            store.close()
            raise

    def warm_up(self) -> None:
        """Compile, or load, the programs for the campaigns that are there, so that no request waits for it.

        With `learn="background"` a thread does it at the opening. Call it after adding the first campaigns,
        or with other modes; selecting and learning go on meanwhile.
        """
        self._check_open()
        for _ in self._selector.warm_up():
            if self._background.is_stopping:
                return
            time.sleep(YIELD_S)
        programs = self._learner.warm_up() if self._may_learn else iter(())
        while not self._background.is_stopping:
            with self._lock:
                if next(programs, self) is self:
                    return
            time.sleep(YIELD_S)

    # Campaigns and creatives

    def add_campaign(
        self,
        name: str,
        *,
        horizon: Horizon = "auto",
        attribution_window: float | timedelta = timedelta(minutes=30),
        conversion_window: float | timedelta = timedelta(days=7),
        uniform_share: float = 0.01,
        control_share: float = 0.0,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
    ) -> None:
        """Add a campaign.

        Args:
            name: Its name, unique in the database.
            horizon: Impressions it expects in all; "auto" estimates it from its traffic, None is endless.
            attribution_window: How long silence is no answer, in seconds; 0 when every outcome is reported,
                clicks and non-clicks.
            conversion_window: How long conversions count, in seconds.
            uniform_share: Fraction of traffic that all creatives share alike, above 0 for off-policy
                evaluation.
            control_share: Fraction of traffic whose creative is drawn from all alike and logged as control,
                to compare the engine with; at most 1 together with uniform_share.
            starts_at: Its start, aware.
            ends_at: Its end, aware.

        Raises:
            DuplicateCampaignError: The name is taken.
            InvalidCampaignError: A value is out of its range; names it.
        """
        self._check_open()
        windows = {
            "attribution_window": _seconds(attribution_window),
            "conversion_window": _seconds(conversion_window),
        }
        shares = {"uniform_share": uniform_share, "control_share": control_share}
        check_campaign(name, horizon, windows, shares, starts_at, ends_at)
        with self._lock:
            self._store.campaigns.add(
                self._model.record.model_id,
                name,
                horizon=horizon,
                attribution_window_s=windows["attribution_window"],
                conversion_window_s=windows["conversion_window"],
                uniform_share=uniform_share,
                control_share=control_share,
                starts_at=starts_at,
                ends_at=ends_at,
                created_at=self._clock(),
            )
            self._selector.reload()

    def add_creatives(self, campaign: str, creatives: Iterable[Creative]) -> None:
        """Add creatives to a campaign, all or none; their texts are encoded now.

        Raises:
            UnknownCampaignError: No campaign has this name.
            DuplicateCreativeError: Names every id that is taken or given twice.
            InvalidLimitsError: The campaign could not keep the floors and caps of all its active creatives.
            MissingEncoderError: There is no encoder; says how to get it.
            EncoderChangedError: A text is new, and the encoder is not the database's.
            EncoderSwappedError: The encoder was swapped while the texts were encoded; nothing was added.
        """
        self._check_open()
        added = list(creatives)
        record = self._store.campaigns.get(campaign)
        ids = Counter(creative.id for creative in added)
        taken = {creative.external_id for creative in self._store.campaigns.creatives(campaign)}
        if twice := sorted(i for i, n in ids.items() if n > 1 or i in taken):
            raise DuplicateCreativeError(
                f"campaign {campaign!r}: creatives given twice or there already: {', '.join(twice)}; "
                "nothing was added"
            )
        # Without the lock: encoding may take long, and selection must not wait for it.
        encoder = self._model.prepare_texts([creative.texts for creative in added])
        with self._lock:
            self._store.campaigns.add_creatives(
                record.campaign_id,
                [new_creative(creative) for creative in added],
                created_at=self._clock(),
                encoder_fingerprint=encoder,
            )
            self._selector.reload()

    def set_traffic(
        self, campaign: str, creative_id: str, *, floor: float | None = None, cap: float | None = None
    ) -> None:
        """Set the least and the most of a campaign's traffic that a creative is to get.

        Args:
            campaign: The campaign's name.
            creative_id: One of its creatives.
            floor: A fraction; None leaves it as it is.
            cap: A fraction, likewise.

        Raises:
            UnknownCampaignError: No campaign has this name.
            UnknownCreativeError: The campaign has no such creative.
            InvalidLimitsError: They are no fractions, or those of the active creatives cannot all be kept.
        """
        self._check_open()
        with self._lock:
            self._store.campaigns.set_limits(campaign, creative_id, floor=floor, cap=cap)
            self._selector.reload()

    def pause(self, campaign: str, creative_id: str | None = None) -> None:
        """Stop showing a creative, or a whole campaign, for now.

        Raises:
            UnknownCampaignError: No campaign has this name.
            UnknownCreativeError: The campaign has no such creative.
        """
        self._set_status(campaign, creative_id, "paused")

    def resume(self, campaign: str, creative_id: str | None = None) -> None:
        """Show a paused creative, or campaign, again.

        Raises:
            InvalidLimitsError: With the creative the campaign's floors and caps could not all be kept.
        """
        self._set_status(campaign, creative_id, "active")

    def retire(self, campaign: str, creative_id: str | None = None) -> None:
        """Stop showing a creative for good; without one, end the campaign. Late outcomes still count."""
        self._set_status(campaign, creative_id, "ended" if creative_id is None else "retired")

    # Decisions

    @overload
    def select(
        self,
        campaign: str,
        context: Mapping[str, str | float | bool] | None = None,
        *,
        decision_id: str | None = None,
        eligible: Iterable[str] | None = None,
        exclude: Iterable[str] = (),
        request_id: str | None = None,
        defer_activation: bool = False,
        k: None = None,
    ) -> Decision: ...

    @overload
    def select(
        self,
        campaign: str,
        context: Mapping[str, str | float | bool] | None = None,
        *,
        decision_id: str | None = None,
        eligible: Iterable[str] | None = None,
        exclude: Iterable[str] = (),
        request_id: str | None = None,
        defer_activation: bool = False,
        k: int,
    ) -> list[Decision]: ...

    def select(
        self,
        campaign: str,
        context: Mapping[str, str | float | bool] | None = None,
        *,
        decision_id: str | None = None,
        eligible: Iterable[str] | None = None,
        exclude: Iterable[str] = (),
        request_id: str | None = None,
        defer_activation: bool = False,
        k: int | None = None,
    ) -> Decision | list[Decision]:
        """Choose a creative for one impression, or several in order; they are stored when this returns.

        Args:
            campaign: The campaign's name.
            context: What is known of the request: names to strings, numbers or booleans.
            decision_id: The caller's id; the same id again returns the first decision. None makes one.
            eligible: Ids of creatives that may be shown; None means all active ones.
            exclude: Ids of creatives that may not be shown.
            request_id: What the decisions of one page view share; logged.
            defer_activation: Whether `activate` will say later that it was really shown.
            k: How many distinct creatives, in order: each place is chosen from those that are left, and is
                a decision with an id of its own; fewer when there are fewer candidates. None for one
                decision that is no list.

        Returns:
            The decision; with k a list, best place first.

        Raises:
            UnknownCampaignError: No campaign has this name.
            CampaignInactiveError: It is paused or has ended.
            NoCandidatesError: No creative may be shown.
            UnknownCreativeError: `eligible` or `exclude` names one that the campaign has not.
            ContextError: The context cannot be used.
            DecisionConflictError: The id was given to another request.
            InvalidListError: k is not 1 to 64, or an id leaves no room for the places' numbers.
            InvalidIdError: The id is not 1 to 64 printable ASCII characters.
        """
        request = Request(
            campaign=campaign,
            context={} if context is None else context,
            decision_id=decision_id,
            eligible=None if eligible is None else frozenset(eligible),
            exclude=frozenset(exclude),
            request_id=request_id,
            defer_activation=defer_activation,
            k=k,
        )
        if k is not None:
            self._check_open()
            return self._selector.select_list(request)
        return self.select_many([request])[0]

    def select_many(self, requests: Sequence[Request]) -> list[Decision]:
        """Choose for many impressions with one posterior and one transaction.

        Args:
            requests: Of any campaigns; none influences another.

        Returns:
            Decisions, in the order given.

        Raises:
            As `select`; nothing is stored then.
        """
        self._check_open()
        return self._selector.select(list(requests))

    def activate(self, *decision_ids: str) -> None:
        """Say that decisions made with `defer_activation` were really shown.

        Raises:
            UnknownDecisionError: Names every unknown id; nothing was changed.
        """
        self._check_open()
        self._store.decisions.activate(decision_ids, now=self._clock())

    # Outcomes and learning

    def update(
        self,
        decision_id: str,
        *,
        click: bool | None = None,
        conversion: bool | None = None,
        value: float = 1.0,
        key: str = "",
        occurred_at: datetime | None = None,
        final: bool = False,
        valid: bool = True,
    ) -> OutcomeRecord:
        """Report what happened after a decision; it is stored when this returns.

        Args:
            decision_id: The decision.
            click: Whether it was clicked.
            conversion: Whether it converted.
            value: What the conversion was worth.
            key: Tells several conversions of one decision apart, such as an order number.
            occurred_at: When it happened, aware; None means now.
            final: No further report of a click will come; it is learnt when its window ends.
            valid: False takes back a click, or the conversion of this key, that was reported and is found
                invalid: it counts no more at once, and the posterior follows at a refit, which becomes due.

        Returns:
            What became of the report: recorded, repeated (it was there, nothing changed) or late (kept, not
            learnt, as its window is over).

        Raises:
            UnknownDecisionError: No decision has this id.
            UnknownOutcomeError: What is to be taken back was never reported.
            InvalidOutcomeError: The report says nothing, or something impossible.
        """
        outcome = Outcome(
            decision_id=decision_id,
            click=click,
            conversion=conversion,
            value=value,
            key=key,
            occurred_at=occurred_at,
            final=final,
            valid=valid,
        )
        return self.update_many([outcome])[0]

    def update_many(self, outcomes: Sequence[Outcome]) -> list[OutcomeRecord]:
        """Report many outcomes in one transaction, all or none.

        Args:
            outcomes: Of any decisions.

        Returns:
            What became of each, in the order given; of a report of both a click and a conversion, what became
            of the click.

        Raises:
            As `update`; nothing is stored then.
        """
        self._check_open()
        now = self._clock()
        reports = [reports_of(outcome, now) for outcome in outcomes]
        flat = [report for several in reports for report in several]
        records = iter(self._store.outcomes.record(flat, received_at=now))
        results = [[next(records) for _ in several] for several in reports]
        first = [several[0] for several in results]
        self._non_clicks.watch(outcomes, first)
        if self._learn_mode == "inline" and self._may_learn:
            self._selector.follow()
            self._settling.settle_and_learn()
        else:
            self._background.wake()
        return first

    def settle(self, *, at_most_s: float | None = None) -> Settled:
        """Settle what is due and learn it; the only place that learns with `learn="manual"`.

        Args:
            at_most_s: Begin no further step after so many seconds; what is left is for the next call. None
                ends when nothing waits.

        Returns:
            How many decisions were settled by the clock, and how many were learnt. None are learnt while
            another process is the learner.
        """
        self._check_open()
        self._selector.follow()
        return self._settling.settle_and_learn(at_most_s)

    @property
    def is_learner(self) -> bool:
        """Whether this process learns the model now."""
        return self._learner.lease is not None

    @property
    def learner(self) -> str | None:
        """Who learns the model now, such as "ads-1, pid 4711"; None when nobody does."""
        self._check_open()
        return self._store.leases.owner(self._model.record.model_id)

    def arms(self, campaign: str) -> list[ArmReport]:
        """Return the arms of a campaign with their statistics, as `arm_report` shows them in SQL.

        Returns:
            One report per creative, in the order in which they were added.

        Raises:
            UnknownCampaignError: No campaign has this name.
        """
        self._check_open()
        self._selector.follow()
        with self._lock:
            entry = self._selector.entry(campaign)
            now = self._clock()
            summaries = self._learner.summaries(entry)
            self._store.learning.refresh_statistics(summaries, refreshed_at=now)
            rows = self._store.learning.arm_rows(entry.record.campaign_id, now=now)
        return [arm_report(row) for row in rows]

    @overload
    def explain(
        self,
        campaign: str,
        creative_id: str,
        context: Mapping[str, str | float | bool] | None = None,
        *,
        words: bool = False,
    ) -> Explanation: ...

    @overload
    def explain(self, *, decision_id: str, words: bool = False) -> Explanation: ...

    def explain(
        self,
        campaign: str | None = None,
        creative_id: str | None = None,
        context: Mapping[str, str | float | bool] | None = None,
        *,
        decision_id: str | None = None,
        words: bool = False,
    ) -> Explanation:
        """Explain the estimated click rate of a creative: which part of it comes from where.

        Args:
            campaign: The campaign's name.
            creative_id: One of its creatives, shown or not.
            context: A request's context; None is the average one.
            decision_id: A decision instead: the creative that it chose, in its context.
            words: Whether to say also what each word of its text carries; that needs the encoder itself, not
                only the vectors that the database has, and some seconds.

        Returns:
            The parts of the logit as the posterior stands now, each with its standard deviation, and a
            sentence; for a decision also how it was drawn.

        Raises:
            UnknownCampaignError: No campaign has this name.
            UnknownCreativeError: The campaign has no such creative.
            UnknownDecisionError: No decision has this id.
            ContextError: The context cannot be used.
            EncoderError: The words are asked for, and the encoder cannot be loaded or gives vectors alone.
            EncoderChangedError: Likewise, and it is not the one that made the database's vectors.
            TypeError: Neither a campaign and a creative are given nor a decision alone.
        """
        self._check_open()
        self._selector.follow()
        decision = None
        given: Mapping[str, object] = {}
        if decision_id is not None and (campaign, creative_id, context) == (None, None, None):
            decision = self._store.decisions.get([decision_id]).get(decision_id)
            if decision is None:
                raise UnknownDecisionError(
                    f"there is no decision {decision_id!r}; give an id that select returned"
                )
            given = decision.context
        elif campaign is None or creative_id is None or decision_id is not None:
            raise TypeError(
                "explain expects a campaign and a creative_id, or a decision_id alone; "
                f"got campaign={campaign!r}, creative_id={creative_id!r}, decision_id={decision_id!r}"
            )
        elif context is not None:
            given = allowed(context, self._model.record.settings)
            self._model.check_contexts([given])
        if words:
            self._model.load_encoder()  # not under the lock: others select meanwhile
        with self._lock:
            entry, creative = (
                self._decided(decision)
                if decision is not None
                else self._named(str(campaign), str(creative_id))
            )
            view, schema = self._learner.replica.view, self._model.schema
            explanation = explain(view, schema, entry, creative, given, decision)
            if not words:
                return explanation
            reading = self._model.reading(text_direction(view, schema, given, decision))
        return replace(explanation, wording=read_words(texts_of(creative), reading))

    def warm_start(self, history: Iterable[HistoryRow], *, import_id: str | None = None) -> Imported:
        """Make counts of creatives that ran before part of the prior; what is unknown is added.

        Args:
            history: Counts; those of one creative are added up, and to what was imported before.
            import_id: Names the import; the same again adds nothing, so that a retry is safe. None makes a
                name of the counts: give one to import equal counts once more.

        Returns:
            What was imported.

        Raises:
            HistoryError: Names every bad row; nothing was imported.
                Also when the counts are stored and the fit to them failed; the message says so.
            LearnerElsewhereError: Another process learns this model; nothing was imported.
        """
        if import_id is not None:
            check_import_id(import_id)
        return self._import(History(rows=list(history), import_id=import_id), "history")

    def warm_start_from(self, url: str | os.PathLike[str]) -> Imported:
        """Make what another database of ours has learnt part of the prior.

        Takes its campaigns and creatives with their settings, and the counts of its learnt decisions and of
        its own imported history, by context. Once: what it learns later is not taken again.

        Args:
            url: The other database: a path of an SQLite file, or a URL; it is only read.

        Returns:
            What was imported.

        Raises:
            HistoryError: Names what does not fit to what is here; nothing was imported. Also as `warm_start`.
            LearnerElsewhereError: Another process learns this model; nothing was imported.
            StorageError: The other database cannot be read.
        """
        self._check_open()
        history = read_database(url)
        if not history.rows:
            raise HistoryError(f"{url} has no creatives; nothing was imported")
        if history.import_id == database_identity(self._store, self._model.record.model_id):
            raise HistoryError(f"{url} is this database itself, or a copy of it; nothing was imported")
        return self._import(history, f"database {url}")

    def set_forgetting(self, half_life_days: float | None) -> None:
        """Let what clicks taught fade, for click rates that drift; from the next learning step on.

        Args:
            half_life_days: Days after which an outcome counts half of what it did; None never forgets. The
                prior, with its learnt scales, is not forgotten.

        Raises:
            InvalidSettingError: It is not above 0 and finite.
        """
        self._check_open()
        is_number = isinstance(half_life_days, int | float) and not isinstance(half_life_days, bool)
        if half_life_days is not None and not (is_number and 0 < half_life_days < math.inf):
            raise InvalidSettingError(
                f"expected half_life_days to be a number of days above 0, or None, got {half_life_days!r}"
            )
        since = None if half_life_days is None else self._clock().isoformat()
        with self._lock:
            self._model.change_settings(half_life_days=half_life_days, forgets_since=since)

    def set_context_policy(self, policy: Mapping[str, Policy]) -> None:
        """Say which context fields are hashed or dropped before anything of them is used or written.

        Args:
            policy: "keep" (the default), "hash" or "drop" by field; fields that are not named stay as they
                are. A hashed value is text that tells equal values, under a random secret of the database.
                Other processes follow within a second; what is stored already stays, see `creative-bandit
                storage prune --context-field`.

        Raises:
            InvalidSettingError: A field's name or policy cannot be, or a field to be hashed is known with
                values that are no text.
        """
        self._check_open()
        with self._lock:
            self._model.change_context_policy(policy)

    def set_scale_learning(self, is_on: bool) -> None:
        """Say whether the prior's scales are learnt (the default) or stay as they are now."""
        self._check_open()
        with self._lock:
            self._model.change_settings(learn_scales=bool(is_on))

    def refit(self) -> None:
        """Fit the posterior anew to all counts, imported history included.

        Raises:
            LearnerElsewhereError: Another process learns this model.
        """
        self._check_open()
        with self._lock:
            self._need_lease("refit")
            self._refit("refit")

    def swap_encoder(self, encoder: Encoder | str | Path | None) -> Swapped:
        """Turn the database to another encoder: features of all creatives, and the posterior fitted to them.

        Counts, decisions and reports stay as they are. The change is one transaction, for which this process
        becomes the learner. Other processes follow within a second, whatever encoder they were opened with:
        they go on choosing and learning by the vectors that are stored, and only refuse texts that are new.

        Args:
            encoder: As for `open`; from now on the database is to be opened with it. With the one that it has
                already its components are made anew.

        Returns:
            What was changed.

        Raises:
            EncoderError: It cannot be loaded; nothing was changed.
            ComponentsError: The components in its folder cannot be used; nothing was changed.
            LearnerElsewhereError: This engine was opened with role="select".
        """
        self._check_open()
        if not self._may_learn:
            raise LearnerElsewhereError(
                "swap_encoder needs an engine that may learn, this one was opened with role='select'; "
                "open it with role='both' or 'learn'"
            )
        new = LazyEncoder(encoder)
        # Without the lock: encoding may take long, and selection must not wait for it.
        self._model.prepare_encoder(new)
        with self._lock:
            self._selector.catch_up()
            before = self._model.record.encoder_fingerprint
            while not self._learner.swap_encoder(new):
                pass
            self._learner.save()
            record, catalog = self._model.record, self._model.catalog
        return Swapped(
            before=before,
            after=new.fingerprint,
            components=record.settings["components"],
            campaigns=len(catalog.campaigns),
            creatives=len(catalog.names),
        )

    def close(self) -> None:
        """Learn what has settled, write a snapshot and statistics, and let go of the database."""
        if self._is_closed:
            return
        self._check_open()
        self._background.stop()
        try:
            if self._may_learn and self._learn_mode != "manual":
                self._selector.catch_up()
                self._settling.settle_and_learn()
            with self._lock:
                self._learner.save()
        finally:
            self._background.stop_renewing()
            with self._lock:
                self._learner.release()
            self._is_closed = True
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Inside

    def _named(self, campaign: str, creative_id: str) -> tuple[CampaignEntry, CreativeRecord]:
        entry = self._selector.entry(campaign)
        for creative in entry.creatives:
            if creative.external_id == creative_id:
                return entry, creative
        raise UnknownCreativeError(
            f"campaign {campaign!r} has no creative {creative_id!r}; its creatives: "
            f"{', '.join(sorted(creative.external_id for creative in entry.creatives)) or 'none'}"
        )

    def _decided(self, decision: DecisionRecord) -> tuple[CampaignEntry, CreativeRecord]:
        replica = self._learner.replica
        if decision.creative_id not in replica.view.catalog.arm:  # another process has just added it
            self._selector.reload()
        for entry in replica.view.catalog.campaigns.values():
            for creative in entry.creatives:
                if creative.creative_id == decision.creative_id:
                    return entry, creative
        raise UnknownDecisionError(
            f"decision {decision.decision_id!r} belongs to another model of this database"
        )

    def _import(self, history: History, source: str) -> Imported:
        self._check_open()
        history = replace(history, rows=rows_without_private(history.rows, self._model.record.settings))
        check_history(history.rows, source, self._model.schema)
        with self._lock:
            self._need_lease("warm_start")
            imported = import_history(self._store, self._model, history, now=self._clock())
            try:
                if imported.is_new or self._model.settings.is_refit_due:
                    self._refit("warm_start's refit")
            except Exception as error:
                raise HistoryError(
                    "the history is imported, but the fit to it failed; call refit, or import it again, "
                    f"which does not count it twice: {error}"
                ) from error
        return imported

    def _set_status(
        self, campaign: str, creative_id: str | None, status: CampaignStatus | CreativeStatus
    ) -> None:
        self._check_open()
        with self._lock:
            if creative_id is None:
                self._store.campaigns.set_status(campaign, cast(CampaignStatus, status))
            else:
                self._store.campaigns.set_creative_status(campaign, creative_id, cast(CreativeStatus, status))
            self._selector.reload()

    def _wait_for_notification(self, timeout_s: float) -> bool:
        return self._store.notices.wait(self._model.record.model_id, timeout_s)

    def _renew(self) -> None:
        # Without the engine's lock: a long refit must not cost the lease.
        self._learner.renew()

    def _refit(self, what: str) -> None:
        while not self._learner.refit():
            self._need_lease(what)
        self._learner.save()

    def _need_lease(self, what: str) -> None:
        if not (self._may_learn and self._learner.ensure_lease()):
            raise LearnerElsewhereError(
                f"{what} needs the learner of {self._store.display_url}, and another process is it (or this "
                "engine was opened with role='select'); run it there, or stop that process and try again "
                "in 10 s"
            )

    def _check_open(self) -> None:
        if self._is_closed:
            raise EngineClosedError("this engine is closed; open another one")
        if os.getpid() != self._pid:
            raise ForkedEngineError(
                "this engine was opened before a fork; open one in each process, after the fork"
            )


def _seconds(window: float | timedelta) -> float:
    return window.total_seconds() if isinstance(window, timedelta) else float(window)
