"""From requests to decisions: who may be shown, the compiled draw, and the row to be logged."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from itertools import count
from math import log
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bandit.context import context_vector
from bandit.errors import CampaignInactiveError, NoCandidatesError
from bandit.features import N_CONTEXT
from bandit.horizon import expected_horizon
from bandit.limits import Limits
from bandit.logit_map import LogitMap, SlotMap
from bandit.luck import Luck, draw_luck
from bandit.model import Model
from bandit.numerics import double_precision
from bandit.points import N_SETS, normal_points
from bandit.records import Request
from bandit.roster import CampaignEntry
from bandit.selection import (
    BATCHES,
    CANDIDATES,
    Batch,
    Groups,
    Table,
    draw_from_table,
    maps_of,
    padded_size,
    select_batch,
    select_list,
    slots_of,
    tabulate,
)
from bandit.thompson import KAPPA, Choice, Exploration
from bandit.view import View
from storage import ContextRecord, CreativeRecord, NewDecision, UnknownCreativeError

MOST_KEPT = 4_096  # contexts, groups, maps: what a view remembers is dropped when it has more of one kind
TABLE_AFTER = 64  # requests without context after which a group's table pays: it costs as much as 64 of them
TABLE_PART = 32  # of a chunk: a group with fewer is drawn with all others in one call
PLACES = (2, 4, 8, 16, 32, 64)


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


def prepare(request: Request, decision_id: str, view: View) -> Prepared:
    """Return a request with its candidates; raises as `candidates_of`."""
    known = _kept(view, "candidates")
    key = (request.campaign, request.eligible, request.exclude)
    if key not in known:
        entry = view.roster.campaigns[request.campaign]
        creatives = candidates_of(request, entry)
        size = padded_size(len(creatives), CANDIDATES)
        arm = np.zeros(size, np.int64)
        arm[: len(creatives)] = [view.roster.arm[creative.creative_id] for creative in creatives]
        ids = tuple(creative.creative_id for creative in creatives)
        known[key] = Candidates(_next_number(view), entry, creatives, ids, size, arm)
    return Prepared(request, known[key], decision_id)


def _next_number(view: View) -> int:
    numbers: Iterator[int] = view.memo.setdefault("numbers", count())
    return next(numbers)


def _kept(view: View, kind: str) -> dict[Any, Any]:
    """Return what a view remembers of one kind; emptied when it is too much."""
    kept: dict[Any, Any] = view.memo.setdefault(kind, {})
    if len(kept) >= MOST_KEPT:
        kept.clear()
    return kept


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


def choose_all(prepared: Sequence[Prepared], view: View, model: Model, now: datetime) -> list[NewDecision]:
    """Choose for all requests with one posterior; call it in double precision.

    Args:
        prepared: The requests, of any campaigns.
        view: The posterior and contents.
        model: The context schema and the seed.
        now: The time of the decisions.

    Returns:
        Rows to be stored, in the order given. None depends on the others.
    """
    schema, seed = model.schema, model.record.seed
    luck = draw_luck([item.decision_id for item in prepared], seed)
    chunks: dict[Hashable, list[int]] = defaultdict(list)
    contexts = [_vector(item.request.context, schema, view) for item in prepared]
    tables = _tables(prepared, contexts, view, now)
    for i, item in enumerate(prepared):
        is_tabulated = item.candidates.number in tables and not contexts[i].any()
        chunks[item.candidates.number if is_tabulated else (item.candidates.size,)].append(i)
    decisions: dict[int, NewDecision] = {}
    for key, positions in chunks.items():
        for start in range(0, len(positions), BATCHES[-1]):
            chunk = positions[start : start + BATCHES[-1]]
            items = [prepared[i] for i in chunk]
            own = Luck(*(numbers[chunk] for numbers in luck))
            if isinstance(key, int):
                choice = draw_from_table(tables[key], _padded(own, padded_size(len(chunk), BATCHES)))
            else:
                choice = _choose_chunk(items, [contexts[i] for i in chunk], own, view, now)
            rows = _decisions(items, jax.device_get(choice), own, (view.step, schema.version), now)
            decisions.update(zip(chunk, rows, strict=True))
    return [decisions[i] for i in range(len(prepared))]


def choose_places(
    item: Prepared, n_places: int, view: View, model: Model, now: datetime
) -> list[NewDecision]:
    """Choose an ordered list of distinct creatives for one request; call it in double precision.

    Args:
        item: The request.
        n_places: How many; fewer when there are fewer candidates.
        view: The posterior and contents.
        model: The context schema and the seed.
        now: The time of the decisions.

    Returns:
        Rows to be stored, one a place; their ids are those of `place_ids`.
    """
    n = min(n_places, len(item.candidates.creatives))
    ids = place_ids(item.decision_id, n)
    padded = place_ids(item.decision_id, padded_size(n, PLACES))
    luck = draw_luck(padded, model.record.seed)
    context = np.tile(_vector(item.request.context, model.schema, view), (len(padded), 1))
    slots, maps, groups = _grouped([item.candidates], view, now)
    rows: list[Any] = [context, np.zeros(len(padded), np.int64)]
    batch = Batch(rows[0], rows[1], luck)
    listed = jax.device_get(select_list(slots, maps, groups, batch, _device_points(item.candidates.size)))
    list_propensity = float(listed.list_propensity[n - 1])
    items = [item._replace(decision_id=name) for name in ids]
    first = luck._replace(point_set=np.repeat(luck.point_set[0], len(padded)))
    versions = (view.step, model.schema.version)
    return [
        replace(
            row,
            place=place,
            list_propensity=list_propensity,
            request_id=row.request_id or item.decision_id,
        )
        for place, row in enumerate(_decisions(items, listed.places, first, versions, now))
    ]


def place_ids(decision_id: str, n_places: int) -> list[str]:
    """Return the ids of the places of a list: the first one's is the list's.

    Example:
        >>> place_ids("a", 3)
        ['a', 'a~1', 'a~2']
    """
    return [decision_id, *(f"{decision_id}~{place}" for place in range(1, n_places))]


def _choose_chunk(
    items: Sequence[Prepared], contexts: Sequence[np.ndarray], luck: Luck, view: View, now: datetime
) -> Choice:
    """Return choices of requests of one padded number of candidates, padded to a batch."""
    n_rows = padded_size(len(items), BATCHES)
    distinct = sorted({item.candidates.number: item.candidates for item in items}.values())
    place = {candidates.number: i for i, candidates in enumerate(distinct)}
    context = np.zeros((n_rows, N_CONTEXT))
    context[: len(items)] = contexts
    group = np.zeros(n_rows, np.int64)
    group[: len(items)] = [place[item.candidates.number] for item in items]
    slots, maps, groups = _grouped(distinct, view, now)
    # NumPy arrays go in as they are: the compiled call moves them to the device faster than one by one.
    rows: list[Any] = [context, group]
    batch = Batch(rows[0], rows[1], _padded(luck, n_rows))
    choice: Choice = select_batch(slots, maps, groups, batch, _device_points(distinct[0].size))
    return choice


def _padded(luck: Luck, n_rows: int) -> Luck:
    if len(luck.order) == n_rows:
        return luck
    return Luck(*(np.pad(numbers, (0, n_rows - len(numbers))) for numbers in luck))


def _grouped(distinct: Sequence[Candidates], view: View, now: datetime) -> tuple[SlotMap, LogitMap, Groups]:
    """Return the maps and settings of groups of one size, padded by the first one; most of it is kept."""
    n_groups = padded_size(len(distinct), BATCHES)
    padded = [*distinct, *[distinct[0]] * (n_groups - len(distinct))]
    if "slots" not in view.memo:
        view.memo["slots"] = slots_of(view.state)
    slots: SlotMap = view.memo["slots"]
    kept = _kept(view, "maps")
    key = tuple(candidates.number for candidates in padded)
    if key not in kept:
        arm = np.stack([candidates.arm for candidates in padded])
        campaign = np.array([candidates.entry.index for candidates in padded])
        maps = maps_of(view.state, slots, view.tables, arm, campaign)
        kept[key] = (maps, *jax.device_put(_limits(padded)))
    maps, eligible, limits = kept[key]
    numbers: list[Any] = list(np.array([_exploration(one.entry, view, now) for one in padded]).T)
    return slots, maps, Groups(eligible, Exploration(*numbers), limits)


def _limits(padded: Sequence[Candidates]) -> tuple[np.ndarray, Limits]:
    """Return who is a candidate and no padding, and the floors and caps, [groups, candidates]."""
    size = padded[0].size
    eligible = np.zeros((len(padded), size), bool)
    limits: list[Any] = [np.zeros((len(padded), size)), np.ones((len(padded), size))]
    for i, candidates in enumerate(padded):
        n = len(candidates.creatives)
        eligible[i, :n] = True
        limits[0][i, :n] = [creative.floor for creative in candidates.creatives]
        limits[1][i, :n] = [creative.cap for creative in candidates.creatives]
    return eligible, Limits(*limits)


def _exploration(entry: CampaignEntry, view: View, now: datetime) -> tuple[float, ...]:
    record = entry.record
    so_far, n_active = view.so_far.get(record.campaign_id, 0), len(entry.active)
    horizon = expected_horizon(record, so_far, n_active, now)
    return (horizon, so_far, KAPPA, record.uniform_share, n_active, record.control_share)


def _tables(
    prepared: Sequence[Prepared], contexts: Sequence[np.ndarray], view: View, now: datetime
) -> dict[int, Table]:
    """Return the tables of groups that are asked for often without context, by their number."""
    asked: Counter[int] = Counter()
    groups: dict[int, Candidates] = {}
    for item, context in zip(prepared, contexts, strict=True):
        if not context.any():
            asked[item.candidates.number] += 1
            groups[item.candidates.number] = item.candidates
    is_alone = len({item.candidates.number for item in prepared}) == 1
    counts, kept = _kept(view, "asked"), _kept(view, "tables")
    tables = {}
    for number, n in asked.items():
        exploration = _exploration(groups[number].entry, view, now)
        key = (number, _grid_step(*exploration), *exploration[2:])
        counts[key] = counts.get(key, 0) + n
        if counts[key] >= TABLE_AFTER and (is_alone or n >= TABLE_PART):
            if key not in kept:
                slots, maps, settings = _grouped([groups[number]], view, now)
                points = _device_points(groups[number].size)
                kept[key] = tabulate(slots, maps, settings, points)
            tables[number] = kept[key]
    return tables


def _grid_step(horizon: float, so_far: float, kappa: float, share: float, n_active: float, _: float) -> float:
    """Return the step of H on its grid, see `thompson.remaining_impressions`."""
    even = max(horizon - so_far, 0.1 * so_far) / n_active
    return round(log(even) / log(1.1)) if 0 < even < 1e12 else even


def _vector(context: Mapping[str, Any], schema: ContextRecord, view: View) -> Float[np.ndarray, "16"]:
    """Return a context's vector; what a context means at one version of the schema never changes."""
    kept = _kept(view, "contexts")
    key = (schema.version, *context.items())
    if key not in kept:
        kept[key] = context_vector(context, schema)
    vector: np.ndarray = kept[key]
    return vector


