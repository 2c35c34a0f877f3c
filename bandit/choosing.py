"""From requests to decisions: who may be shown, the compiled draw, and the row to be logged."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bandit.context import context_vectors
from bandit.errors import CampaignInactiveError, NoCandidatesError
from bandit.horizon import expected_horizon
from bandit.learner import View
from bandit.model import Model
from bandit.numerics import double_precision
from bandit.points import N_SETS, normal_points
from bandit.records import Request
from bandit.roster import CampaignEntry
from bandit.selection import BATCHES, CANDIDATES, Batch, padded_size, select_batch
from bandit.thompson import KAPPA, Exploration, decision_words
from storage import CreativeRecord, NewDecision, UnknownCreativeError


class Prepared(NamedTuple):
    """A checked request with its campaign, its candidates and its decision's id."""

    request: Request
    entry: CampaignEntry
    candidates: tuple[CreativeRecord, ...]
    decision_id: str


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


def choose_all(
    prepared: Sequence[Prepared], newest: Callable[[], View], model: Model, now: datetime
) -> list[NewDecision]:
    """Choose for all requests with one posterior.

    Args:
        prepared: The requests, of any campaigns.
        newest: Gives the posterior and contents; asked in each block that computes, for learning reuses a
            view's buffers once it has replaced it.
        model: The context schema.
        now: The time of the decisions.

    Returns:
        Rows to be stored, in the order given. None depends on the others.
    """
    by_size: defaultdict[int, list[int]] = defaultdict(list)
    for position, item in enumerate(prepared):
        by_size[padded_size(len(item.candidates), CANDIDATES)].append(position)
    decisions: dict[int, NewDecision] = {}
    for size, positions in by_size.items():
        for start in range(0, len(positions), BATCHES[-1]):
            chunk = positions[start : start + BATCHES[-1]]
            rows = _choose_chunk([prepared[i] for i in chunk], size, newest, model, now)
            decisions.update(zip(chunk, rows, strict=True))
    return [decisions[i] for i in range(len(prepared))]


def _choose_chunk(
    items: Sequence[Prepared], size: int, newest: Callable[[], View], model: Model, now: datetime
) -> list[NewDecision]:
    n_rows = padded_size(len(items), BATCHES)
    schema, view = model.schema, newest()
    context = np.zeros((n_rows, 16))
    context[: len(items)] = context_vectors(
        [item.request.context for item in items], schema, [schema.version] * len(items)
    )
    arm = np.zeros((n_rows, size), np.int64)
    eligible = np.zeros((n_rows, size), bool)
    campaign = np.zeros(n_rows, np.int64)
    exploration = np.ones((5, n_rows))
    words = np.zeros((n_rows, 3), np.uint32)
    horizons: dict[int, tuple[float, int, int]] = {}
    for i, item in enumerate(items):
        n = len(item.candidates)
        record = item.entry.record
        arm[i, :n] = [view.roster.arm[creative.creative_id] for creative in item.candidates]
        eligible[i, :n] = True
        campaign[i] = item.entry.index
        if record.campaign_id not in horizons:
            so_far = view.so_far.get(record.campaign_id, 0)
            n_active = len(item.entry.active)
            horizon = expected_horizon(record, so_far, n_active, now)
            horizons[record.campaign_id] = (horizon, so_far, n_active)
        horizon, so_far, n_active = horizons[record.campaign_id]
        exploration[:, i] = (horizon, so_far, KAPPA, record.uniform_share, n_active)
        words[i] = decision_words(item.decision_id)
    # A padded request has one candidate, so that nothing in it is undefined.
    eligible[len(items) :, 0] = True
    with double_precision():
        # NumPy arrays go in as they are: the compiled call moves them to the device faster than one by one.
        arrays: list[Any] = [context, arm, campaign, eligible, Exploration(*exploration), words]
        batch = Batch(*arrays)
        seed = np.uint32(model.record.seed & 0xFFFFFFFF)
        view = newest()  # places of arms never change
        choice = jax.device_get(select_batch(view.state, view.tables, batch, _device_points(size), seed))
    return [
        _decision(
            item,
            choice.propensities[i],
            int(choice.chosen[i]),
            float(choice.remaining[i]),
            (view.step, schema.version, int(words[i, 2]) % N_SETS),
            now,
        )
        for i, item in enumerate(items)
    ]


def _decision(
    item: Prepared,
    propensities: np.ndarray,
    chosen: int,
    remaining: float,
    versions: tuple[int, int, int],
    now: datetime,
) -> NewDecision:
    n = len(item.candidates)
    step, slots_version, point_set = versions
    return NewDecision(
        decision_id=item.decision_id,
        campaign_id=item.entry.record.campaign_id,
        creative_id=item.candidates[chosen].creative_id,
        candidate_creative_ids=tuple(creative.creative_id for creative in item.candidates),
        propensities=tuple(propensities[:n].tolist()),
        propensity=float(propensities[chosen]),
        context=item.request.context,
        model_version=step,
        slots_version=slots_version,
        horizon=None if item.entry.record.horizon is None else remaining,
        kappa=KAPPA,
        point_set=point_set,
        decided_at=now,
        activated_at=None if item.request.defer_activation else now,
        request_id=item.request.request_id,
    )


@cache
def _device_points(n_candidates: int) -> jax.Array:
    return jnp.asarray(normal_points(n_candidates))
