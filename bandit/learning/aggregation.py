"""Outcomes alike in all that the model sees are one row of counts: the same posterior for less work.

The rows of a batch, and those of a refit: all that was learnt.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple

import numpy as np

from bandit.features.context import context_vectors
from bandit.features.design import N_CONTEXT
from bandit.learning.kernels import CountedRows
from bandit.learning.schedule import decay_after, stretches
from bandit.model.model import Model
from bandit.padding import padded_size, room_for
from storage import ContextRecord, LearnRows, Store

ROWS = (1_024, 4_096, 16_384, 65_536)  # of a refit


class BinomialCount(NamedTuple):
    """Outcomes of one arm in one context.

    Attributes:
        creative_id: Whose.
        context: A checked context; {} counts as the average one.
        slots_version: The version of the context schema that they were made with.
        impressions: n.
        clicks: c.
    """

    creative_id: int
    context: Mapping[str, Any]
    slots_version: int
    impressions: float
    clicks: float


def count_distinct(rows: LearnRows) -> list[BinomialCount]:
    """Add up decisions of one creative in one context, in the order in which they first come."""
    kinds = _kinds(rows)
    impressions, clicks = Counter(kinds), Counter(compress(kinds, rows.clicks))
    return [
        BinomialCount(
            creative_id, rows.contexts[context], slots_version, n, clicks[creative_id, slots_version, context]
        )
        for (creative_id, slots_version, context), n in impressions.items()
    ]


def leading_rows(rows: LearnRows, most_kinds: int) -> LearnRows:
    """Return the first rows of which no more than `most_kinds` differ in creative or context."""
    kinds = _kinds(rows)
    distinct = list(dict.fromkeys(kinds))
    return rows if len(distinct) <= most_kinds else rows.first(kinds.index(distinct[most_kinds]))


def _kinds(rows: LearnRows) -> list[tuple[int, int, int]]:
    return list(zip(rows.creative_ids, rows.slots_versions, rows.context, strict=True))


def aggregate(
    counted: Sequence[BinomialCount],
    schema: ContextRecord,
    arm: Mapping[int, int],
    arm_campaign: np.ndarray,
    padded: Callable[[int], int],
) -> CountedRows:
    """Add up the counts of each arm and context vector, in the order in which they first come.

    Rows with one φ and one arm have one logit, so every pass over them gives them one site; n rows with an
    impression each, c of them clicked, add W and t of n impressions and c clicks.

    Args:
        counted: Counts; many may be alike.
        schema: The context schema, at least as new as theirs.
        arm: A creative's place in the posterior's arrays.
        arm_campaign: The campaign's index of each arm, [arms].
        padded: The number of rows to pad a number of rows to.

    Returns:
        The rows, padded with rows without impressions.
    """
    vectors = context_vectors(
        [each.context for each in counted], schema, [each.slots_version for each in counted]
    )
    totals: dict[tuple[int, bytes], list[float]] = {}
    for vector, each in zip(vectors, counted, strict=True):
        total = totals.setdefault((arm[each.creative_id], vector.tobytes()), [0.0, 0.0])
        total[0] += each.impressions
        total[1] += each.clicks
    padding = padded(max(len(totals), 1)) - len(totals)
    contexts = np.frombuffer(b"".join(vector for _, vector in totals)).reshape(len(totals), N_CONTEXT)
    arms = np.array([index for index, _ in totals], np.int64)
    counts = np.array(list(totals.values())).reshape(len(totals), 2)
    arrays: list[Any] = [
        np.pad(contexts, ((0, padding), (0, 0))),
        np.pad(arms, (0, padding)),
        np.pad(arm_campaign[arms], (0, padding)),
        *np.pad(counts, ((0, padding), (0, 0))).T,
    ]
    return CountedRows(*arrays)


def count_learnt(store: Store, model: Model, up_to_step: int) -> CountedRows:
    """Count what was learnt up to a step, and the history, weighed by what was forgotten since.

    Args:
        store: The database.
        model: Campaigns and context schema.
        up_to_step: The last learning step whose decisions count.

    Returns:
        One row for each arm and context vector.
    """
    model_id = model.record.model_id
    forgets = store.learning.forgets(model_id, up_to_step=up_to_step)
    counted = []
    for after, up_to, decay in stretches(forgets, up_to_step):
        for row in store.learning.counts(model_id, after_step=after, up_to_step=up_to):
            counts = (decay * row.impressions, decay * row.clicks)
            counted.append(BinomialCount(row.creative_id, row.context, row.slots_version, *counts))
    for past in store.learning.history_counts(model_id):
        decay = decay_after(past.imported_at, forgets)
        counts = (decay * past.impressions, decay * past.clicks)
        counted.append(BinomialCount(past.creative_id, past.context, past.slots_version, *counts))
    return aggregate(counted, model.schema, model.catalog.arm, model.catalog.arm_campaign, room_to_fit)


def room_to_fit(n: int) -> int:
    """Return how many rows a refit of n computes with: few sizes, for each has programs of its own.

    Example:
        >>> room_to_fit(3), room_to_fit(5_000), room_to_fit(200_000)
        (1024, 16384, 212992)
    """
    return padded_size(n, ROWS) if n <= ROWS[-1] else room_for(n, 0)
