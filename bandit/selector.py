"""From requests to stored decisions: one view of the model, repeated ids, and what others have changed."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import final

from bandit.choosing import Prepared, candidates_of, choose_all
from bandit.learner import Learner, View
from bandit.model import Model
from bandit.records import Decision, Request
from bandit.roster import CampaignEntry
from storage import CreativeRecord, DecisionConflictError, DecisionRecord, StorageError, Store

logger = logging.getLogger(__name__)

FOLLOW_EVERY_S = 1.0
RECOUNT_EVERY_S = 10.0  # how often the traffic of other processes is counted


@final
class Selector:
    """Makes and stores decisions with the newest view of the posterior; safe to call from any thread.

    Args:
        store: The database.
        model: Campaigns, contents and contexts.
        learner: Has the posterior.
        lock: The engine's; held while the model or the learner changes.
        clock: Gives the time, aware.
    """

    def __init__(
        self,
        store: Store,
        model: Model,
        learner: Learner,
        lock: threading.RLock,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._model = model
        self._learner = learner
        self._lock = lock
        self._clock = clock
        self._followed_at = self._counted_at = time.monotonic()
        self._roster_version: tuple[int, ...] = ()  # what was read at the opening may be old already

    def select(self, requests: Sequence[Request]) -> list[Decision]:
        """Choose for many requests and store the decisions; see `Engine.select_many`."""
        self.follow()
        new_fields = self._model.check_contexts([request.context for request in requests])
        now = self._clock()
        ids = [request.decision_id or new_decision_id(now) for request in requests]
        stored = self._repeated(requests)
        new = [(request, i) for request, i in zip(requests, ids, strict=True) if i not in stored]
        view = self._view_of(request for request, _ in new)
        if new_fields and new:
            self._model.add_context_fields(new_fields)
        prepared = _prepare(new, view)
        for record in self._store.decisions.record(
            choose_all(prepared, lambda: self._learner.view, self._model, now)
        ):
            if record.decision_id not in stored and record.activated_at is not None:
                self._model.count_activated(record.campaign_id)
            stored[record.decision_id] = record
        names = self._names_of(stored.values())
        return [
            _decision(request.campaign, stored[i], names) for request, i in zip(requests, ids, strict=True)
        ]

    def follow(self) -> None:
        """See, at most once a second, what other processes have changed."""
        if time.monotonic() - self._followed_at < FOLLOW_EVERY_S or not self._lock.acquire(blocking=False):
            return  # whoever has the lock is learning or following: the view is valid, and soon replaced
        try:
            self._followed_at = time.monotonic()
            version = self._store.campaigns.version(self._model.record.model_id)
            if version != self._roster_version:
                self.reload()
                self._roster_version = version
            self._model.reread_settings()
            if self._learner.lease is None:
                self._learner.catch_up()
            if self._followed_at - self._counted_at >= RECOUNT_EVERY_S:
                self._counted_at = self._followed_at
                self._model.recount()
                self._learner.republish()
        except StorageError as error:
            logger.warning("what other processes changed could not be read, it is tried again: %s", error)
        finally:
            self._lock.release()

    def reload(self) -> None:
        """Reread campaigns and creatives, and let selection see them."""
        before = self._learner.view.roster
        self._model.reload()
        self._learner.republish()
        self._learner.mark_unread(before)

    def entry(self, campaign: str) -> CampaignEntry:
        """Return a campaign as selection sees it; rereads once when it is not known yet."""
        known = self._learner.view.roster.campaigns.get(campaign)
        if known is not None:
            return known
        with self._lock:
            entry = self._model.entry(campaign)
            self._learner.republish()
        return entry

    def _view_of(self, requests: Iterable[Request]) -> View:
        """Return the posterior for requests that can be answered; nothing is written when one cannot.

        A campaign's first decision fixes its mean content, so the view may be newer than before.
        """
        entries: dict[str, CampaignEntry] = {}
        for request in requests:
            if request.campaign not in entries or _names_creatives(request):
                entry = entries[request.campaign] = self.entry(request.campaign)
                candidates_of(request, entry)
        for entry in entries.values():
            if entry.record.mean_content is None:
                with self._lock:
                    self._model.fix_mean_content(entry)
                    self._learner.republish()
        return self._learner.view

    def _repeated(self, requests: Sequence[Request]) -> dict[str, DecisionRecord]:
        """Return the stored decisions of ids that are there already.

        What the campaign has active may have changed since; only what the caller named must be the same.
        """
        given = [request.decision_id for request in requests if request.decision_id is not None]
        stored = self._store.decisions.get(given) if given else {}
        for request in requests:
            first = stored.get(request.decision_id or "")
            if first is None:
                continue
            entry = self.entry(request.campaign)
            differs = [
                name
                for name, is_other in (
                    ("campaign", entry.record.campaign_id != first.campaign_id),
                    ("context", dict(request.context) != first.context),
                    ("candidates", not self._same_candidates(request, first)),
                )
                if is_other
            ]
            if differs:
                raise DecisionConflictError(
                    f"decision {first.decision_id!r} was made for another request: its "
                    f"{' and '.join(differs)} differ; use a new id for a new request"
                )
        return stored

    def _same_candidates(self, request: Request, first: DecisionRecord) -> bool:
        known = self._names_of([first])
        names = {known[creative] for creative in first.candidate_creative_ids}
        return names.isdisjoint(request.exclude) and (request.eligible is None or names <= request.eligible)

    def _names_of(self, records: Iterable[DecisionRecord]) -> Mapping[int, str]:
        """Return the names of creatives; rereads once when another process has just added one of these."""
        names = self._learner.view.roster.names
        lists = {record.candidate_creative_ids for record in records}
        if any(creative not in names for creatives in lists for creative in creatives):
            with self._lock:
                self.reload()
            names = self._learner.view.roster.names
        return names


def _decision(campaign: str, record: DecisionRecord, names: Mapping[int, str]) -> Decision:
    pairs = zip(record.candidate_creative_ids, record.propensities, strict=True)
    return Decision(
        id=record.decision_id,
        campaign=campaign,
        creative_id=names[record.creative_id],
        propensity=record.propensity,
        propensities={names[creative]: propensity for creative, propensity in pairs},
        model_version=record.model_version,
        decided_at=record.decided_at,
    )


def _prepare(requests: Sequence[tuple[Request, str]], view: View) -> list[Prepared]:
    """Look up campaigns and candidates; requests of a campaign that name no creative have the same ones."""
    everyone: dict[str, tuple[CreativeRecord, ...]] = {}
    prepared = []
    for request, decision_id in requests:
        entry = view.roster.campaigns[request.campaign]
        if _names_creatives(request):
            candidates = candidates_of(request, entry)
        else:
            if request.campaign not in everyone:
                everyone[request.campaign] = candidates_of(request, entry)
            candidates = everyone[request.campaign]
        prepared.append(Prepared(request, entry, candidates, decision_id))
    return prepared


def _names_creatives(request: Request) -> bool:
    return request.eligible is not None or bool(request.exclude)


def new_decision_id(now: datetime) -> str:
    """Return a UUIDv7, lower case: ids made later sort later, which keeps the index in memory small.

    References:
        RFC 9562, section 5.7.
    """
    milliseconds = int(now.timestamp() * 1000) & (1 << 48) - 1
    more, most = divmod(secrets.randbits(12 + 62), 1 << 62)
    digits = f"{milliseconds << 80 | 0x7 << 76 | more << 64 | 0b10 << 62 | most:032x}"
    # uuid.UUID would check and format it in three times the time.
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