def _decisions(
    items: Sequence[Prepared], choice: Choice, luck: Luck, versions: tuple[int, int], now: datetime
) -> list[NewDecision]:
    step, slots_version = versions
    columns = [np.asarray(column)[: len(items)].tolist() for column in choice]
    point_sets = (luck.point_set % N_SETS).tolist()
    return [
        NewDecision(
            decision_id=item.decision_id,
            campaign_id=item.candidates.entry.record.campaign_id,
            creative_id=item.candidates.creative_ids[chosen],
            candidate_creative_ids=item.candidates.creative_ids,
            propensities=tuple(propensities[: len(item.candidates.creatives)]),
            propensity=propensities[chosen],
            context=item.request.context,
            model_version=step,
            slots_version=slots_version,
            horizon=None if item.candidates.entry.record.horizon is None else remaining,
            kappa=KAPPA,
            point_set=point_set,
            decided_at=now,
            activated_at=None if item.request.defer_activation else now,
            request_id=item.request.request_id,
            is_control=is_control,
        )
        for item, propensities, chosen, remaining, is_control, point_set in zip(
            items, *columns, point_sets[: len(items)], strict=True
        )
    ]


@cache
def _device_points(n_candidates: int) -> jax.Array:
    return jnp.asarray(normal_points(n_candidates))


