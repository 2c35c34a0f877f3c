"""Who may be shown: the candidates of a request, looked up once for all requests alike."""

from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from bandit.errors import CampaignInactiveError, NoCandidatesError
from bandit.learning.view import PosteriorView
from bandit.model.catalog import CampaignEntry
from bandit.padding import CANDIDATES, padded_size
from bandit.types import Request
from storage import CreativeRecord, UnknownCreativeError

MOST_KEPT = 4_096  # contexts, groups, maps: what a view remembers is dropped when it has more of one kind


class Candidates(NamedTuple):
    """Who requests of one campaign, `eligible` and `exclude` may show; kept as long as a view.

    Attributes:
        number: Tells groups of a view apart.
        entry: The campaign.
        creatives: The candidates, in the order of their ids.
        creative_ids: Their ids.
        size: Their padded number.
        arm: Their arms, padded.
    """

    number: int
    entry: CampaignEntry
    creatives: tuple[CreativeRecord, ...]
    creative_ids: tuple[int, ...]
    size: int
    arm: np.ndarray


class Prepared(NamedTuple):
    """A checked request with its candidates and its decision's id."""

    request: Request
    candidates: Candidates
    decision_id: str


def prepare(request: Request, decision_id: str, view: PosteriorView) -> Prepared:
    """Return a request with its candidates; raises as `candidates_of`."""
    known = memo_of(view, "candidates")
    key = (request.campaign, request.eligible, request.exclude)
    if key not in known:
        entry = view.catalog.campaigns[request.campaign]
        creatives = candidates_of(request, entry)
        size = padded_size(len(creatives), CANDIDATES)
        arm = np.zeros(size, np.int64)
        arm[: len(creatives)] = [view.catalog.arm[creative.creative_id] for creative in creatives]
        ids = tuple(creative.creative_id for creative in creatives)
        known[key] = Candidates(_next_number(view), entry, creatives, ids, size, arm)
    return Prepared(request, known[key], decision_id)


def _next_number(view: PosteriorView) -> int:
    numbers: Iterator[int] = view.memo.setdefault("numbers", count())
    return next(numbers)


def memo_of(view: PosteriorView, kind: str) -> dict[Any, Any]:
    """Return what a view remembers of one kind; emptied when it is too much."""
    memo: dict[Any, Any] = view.memo.setdefault(kind, {})
    if len(memo) >= MOST_KEPT:
        memo.clear()
    return memo


def candidates_of(request: Request, entry: CampaignEntry) -> tuple[CreativeRecord, ...]:
    """Return the creatives that a request may show, in the order of their ids.

    Raises:
        CampaignInactiveError: The campaign is paused or has ended.
        UnknownCreativeError: A named creative is none of the campaign's.
        NoCandidatesError: None is left.
    """
    name = entry.record.name
    if entry.record.status != "active":
        raise CampaignInactiveError(f"campaign {name!r} is {entry.record.status}; resume it before selecting")
    if not entry.creatives:
        raise NoCandidatesError(f"campaign {name!r} has no creatives; add some with add_creatives")
    active = entry.active
    if not active:
        states = sorted({creative.status for creative in entry.creatives})
        raise NoCandidatesError(
            f"campaign {name!r}: all of its {len(entry.creatives)} creatives are {' or '.join(states)}; "
            "resume one or add another"
        )
    named = (request.eligible or frozenset()) | request.exclude
    unknown = named - {creative.external_id for creative in entry.creatives}
    if unknown:
        raise UnknownCreativeError(
            f"campaign {name!r} has no creative {', '.join(map(repr, sorted(unknown)))}"
        )
    allowed = tuple(
        creative
        for creative in active
        if (request.eligible is None or creative.external_id in request.eligible)
        and creative.external_id not in request.exclude
    )
    if not allowed:
        raise NoCandidatesError(
            f"campaign {name!r}: none of its {len(active)} active creatives is left by eligible and exclude"
        )
    return allowed
