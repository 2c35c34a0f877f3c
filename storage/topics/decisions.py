"""Decisions: recorded once for each id, whoever sends it again."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import datetime, timedelta
from itertools import repeat
from operator import attrgetter
from typing import Any, Final, NamedTuple, final

from sqlalchemy import Connection, RowMapping, bindparam, select, update

from storage.database.dialect import in_chunks, insert_columns, insert_or_skip, is_among
from storage.database.group_commit import GroupCommit
from storage.database.session import Database, allow_idling
from storage.database.write_behind import WriteBehindQueue
from storage.errors import DecisionConflictError, UnknownCampaignError, UnknownDecisionError
from storage.records import DecisionRecord, NewDecision
from storage.schema.columns import canonical_json
from storage.schema.tables import Campaign, CandidateSet, Decision
from storage.topics.settlement import settle
from storage.validation import check_decision, check_decision_ids

# Statements are built once: building one takes longer than SQLite takes to run it.
WINDOWS: Final = select(Campaign.campaign_id, Campaign.attribution_window_s).where(
    Campaign.campaign_id.in_(bindparam("campaign_ids", expanding=True))
)
CANDIDATE_SETS: Final = select(CandidateSet.hash, CandidateSet.candidate_set_id).where(
    CandidateSet.hash.in_(bindparam("hashes", expanding=True))
)
STORED: Final = (
    select(
        *(column for column in Decision.__table__.columns if column.name in DecisionRecord._fields),
        CandidateSet.creative_ids.label("candidate_creative_ids"),
    )
    .join(CandidateSet, CandidateSet.candidate_set_id == Decision.candidate_set_id)
    .where(is_among(Decision.decision_id, "ids"))
)
DEFERRED: Final = (
    select(Decision.decision_id, Decision.activated_at, Campaign.attribution_window_s)
    .join(Campaign, Campaign.campaign_id == Decision.campaign_id)
    .where(is_among(Decision.decision_id, "ids"))
    .order_by(Decision.decision_id)
    .with_for_update(of=Decision)
)
ACTIVATE: Final = (
    update(Decision)
    .where(Decision.decision_id == bindparam("id"))
    .values(activated_at=bindparam("now"), settles_at=bindparam("due"))
)
# What is stored as it comes.
COPIED: Final = (
    "decision_id",
    "campaign_id",
    "creative_id",
    "propensity",
    "place",
    "request_id",
    "list_propensity",
    "is_control",
    "model_version",
    "slots_version",
    "horizon",
    "kappa",
    "point_set",
    "decided_at",
    "activated_at",
)
# What a decision gets when outcomes come.
LATER: Final = ("closed_at", "settled_at", "click", "learnt_batch")


@final
class Decisions:
    """The topic `store.decisions`: one public method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.backlog: WriteBehindQueue[_Checked] = WriteBehindQueue(
            lambda rows: self._record([rows]), lambda one: one.new.decision_id
        )
        self._recording: GroupCommit[list[_Checked], list[DecisionRecord]] = GroupCommit(
            self._record, size=len
        )

    def record(self, decisions: Sequence[NewDecision]) -> list[DecisionRecord]:
        """Store decisions, all or none; an id that is there already keeps its first decision.

        Args:
            decisions: In any order; the same id twice shares the first one's answer.

        Returns:
            What is stored for each, in the order given.

        Raises:
            DecisionConflictError: An id is taken by a decision with another campaign, context or candidates.
            InvalidIdError: An id is not 1 to 64 printable ASCII characters.
            InvalidValueError: A probability or another value cannot be right.
            UnknownCampaignError: A campaign does not exist.
        """
        checked = _checked(decisions)
        self.backlog.wait_for(one.new.decision_id for one in checked)
        return self._recording.run(checked) if checked else []

    def record_later(self, decisions: Sequence[NewDecision]) -> None:
        """Take decisions that are to be committed soon, without waiting for it: durability "relaxed".

        Whoever asks for one of them by its id, or reports about it, waits for its commit; nothing else sees
        it before. When too many wait, so does the caller.

        Args:
            decisions: Their ids must be new and known to nobody else, such as those the engine makes.

        Raises:
            InvalidValueError: A value cannot be right; nothing was taken.
            StorageError: An earlier commit failed; nothing was taken.
        """
        if decisions:
            self.backlog.add(_checked(decisions))

    def get(self, decision_ids: Sequence[str]) -> dict[str, DecisionRecord]:
        """Return the decisions that exist, by id; the others are left out.

        Raises:
            InvalidIdError: An id is not 1 to 64 printable ASCII characters.
        """
        check_decision_ids(decision_ids)
        self.backlog.wait_for(decision_ids)
        return self._database.read(lambda connection: _read(connection, decision_ids))

    def activate(self, decision_ids: Sequence[str], *, now: datetime) -> int:
        """Note that decisions were really shown: their attribution windows begin.

        Args:
            decision_ids: Deferred decisions; one that is active already stays as it is.
            now: When.

        Returns:
            How many became active.

        Raises:
            InvalidIdError: An id is not 1 to 64 printable ASCII characters.
            UnknownDecisionError: Names every unknown id; nothing was changed.
        """
        check_decision_ids(decision_ids)
        self.backlog.wait_for(decision_ids)
        ids = sorted(set(decision_ids))

        def work(connection: Connection) -> int:
            rows = connection.execute(DEFERRED, {"ids": ids}).all()
            refuse_unknown(ids, {row.decision_id for row in rows})
            deferred = [row for row in rows if row.activated_at is None]
            if not deferred:
                return 0
            connection.execute(
                ACTIVATE,
                [
                    {"id": row.decision_id, "now": now, "due": _settles_at(now, row.attribution_window_s)}
                    for row in deferred
                ],
            )
            # With window 0 a report settles at once; one that came before the activation does it now.
            at_once = [row.decision_id for row in deferred if row.attribution_window_s == 0]
            settle(connection, at_once, now, is_silence_final=False)
            return len(deferred)

        return self._database.write(work)

    def _record(self, calls: Sequence[Sequence["_Checked"]]) -> list[list[DecisionRecord]]:
        """Store the decisions of several calls in one transaction."""
        first: dict[str, _Checked] = {}
        for call in calls:
            for one in call:
                there = first.setdefault(one.new.decision_id, one)
                if there is not one:
                    _check_same(one, there.new, there.context)
        # In one order everywhere, so that two who insert the same ids wait for each other in turn.
        ordered = [first[name] for name in sorted(first)]
        stored = self._database.write(lambda connection: _insert(connection, ordered))
        return [[stored[one.new.decision_id] for one in call] for call in calls]