def warm_up(newest: Callable[[], View], model: Model, now: datetime) -> Iterator[None]:
    """Compile, or load, the programs for the sizes of the active campaigns; stop after each.

    Args:
        newest: Gives the posterior and contents; asked anew for each program, while others wait.
        model: The context schema and the seed.
        now: The time.
    """
    entries: defaultdict[int, list[CampaignEntry]] = defaultdict(list)
    for entry in newest().roster.campaigns.values():
        if entry.record.status == "active" and entry.active:
            entries[padded_size(len(entry.active), CANDIDATES)].append(entry)
    for size, alike in entries.items():
        for n in BATCHES:
            luck = draw_luck([f"warm-up-{i}" for i in range(n)], model.record.seed)
            some = alike[:n]
            for n_groups in (m for m in BATCHES if m <= padded_size(len(some), BATCHES)):
                with double_precision():
                    # Apart from the view's own memory: what is asked for here counts for nothing there.
                    apart = newest()._replace(memo={})
                    requests = [Request(campaign=entry.record.name) for entry in some[:n_groups]]
                    kinds = [prepare(request, "warm-up", apart) for request in requests]
                    items = [kinds[i % len(kinds)] for i in range(n)]
                    choice = _choose_chunk(items, [np.zeros(N_CONTEXT)] * n, luck, apart, now)
                    table = tabulate(*_grouped([kinds[0].candidates], apart, now), _device_points(size))
                    jax.block_until_ready((choice, draw_from_table(table, luck)))
                yield
