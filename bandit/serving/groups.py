"""What the posterior says of groups of candidates, kept with a view: maps of logits and tables of draws."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from math import log
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bandit.learning.view import PosteriorView
from bandit.model.catalog import CampaignEntry
from bandit.padding import batches_of, padded_size
from bandit.policy.horizon import expected_horizon
from bandit.policy.kernels import CandidateGroups, ChoiceTable, maps_of, slots_of, tabulate
from bandit.policy.predictive import LogitMap, SlotMap
from bandit.policy.propensity import Limits
from bandit.policy.quasi_random import normal_points
from bandit.policy.thompson import KAPPA, Exploration
from bandit.serving.candidates import Candidates, Prepared, memo_of

TABLE_AFTER = 64  # requests without context after which a group's table pays: it costs as much as 64 of them
TABLE_PART = 32  # of a chunk: a group with fewer is drawn with all others in one call


def grouped(
    distinct: Sequence[Candidates], view: PosteriorView, now: datetime
) -> tuple[SlotMap, LogitMap, CandidateGroups]:
    """Return the maps and settings of groups of one size, padded by the first one; most of it is kept."""
    n_groups = padded_size(len(distinct), batches_of(distinct[0].size))
    padded = [*distinct, *[distinct[0]] * (n_groups - len(distinct))]
    if "slots" not in view.memo:
        view.memo["slots"] = slots_of(view.state)
    slots: SlotMap = view.memo["slots"]
    kept = memo_of(view, "maps")
    key = tuple(candidates.number for candidates in padded)
    if key not in kept:
        arm = np.stack([candidates.arm for candidates in padded])
        campaign = np.array([candidates.entry.index for candidates in padded])
        maps = maps_of(view.state, slots, view.tables, arm, campaign)
        kept[key] = (maps, *jax.device_put(_limits(padded)))
    maps, eligible, limits = kept[key]
    numbers: list[Any] = list(np.array([_exploration(one.entry, view, now) for one in padded]).T)
    return slots, maps, CandidateGroups(eligible, Exploration(*numbers), limits)


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


def _exploration(entry: CampaignEntry, view: PosteriorView, now: datetime) -> tuple[float, ...]:
    record = entry.record
    so_far, n_active = view.so_far.get(record.campaign_id, 0), len(entry.active)
    horizon = expected_horizon(record, so_far, n_active, now)
    return (horizon, so_far, KAPPA, record.uniform_share, n_active, record.control_share)


def tables_of(
    prepared: Sequence[Prepared], contexts: Sequence[np.ndarray], view: PosteriorView, now: datetime
) -> dict[int, ChoiceTable]:
    """Return the tables of groups that are asked for often without context, by their number."""
    asked: Counter[int] = Counter()
    groups: dict[int, Candidates] = {}
    for item, context in zip(prepared, contexts, strict=True):
        if not context.any():
            asked[item.candidates.number] += 1
            groups[item.candidates.number] = item.candidates
    is_alone = len({item.candidates.number for item in prepared}) == 1
    counts, kept = memo_of(view, "asked"), memo_of(view, "tables")
    tables = {}
    for number, n in asked.items():
        exploration = _exploration(groups[number].entry, view, now)
        key = (number, _grid_step(*exploration), *exploration[2:])
        counts[key] = counts.get(key, 0) + n
        if counts[key] >= TABLE_AFTER and (is_alone or n >= TABLE_PART):
            if key not in kept:
                slots, maps, settings = grouped([groups[number]], view, now)
                points = device_points(groups[number].size)
                kept[key] = tabulate(slots, maps, settings, points)
            tables[number] = kept[key]
    return tables


def _grid_step(horizon: float, so_far: float, kappa: float, share: float, n_active: float, _: float) -> float:
    """Return the step of H on its grid, see `thompson.remaining_impressions`."""
    even = max(horizon - so_far, 0.1 * so_far) / n_active
    return round(log(even) / log(1.1)) if 0 < even < 1e12 else even


@cache
def device_points(n_candidates: int) -> jax.Array:
    """Return the point sets on the device."""
    return jnp.asarray(normal_points(n_candidates))