class _Checked(NamedTuple):
    """A decision that can be stored, with its context as canonical JSON."""

    new: NewDecision
    context: str


def _checked(decisions: Sequence[NewDecision]) -> list[_Checked]:
    """Check decisions before they join a group; one that is wrong must not undo the others' work."""
    check_decision_ids(new.decision_id for new in decisions)
    checked = []
    for new in decisions:
        check_decision(new)
        context = canonical_json(dict(new.context), what=f"decision {new.decision_id!r}: its context")
        checked.append(_Checked(new, context))
    return checked


def _insert(connection: Connection, ordered: Sequence[_Checked]) -> dict[str, DecisionRecord]:
    """Insert decisions, by id and each once, and return what is stored for each."""
    allow_idling(connection, rows=len(ordered))
    news = [one.new for one in ordered]
    windows = _windows(connection, {new.campaign_id for new in news})
    columns = columns_of(connection, news, [one.context for one in ordered], windows)
    if insert_columns(connection, Decision, columns, or_skip=True) == len(ordered):
        return _new_records(news, columns)
    stored = _read(connection, columns["decision_id"])
    for one in ordered:
        there = stored[one.new.decision_id]
        _check_same(one, there, canonical_json(there.context))
    return stored


def columns_of(
    connection: Connection,
    news: Sequence[NewDecision],
    contexts: Sequence[str],
    windows: Mapping[int, float],
) -> dict[str, list[Any]]:
    """Return decisions as columns of their table, after storing the lists of candidates that are new.

    Args:
        connection: Inside a write transaction.
        news: The decisions.
        contexts: Their contexts as canonical JSON.
        windows: The attribution window of each campaign, in seconds.
    """
    sets = _candidate_sets(connection, {new.candidate_creative_ids for new in news})
    return {
        **{name: list(map(attrgetter(name), news)) for name in COPIED},
        "settles_at": [_settles_at(new.activated_at, windows[new.campaign_id]) for new in news],
        "candidate_set_id": [sets[new.candidate_creative_ids] for new in news],
        "propensities": _written([new.propensities for new in news]),
        "context": list(contexts),
    }


