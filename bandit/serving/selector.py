"""From requests to stored decisions: one view of the model, repeated ids, and what others have changed."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, final

from bandit.errors import InvalidListError
from bandit.features.context_policy import allowed, without_private
from bandit.jax_runtime import double_precision
from bandit.learning.learner import Learner
from bandit.model.catalog import CampaignEntry
from bandit.model.model import Model
from bandit.serving.batching import choose_all, choose_places, place_ids, warm_up
from bandit.serving.candidates import candidates_of, prepare
from bandit.types import Decision, Request
from storage import DecisionConflictError, DecisionRecord, NewDecision, StorageError, Store
from storage.database.group_commit import GroupCommit
from storage.records import ContextKind
from storage.validation import check_decision_ids

logger = logging.getLogger(__name__)

FOLLOW_EVERY_S = 1.0
MOST_PLACES = 64  # of a list; each costs a draw of its own
LONGEST_LIST_ID = 61  # characters, of 64: places add "~63"
RECOUNT_EVERY_S = 10.0  # how often the traffic of other processes is counted


Stored = NewDecision | DecisionRecord  # the first when its commit is still to come


class _Call(NamedTuple):
    """The checked requests of one call, the ids of their decisions, and fields never seen before."""

    requests: Sequence[Request]
    ids: Sequence[str]
    new_fields: Mapping[str, ContextKind]


@final
class Selector:
    """Makes and stores decisions with the newest view of the posterior; safe to call from any thread.

    Args:
        store: The database.
        model: Campaigns, contents and contexts.
        learner: Has the posterior.
        lock: The engine's; held while the model or the learner changes.
        clock: Gives the time, aware.
        is_relaxed: Whether decisions whose ids are ours are answered before their commit.
        is_following: Whether calls look for what other processes have changed; else a thread does, with
            `catch_up`.
    """

    def __init__(
        self,
        store: Store,
        model: Model,
        learner: Learner,
        lock: threading.RLock,
        clock: Callable[[], datetime],
        *,
        is_relaxed: bool,
        is_following: bool,
    ) -> None:
        self._store = store
        self._is_following = is_following
        self._is_relaxed = is_relaxed
        self._model = model
        self._learner = learner
        self._lock = lock
        self._clock = clock
        self._choosing: GroupCommit[_Call, list[Stored]] = GroupCommit(
            self._choose, size=lambda call: len(call.requests)
        )
        self._followed_at = self._counted_at = time.monotonic()
        self._catalog_version: tuple[int, ...] = ()  # what was read at the opening may be old already

    def select(self, requests: Sequence[Request]) -> list[Decision]:
        """Choose for many requests and store the decisions; see `Engine.select_many`."""
        for i, request in enumerate(requests):
            if request.k is not None:
                raise InvalidListError(
                    f"expected requests for one creative each, got k={request.k!r} in request {i}; "
                    "ask for a list with Engine.select(…, k=…)"
                )
        if not requests:
            return []
        self.follow()
        requests = without_private(requests, self._model.record.settings)
        new_fields = self._model.check_contexts([request.context for request in requests])
        check_decision_ids(request.decision_id for request in requests if request.decision_id is not None)
        # What nobody can have asked before is checked here: it must not undo the work of others.
        self._check_all(request for request in requests if request.decision_id is None)
        now = self._clock()
        ids = [request.decision_id or new_decision_id(now) for request in requests]
        stored = self._choosing.run(_Call(requests, ids, new_fields))
        names = self._names_of(stored)
        return [
            _decision(request.campaign, record, names)
            for request, record in zip(requests, stored, strict=True)
        ]

    def _choose(self, calls: Sequence[_Call]) -> list[list[Stored]]:
        """Choose and store for several calls, with one posterior and one transaction."""
        requests = [request for call in calls for request in call.requests]
        ids = [i for call in calls for i in call.ids]
        stored: dict[str, Stored] = {**self._repeated(requests)}
        new = [(request, i) for request, i in zip(requests, ids, strict=True) if i not in stored]
        self._check_all(request for request, _ in new)
        if new:
            for call in calls:
                if call.new_fields:
                    self._model.add_context_fields(call.new_fields)
        now = self._clock()
        # The view is read inside: learning, which also computes there, may give an old one's arrays away.
        with double_precision():
            view = self._learner.replica.view
            prepared = [prepare(request, i, view) for request, i in new]
            rows = choose_all(prepared, view, self._model, now)
        given = {request.decision_id for request in requests}
        self._store_new(rows, stored, given)
        return [[stored[i] for i in call.ids] for call in calls]

    def select_list(self, request: Request) -> list[Decision]:
        """Choose an ordered list for one request and store its places; see `Engine.select`."""
        n_places = _checked_places(request)
        self.follow()
        (request,) = without_private([request], self._model.record.settings)
        new_fields = self._model.check_contexts([request.context])
        now = self._clock()
        name = request.decision_id or new_decision_id(now)
        stored: dict[str, Stored] = {}
        if first := self._repeated([request]) and self._places(name):
            self._check_list(request, first)
            stored.update(first)
        else:
            self._check_all([request])
            if taken := self._store.decisions.get(place_ids(name, n_places)[1:]):
                raise DecisionConflictError(
                    f"decision {name!r}: the ids of its places are taken: {', '.join(sorted(taken))}; "
                    "use another id"
                )
            if new_fields:
                self._model.add_context_fields(new_fields)
            with double_precision():
                view = self._learner.replica.view
                rows = choose_places(prepare(request, name, view), n_places, view, self._model, now)
            given = () if request.decision_id is None else {row.decision_id for row in rows}
            self._store_new(rows, stored, given)
        names = self._names_of(stored.values())
        return [_decision(request.campaign, stored[i], names) for i in place_ids(name, len(stored))]

    def _places(self, name: str) -> dict[str, DecisionRecord]:
        """Return the stored places of a list, by id."""
        ids = place_ids(name, MOST_PLACES if len(name) <= LONGEST_LIST_ID else 1)
        stored = self._store.decisions.get(ids)
        return {i: stored[i] for place, i in enumerate(ids) if i in stored and stored[i].place == place}

    def _check_list(self, request: Request, stored: Mapping[str, DecisionRecord]) -> None:
        """Refuse an id whose list was of another length."""
        first = stored[request.decision_id or ""]
        if len(stored) != min(request.k or 1, len(first.candidate_creative_ids)):
            raise DecisionConflictError(
                f"decision {first.decision_id!r} was made for another request: its list has {len(stored)} "
                f"creatives, k is {request.k} now; use a new id for a new request"
            )

    def _store_new(
        self, rows: Sequence[NewDecision], stored: dict[str, Stored], given: Container[str | None]
    ) -> None:
        """Store decisions in one transaction and add them to those that are stored.

        Ids that the caller gave are committed before the answer whatever the durability: another process may
        give the same one at the same time, and only the database knows who was first.
        """
        now: list[NewDecision] = []
        later: list[NewDecision] = []
        for row in rows:
            (later if self._is_relaxed and row.decision_id not in given else now).append(row)
        self._store.decisions.record_later(later)
        records: list[Stored] = [*later, *self._store.decisions.record(now)]
        for record in records:
            if record.decision_id not in stored and record.activated_at is not None:
                self._model.impressions.add(record.campaign_id)
            stored[record.decision_id] = record

    def warm_up(self) -> Iterator[None]:
        """Compile, or load, the programs of selection; stop after each."""
        yield from warm_up(lambda: self._learner.replica.view, self._model, self._clock())

    def follow(self) -> None:
        """See, at most once a second, what other processes have changed, where no thread does."""
        if not self._is_following or time.monotonic() - self._followed_at < FOLLOW_EVERY_S:
            return
        if self._lock.acquire(blocking=False):  # else its holder learns or follows: the view is soon replaced
            try:
                self.catch_up()
            finally:
                self._lock.release()

    def catch_up(self) -> None:
        """See what other processes have changed."""
        with self._lock:
            self._followed_at = time.monotonic()
            try:
                self._catch_up()
            except StorageError as error:
                logger.warning("what other processes changed could not be read, it is tried again: %s", error)

    def _catch_up(self) -> None:
        version = self._store.campaigns.version(self._model.record.model_id)
        if version != self._catalog_version:
            self.reload()
            self._catalog_version = version
        self._model.reread_settings()
        if self._learner.lease is None:
            self._learner.replica.catch_up()
        if self._followed_at - self._counted_at >= RECOUNT_EVERY_S:
            self._counted_at = self._followed_at
            self._model.impressions.recount()
            self._learner.replica.republish()

    def reload(self) -> None:
        """Reread campaigns and creatives, and let selection see them."""
        before = self._learner.replica.view.catalog
        if not self._model.reload():  # another process has changed the features, and the posterior with them
            self._learner.replica.catch_up()
            self._model.reload()
        self._learner.replica.republish()
        self._learner.replica.mark_unread(before)

    def entry(self, campaign: str) -> CampaignEntry:
        """Return a campaign as selection sees it; one that is unknown or empty here is reread."""
        known = self._learner.replica.view.catalog.campaigns.get(campaign)
        if known is not None and known.creatives:
            return known
        with self._lock:
            if known is not None:  # read between a campaign and its first creatives, of another process
                self.reload()
                return self._learner.replica.view.catalog.campaigns[campaign]
            if campaign not in self._model.catalog.campaigns:
                self._store.campaigns.get(campaign)  # raises when there is none
                self.reload()
            entry = self._model.entry(campaign)
            self._learner.replica.republish()
        return entry

    def _check_all(self, requests: Iterable[Request]) -> None:
        """See that requests can be answered; nothing is written when one cannot.

        A campaign's first decision fixes its mean content, so the view may be newer afterwards.
        """
        entries = {}
        seen = set()
        for request in requests:
            kind = (request.campaign, request.eligible, request.exclude)
            if kind in seen:
                continue
            seen.add(kind)
            entry = entries[request.campaign] = self.entry(request.campaign)
            candidates_of(request, entry)
        for entry in entries.values():
            if entry.record.mean_content is None:
                with self._lock:
                    self._model.fix_mean_content(entry)
                    self._learner.replica.republish()

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
                    ("context", not self._is_same_context(request.context, first.context)),
                    ("candidates", not self._same_candidates(request, first)),
                    ("k", (request.k is None) != (first.list_propensity is None)),
                )
                if is_other
            ]
            if differs:
                raise DecisionConflictError(
                    f"decision {first.decision_id!r} was made for another request: its "
                    f"{' and '.join(differs)} differ; use a new id for a new request"
                )
        return stored

    def _is_same_context(self, context: Mapping[str, Any], first: Mapping[str, Any]) -> bool:
        """Compare with a stored context, which may be from before the policy of today."""
        return dict(context) in (first, allowed(first, self._model.record.settings))

    def _same_candidates(self, request: Request, first: DecisionRecord) -> bool:
        known = self._names_of([first])
        names = {known[creative] for creative in first.candidate_creative_ids}
        return names.isdisjoint(request.exclude) and (request.eligible is None or names <= request.eligible)

    def _names_of(self, records: Iterable[Stored]) -> Mapping[int, str]:
        """Return the names of creatives; rereads once when another process has just added one of these."""
        names = self._learner.replica.view.catalog.names
        lists = {record.candidate_creative_ids for record in records}
        if any(creative not in names for creatives in lists for creative in creatives):
            with self._lock:
                self.reload()
            names = self._learner.replica.view.catalog.names
        return names


def _decision(campaign: str, record: Stored, names: Mapping[int, str]) -> Decision:
    pairs = zip(record.candidate_creative_ids, record.propensities, strict=True)
    return Decision(
        id=record.decision_id,
        campaign=campaign,
        creative_id=names[record.creative_id],
        propensity=record.propensity,
        propensities={names[creative]: propensity for creative, propensity in pairs},
        model_version=record.model_version,
        decided_at=record.decided_at,
        place=record.place,
        list_propensity=record.list_propensity,
        is_control=record.is_control,
    )


def _checked_places(request: Request) -> int:
    """Return how many places a request asks for."""
    k, name = request.k, request.decision_id
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= MOST_PLACES:
        raise InvalidListError(f"expected k to be a whole number from 1 to {MOST_PLACES}, got {k!r}")
    if name is not None and k > 1 and len(name) > LONGEST_LIST_ID:
        raise InvalidListError(
            f"decision id {name!r} has {len(name)} characters; for a list at most {LONGEST_LIST_ID} are "
            "allowed, as the id of a place is the list's with its number"
        )
    return k


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
