"""Decisions: recorded once for each id, whoever sends it again."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, final

from sqlalchemy import Connection, RowMapping, select, update

from storage.border import check_decision, check_decision_ids
from storage.columns import canonical_json
from storage.errors import DecisionConflictError, UnknownCampaignError, UnknownDecisionError
from storage.records import DecisionRecord, NewDecision
from storage.schema import Campaign, CandidateSet, Decision
from storage.session import Database, in_chunks, insert_into
from storage.settling import settle

QUERY: Final = select(
    *(column for column in Decision.__table__.columns if column.name != "candidate_set_id"),
    CandidateSet.creative_ids.label("candidate_creative_ids"),
).join(CandidateSet, CandidateSet.candidate_set_id == Decision.candidate_set_id)


@final
class Decisions:
    """The topic `store.decisions`: one public method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        check_decision_ids(new.decision_id for new in decisions)
        first: dict[str, NewDecision] = {}
        for new in decisions:
            check_decision(new)
            first.setdefault(new.decision_id, new)
        # In one order everywhere, so that two who insert the same ids wait for each other in turn.
        ordered = sorted(first.values(), key=lambda new: new.decision_id)

        def work(connection: Connection) -> list[DecisionRecord]:
            if not ordered:
                return []
            windows = _windows(connection, {new.campaign_id for new in ordered})
            sets = _candidate_sets(connection, {new.candidate_creative_ids for new in ordered})
            connection.execute(
                insert_into(connection, Decision).on_conflict_do_nothing(),
                [_row(new, sets[new.candidate_creative_ids], windows[new.campaign_id]) for new in ordered],
            )
            stored = _read(connection, list(first))
            for new in decisions:
                _check_same(new, stored[new.decision_id])
            return [stored[new.decision_id] for new in decisions]

        return self._database.write(work)

    def get(self, decision_ids: Sequence[str]) -> dict[str, DecisionRecord]:
        """Return the decisions that exist, by id; the others are left out.

        Raises:
            InvalidIdError: An id is not 1 to 64 printable ASCII characters.
        """
        check_decision_ids(decision_ids)
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
        ids = sorted(set(decision_ids))

        def work(connection: Connection) -> int:
            query = (
                select(Decision.decision_id, Decision.activated_at, Campaign.attribution_window_s)
                .join(Campaign, Campaign.campaign_id == Decision.campaign_id)
                .order_by(Decision.decision_id)
                .with_for_update(of=Decision)
            )
            rows = [
                row
                for chunk in in_chunks(ids)
                for row in connection.execute(query.where(Decision.decision_id.in_(chunk)))
            ]
            refuse_unknown(ids, {row.decision_id for row in rows})
            deferred = [row for row in rows if row.activated_at is None]
            for row in deferred:
                connection.execute(
                    update(Decision)
                    .where(Decision.decision_id == row.decision_id)
                    .values(activated_at=now, settles_at=_settles_at(now, row.attribution_window_s))
                )
            # With window 0 a report settles at once; one that came before the activation does it now.
            at_once = [row.decision_id for row in deferred if row.attribution_window_s == 0]
            settle(connection, at_once, now, is_silence_final=False)
            return len(deferred)

        return self._database.write(work)


def refuse_unknown(wanted: Iterable[str], known: set[str]) -> None:
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
    rows = connection.execute(
        select(Campaign.campaign_id, Campaign.attribution_window_s).where(
            Campaign.campaign_id.in_(sorted(campaign_ids))
        )
    )
    windows = {row.campaign_id: row.attribution_window_s for row in rows}
    if unknown := campaign_ids - windows.keys():
        listed = ", ".join(map(str, sorted(unknown)))
        raise UnknownCampaignError(f"there is no campaign with campaign_id {listed}")
    return windows


def _candidate_sets(connection: Connection, candidates: set[tuple[int, ...]]) -> dict[tuple[int, ...], int]:
    """Return the id of each list, after storing the new ones."""
    hashes = {_hash(creative_ids): creative_ids for creative_ids in candidates}
    query = select(CandidateSet.hash, CandidateSet.candidate_set_id).where(
        CandidateSet.hash.in_(sorted(hashes))
    )
    known = {row.hash: row.candidate_set_id for row in connection.execute(query)}
    rows = [
        {"hash": key, "creative_ids": list(creative_ids)}
        for key, creative_ids in sorted(hashes.items())
        if key not in known
    ]
    if rows:
        connection.execute(insert_into(connection, CandidateSet).on_conflict_do_nothing(), rows)
        known = {row.hash: row.candidate_set_id for row in connection.execute(query)}
    return {creative_ids: known[key] for key, creative_ids in hashes.items()}


def _hash(creative_ids: tuple[int, ...]) -> str:
    return hashlib.blake2b(canonical_json(creative_ids).encode(), digest_size=16).hexdigest()


def _settles_at(activated_at: datetime | None, window_s: float) -> datetime | None:
    """Return when silence becomes a "no"; with window 0 it never does."""
    if activated_at is None or window_s == 0:
        return None
    return activated_at + timedelta(seconds=window_s)


def _row(new: NewDecision, candidate_set_id: int, window_s: float) -> dict[str, Any]:
    return {
        "decision_id": new.decision_id,
        "campaign_id": new.campaign_id,
        "creative_id": new.creative_id,
        "candidate_set_id": candidate_set_id,
        "propensities": new.propensities,
        "propensity": new.propensity,
        "place": new.place,
        "request_id": new.request_id,
        "context": dict(new.context),
        "model_version": new.model_version,
        "slots_version": new.slots_version,
        "horizon": new.horizon,
        "kappa": new.kappa,
        "point_set": new.point_set,
        "decided_at": new.decided_at,
        "activated_at": new.activated_at,
        "settles_at": _settles_at(new.activated_at, window_s),
    }


def _read(connection: Connection, decision_ids: Sequence[str]) -> dict[str, DecisionRecord]:
    return {
        row["decision_id"]: _record(row)
        for chunk in in_chunks(decision_ids)
        for row in connection.execute(QUERY.where(Decision.decision_id.in_(chunk))).mappings()
    }


def _record(row: RowMapping) -> DecisionRecord:
    fields: dict[str, Any] = dict(row)
    for name in ("candidate_creative_ids", "propensities"):
        fields[name] = tuple(fields[name])
    return DecisionRecord(**fields)


def _check_same(new: NewDecision, stored: DecisionRecord) -> None:
    differences = [
        f"{name} {ours!r} (stored: {theirs!r})"
        for name, ours, theirs in (
            ("campaign_id", new.campaign_id, stored.campaign_id),
            ("context", canonical_json(dict(new.context)), canonical_json(stored.context)),
            ("candidates", new.candidate_creative_ids, stored.candidate_creative_ids),
        )
        if ours != theirs
    ]
    if differences:
        raise DecisionConflictError(
            f"decision {new.decision_id!r} is taken by another request: it differs in "
            f"{', '.join(differences)}; nothing was written. Give each request its own id"
        )