def refuse_unknown(wanted: Iterable[str], known: Set[str]) -> None:
    """Raise an error that names all ids that are not known.

    Raises:
        UnknownDecisionError: There is at least one.
    """
    unknown = [decision_id for decision_id in dict.fromkeys(wanted) if decision_id not in known]
    if unknown:
        raise UnknownDecisionError(
            f"there is no decision {', '.join(map(repr, unknown))}; nothing was written. "
            "Send the ids that select returned"
        )


def _windows(connection: Connection, campaign_ids: set[int]) -> dict[int, float]:
    rows = connection.execute(WINDOWS, {"campaign_ids": sorted(campaign_ids)})
    windows = {row.campaign_id: row.attribution_window_s for row in rows}
    if unknown := campaign_ids - windows.keys():
        listed = ", ".join(map(str, sorted(unknown)))
        raise UnknownCampaignError(f"there is no campaign with campaign_id {listed}")
    return windows


def _candidate_sets(connection: Connection, candidates: set[tuple[int, ...]]) -> dict[tuple[int, ...], int]:
    """Return the id of each list, after storing the new ones."""
    hashes = {_hash(creative_ids): creative_ids for creative_ids in candidates}
    known = _known_sets(connection, list(hashes))
    new = sorted(key for key in hashes if key not in known)
    if new:
        insert_or_skip(connection, CandidateSet, [{"hash": key, "creative_ids": hashes[key]} for key in new])
        known |= _known_sets(connection, new)
    return {creative_ids: known[key] for key, creative_ids in hashes.items()}


def _known_sets(connection: Connection, hashes: Sequence[str]) -> dict[str, int]:
    return {
        row.hash: row.candidate_set_id
        for chunk in in_chunks(hashes)
        for row in connection.execute(CANDIDATE_SETS, {"hashes": chunk})
    }


def _hash(creative_ids: tuple[int, ...]) -> str:
    return hashlib.blake2b(canonical_json(creative_ids).encode(), digest_size=16).hexdigest()


def _written(lists: Sequence[Sequence[float]]) -> list[str]:
    """Write lists of numbers, none of them empty, as canonical JSON; all in one call, which is faster."""
    return [f"[{numbers}]" for numbers in canonical_json(lists)[2:-2].split("],[")]


def _settles_at(activated_at: datetime | None, window_s: float) -> datetime | None:
    """Return when silence becomes a "no"; with window 0 it never does."""
    if activated_at is None or window_s == 0:
        return None
    return activated_at + timedelta(seconds=window_s)


def _new_records(
    ordered: Sequence[NewDecision], columns: Mapping[str, list[Any]]
) -> dict[str, DecisionRecord]:
    """Return what is stored for decisions that were not there before, given their columns."""
    fields: dict[str, Iterable[Any]] = {
        **columns,
        **dict.fromkeys(LATER, repeat(None)),
        "candidate_creative_ids": [new.candidate_creative_ids for new in ordered],
        "propensities": [new.propensities for new in ordered],
        "context": [dict(new.context) for new in ordered],
    }
    records = zip(*(fields[name] for name in DecisionRecord._fields), strict=False)
    return dict(zip(columns["decision_id"], map(DecisionRecord._make, records), strict=True))


def _read(connection: Connection, decision_ids: Sequence[str]) -> dict[str, DecisionRecord]:
    return {
        row["decision_id"]: _record(row)
        for row in connection.execute(STORED, {"ids": list(decision_ids)}).mappings()
    }


def _record(row: RowMapping) -> DecisionRecord:
    fields: dict[str, Any] = dict(row)
    for name in ("candidate_creative_ids", "propensities"):
        fields[name] = tuple(fields[name])
    return DecisionRecord(**fields)


def _check_same(one: _Checked, first: NewDecision | DecisionRecord, first_context: str) -> None:
    """Refuse an id that stands for another request; `first_context` is canonical JSON."""
    new = one.new
    differences = [
        f"{name} {ours} (first: {theirs})"
        for name, ours, theirs in (
            ("campaign_id", new.campaign_id, first.campaign_id),
            ("context", one.context, first_context),
            ("candidates", list(new.candidate_creative_ids), list(first.candidate_creative_ids)),
        )
        if ours != theirs
    ]
    if differences:
        raise DecisionConflictError(
            f"decision {new.decision_id!r} is taken by another request: it differs in "
            f"{', '.join(differences)}; nothing was written. Give each request its own id"
        )
