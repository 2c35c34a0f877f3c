"""From requests to decisions: who may be shown, the compiled draw, and the row to be logged."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from bandit.features.context import context_vector
from bandit.features.design import N_CONTEXT
from bandit.jax_runtime import double_precision
from bandit.learning.view import PosteriorView
from bandit.model.catalog import CampaignEntry
from bandit.model.model import Model
from bandit.padding import BATCHES, CANDIDATES, batches_of, padded_size
from bandit.policy.kernels import Batch, draw_from_table, select_batch, select_list, tabulate
from bandit.policy.quasi_random import N_SETS
from bandit.policy.randomness import Uniforms, uniforms_of_ids
from bandit.policy.thompson import KAPPA, Choice
from bandit.serving.candidates import Prepared, memo_of, prepare
from bandit.serving.groups import device_points, grouped, tables_of
from bandit.types import Request
from storage import ContextRecord, NewDecision

LIST_SIZES = (2, 4, 8, 16, 32, 64)


def choose_all(
    prepared: Sequence[Prepared], view: PosteriorView, model: Model, now: datetime
) -> list[NewDecision]:
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
    uniforms = uniforms_of_ids([item.decision_id for item in prepared], seed)
    chunks: defaultdict[int | tuple[int], list[int]] = defaultdict(list)
    contexts = [_vector(item.request.context, schema, view) for item in prepared]
    tables = tables_of(prepared, contexts, view, now)
    for i, item in enumerate(prepared):
        is_tabulated = item.candidates.number in tables and not contexts[i].any()
        chunks[item.candidates.number if is_tabulated else (item.candidates.size,)].append(i)
    decisions: dict[int, NewDecision] = {}
    for key, positions in chunks.items():
        most = (BATCHES if isinstance(key, int) else batches_of(key[0]))[-1]
        for start in range(0, len(positions), most):
            chunk = positions[start : start + most]
            items = [prepared[i] for i in chunk]
            own = Uniforms(*(numbers[chunk] for numbers in uniforms))
            if isinstance(key, int):
                choice = draw_from_table(tables[key], _padded(own, padded_size(len(chunk), BATCHES)))
            else:
                choice = _choose_chunk(items, [contexts[i] for i in chunk], own, view, now)
            rows = _decisions(items, jax.device_get(choice), own, (view.step, schema.version), now)
            decisions.update(zip(chunk, rows, strict=True))
    return [decisions[i] for i in range(len(prepared))]


def choose_places(
    item: Prepared, n_places: int, view: PosteriorView, model: Model, now: datetime
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
    padded = place_ids(item.decision_id, padded_size(n, LIST_SIZES))
    uniforms = uniforms_of_ids(padded, model.record.seed)
    context = np.tile(_vector(item.request.context, model.schema, view), (len(padded), 1))
    slots, maps, groups = grouped([item.candidates], view, now)
    rows: list[Any] = [context, np.zeros(len(padded), np.int64)]
    batch = Batch(rows[0], rows[1], uniforms)
    listed = jax.device_get(select_list(slots, maps, groups, batch, device_points(item.candidates.size)))
    list_propensity = float(listed.list_propensity[n - 1])
    items = [item._replace(decision_id=name) for name in ids]
    first = uniforms._replace(point_set=np.repeat(uniforms.point_set[0], len(padded)))
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
    items: Sequence[Prepared],
    contexts: Sequence[np.ndarray],
    uniforms: Uniforms,
    view: PosteriorView,
    now: datetime,
) -> Choice:
    """Return choices of requests of one padded number of candidates, padded to a batch."""
    n_rows = padded_size(len(items), batches_of(items[0].candidates.size))
    distinct = sorted({item.candidates.number: item.candidates for item in items}.values())
    place = {candidates.number: i for i, candidates in enumerate(distinct)}
    context = np.zeros((n_rows, N_CONTEXT))
    context[: len(items)] = contexts
    group = np.zeros(n_rows, np.int64)
    group[: len(items)] = [place[item.candidates.number] for item in items]
    slots, maps, groups = grouped(distinct, view, now)
    # NumPy arrays go in as they are: the compiled call moves them to the device faster than one by one.
    rows: list[Any] = [context, group]
    batch = Batch(rows[0], rows[1], _padded(uniforms, n_rows))
    choice: Choice = select_batch(slots, maps, groups, batch, device_points(distinct[0].size))
    return choice


def _padded(uniforms: Uniforms, n_rows: int) -> Uniforms:
    if len(uniforms.order) == n_rows:
        return uniforms
    return Uniforms(*(np.pad(numbers, (0, n_rows - len(numbers))) for numbers in uniforms))


def _vector(
    context: Mapping[str, Any], schema: ContextRecord, view: PosteriorView
) -> Float[np.ndarray, "16"]:
    """Return a context's vector; what a context means at one version of the schema never changes."""
    kept = memo_of(view, "contexts")
    key = (schema.version, *context.items())
    if key not in kept:
        kept[key] = context_vector(context, schema)
    vector: np.ndarray = kept[key]
    return vector


def _decisions(
    items: Sequence[Prepared], choice: Choice, uniforms: Uniforms, versions: tuple[int, int], now: datetime
) -> list[NewDecision]:
    step, slots_version = versions
    columns = [np.asarray(column)[: len(items)].tolist() for column in choice]
    point_sets = (uniforms.point_set % N_SETS).tolist()
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


def warm_up(newest: Callable[[], PosteriorView], model: Model, now: datetime) -> Iterator[None]:
    """Compile, or load, the programs for the sizes of the active campaigns; stop after each.

    Args:
        newest: Gives the posterior and contents; asked anew for each program, while others wait.
        model: The context schema and the seed.
        now: The time.
    """
    entries: defaultdict[int, list[CampaignEntry]] = defaultdict(list)
    for entry in newest().catalog.campaigns.values():
        if entry.record.status == "active" and entry.active:
            entries[padded_size(len(entry.active), CANDIDATES)].append(entry)
    for size, alike in entries.items():
        batches = batches_of(size)
        for n in batches:
            uniforms = uniforms_of_ids([f"warm-up-{i}" for i in range(n)], model.record.seed)
            some = alike[:n]
            for n_groups in (m for m in batches if m <= padded_size(len(some), batches)):
                with double_precision():
                    # Apart from the view's own memory: what is asked for here counts for nothing there.
                    apart = newest()._replace(memo={})
                    requests = [Request(campaign=entry.record.name) for entry in some[:n_groups]]
                    kinds = [prepare(request, "warm-up", apart) for request in requests]
                    items = [kinds[i % len(kinds)] for i in range(n)]
                    choice = _choose_chunk(items, [np.zeros(N_CONTEXT)] * n, uniforms, apart, now)
                    table = tabulate(*grouped([kinds[0].candidates], apart, now), device_points(size))
                    jax.block_until_ready((choice, draw_from_table(table, uniforms)))
                yield
