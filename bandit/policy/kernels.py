"""Compiled selection: many requests of one padded shape in one call."""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from bandit.features.content_tables import ContentTables
from bandit.features.design import N_CONTEXT
from bandit.policy.predictive import LogitMap, SlotMap, map_logits, map_slots
from bandit.policy.propensity import Limits, Propensities, draw, propensities_of
from bandit.policy.quasi_random import N_POINTS, N_SETS
from bandit.policy.randomness import Uniforms
from bandit.policy.thompson import (
    Choice,
    Exploration,
    ListChoice,
    Lookahead,
    choose_list,
    even_share,
    is_best,
    look_ahead,
    propensities_at,
)
from bandit.posterior import State

Leaves = TypeVar("Leaves")

PART = 32  # requests whose points are compared together: 32 × 12 × 256 numbers of 4 bytes are 400 kB


class CandidateGroups(NamedTuple):
    """What requests of one campaign with the same candidates share, for some groups.

    Attributes:
        eligible: False for padded candidates.
        exploration: of the campaign.
        limits: floors and caps of the candidates.
    """

    eligible: Bool[Array, "groups candidates"]
    exploration: Exploration
    limits: Limits


class Batch(NamedTuple):
    """Requests as arrays: the context vector, the group that each belongs to, and its uniform numbers."""

    context: Float[Array, "batch 16"]
    group: Int[Array, "batch"]
    uniforms: Uniforms


class ChoiceTable(NamedTuple):
    """All that one group without context can draw from.

    Attributes:
        best: who is best at each point of each set.
        propensities: propensities under each set, leaves [sets, candidates].
        remaining: H.
        eligible: which candidates may be chosen.
        control_share: of the campaign.
    """

    best: Bool[Array, "sets candidates points"]
    propensities: Propensities
    remaining: Float[Array, ""]
    eligible: Bool[Array, "candidates"]
    control_share: Float[Array, ""]


slots_of = jax.jit(map_slots)


@jax.jit
def maps_of(state: State, slots: SlotMap, tables: ContentTables, arm: Array, campaign: Array) -> LogitMap:
    """Return the maps of some groups, leaves [groups, …].

    Args:
        state: The posterior.
        slots: Its slot map.
        tables: Contents.
        arm: Arms of the candidates, [groups, candidates].
        campaign: [groups].
    """

    def one(arm: Array, campaign: Array) -> LogitMap:
        return map_logits(state, slots, tables.content[arm], tables.mean_content[campaign], arm, campaign)

    return jax.vmap(one)(arm, campaign)


def _at(leaves: Leaves, group: Array | int) -> Leaves:
    """Return one group's leaves; where there is one group in all they do not depend on the request."""
    found: Leaves = jax.tree.map(lambda leaf: leaf[0] if leaf.shape[0] == 1 else leaf[group], leaves)
    return found


@jax.jit
def select_batch(
    slots: SlotMap, maps: LogitMap, groups: CandidateGroups, batch: Batch, points: Array
) -> Choice:
    """Choose for every request of a batch; one compiled program per shape.

    Args:
        slots: The slot map of the posterior.
        maps: The logits of the groups' candidates.
        groups: The groups.
        batch: The requests.
        points: The point sets for the padded number of candidates.

    Returns:
        Choices, leaves [batch, …]; each is the same as if its request had come alone.
    """

    def first(context: Array, group: Array) -> Lookahead:
        own = _at(groups, group)
        return look_ahead(_at(maps, group).at(slots, context), own.exploration, own.eligible)

    def last(group: Array, lookahead: Lookahead, shares: Array, winners: Array, uniforms: Uniforms) -> Choice:
        own = _at(groups, group)
        propensities = propensities_of(shares, own.eligible, even_share(own.exploration), own.limits)
        control_share = own.exploration.control_share
        chosen, is_control = draw(propensities, winners, own.eligible, control_share, uniforms, has_caps=True)
        return Choice(propensities.capped, chosen, lookahead.remaining, is_control)

    def chosen_by(lookaheads: Lookahead) -> Choice:
        eligible = jnp.broadcast_to(_at(groups.eligible, batch.group), lookaheads.mean.shape)
        shares, winners = best_of_batch(lookaheads, eligible, batch.uniforms, points)
        return jax.vmap(last)(batch.group, lookaheads, shares, winners, batch.uniforms)

    def each() -> Choice:
        return chosen_by(jax.vmap(first)(batch.context, batch.group))

    def once() -> Choice:
        lookahead = first(batch.context[0], batch.group[0])
        if len(batch.group) >= N_SETS:
            return draw_from_table(_tabulated(lookahead, _at(groups, batch.group[0]), points), batch.uniforms)
        return chosen_by(
            jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(batch.group), *leaf.shape)), lookahead)
        )

    # Where all requests are alike, as in a campaign without context, what is believed is computed once, and
    # who is best once for each set of points.
    is_alike = jnp.all(batch.context == batch.context[0]) & jnp.all(batch.group == batch.group[0])
    return jax.lax.cond(is_alike, once, each)


def best_of_batch(
    lookaheads: Lookahead, eligible: Array, uniforms: Uniforms, points: Array
) -> tuple[Array, Array]:
    """Return p̂ and the best at the drawn point for a batch: `is_best` and `best_shares` of each request.

    Written for a batch because both tricks need it: parts of 32 requests stay in a core's cache, which halves
    the time, and ties are split only where a part has any, seen by counts that exceed the number of points.

    Args:
        lookaheads: leaves [batch, …].
        eligible: [batch, candidates].
        uniforms: leaves [batch].
        points: all point sets, [sets, candidates, points].

    Returns:
        p̂, float64 [batch, candidates], and bool [batch, candidates].
    """

    def part(rows: tuple[Array, Array, Array, Array, Array]) -> tuple[Array, Array]:
        mean, spread, may_show, point_set, point = rows
        base = jnp.where(may_show, mean.astype(points.dtype), -jnp.inf)
        theta = base[:, :, None] + jnp.einsum("bja,bjp->bap", spread.astype(points.dtype), points[point_set])
        highest = jnp.max(theta, axis=1, keepdims=True)
        counts = jnp.sum(theta == highest, axis=2, dtype=jnp.int32)

        def split_ties() -> Array:
            best = theta == highest
            return jnp.sum(jnp.where(best, 1.0 / jnp.sum(best, axis=1, keepdims=True), 0.0), axis=2)

        has_ties = jnp.any(jnp.sum(counts, axis=1) > N_POINTS)
        shares = jax.lax.cond(has_ties, split_ties, lambda: counts.astype(float)) / N_POINTS
        at = jnp.take_along_axis(theta, point[:, None, None], axis=2)[:, :, 0]
        return shares, at == jnp.max(at, axis=1, keepdims=True)

    point = (uniforms.point * N_POINTS).astype(int)
    rows = (lookaheads.mean, lookaheads.spread, eligible, uniforms.point_set % N_SETS, point)
    n_parts = max(len(point) // PART, 1)
    if n_parts == 1:
        return part(rows)
    parts = jax.tree.map(lambda leaf: leaf.reshape(n_parts, -1, *leaf.shape[1:]), rows)
    shares, winners = jax.lax.map(part, parts)
    return shares.reshape(eligible.shape), winners.reshape(eligible.shape)


@jax.jit
def select_list(
    slots: SlotMap, maps: LogitMap, groups: CandidateGroups, batch: Batch, points: Array
) -> ListChoice:
    """Choose an ordered list for one request; the batch holds one row a place, all of one context."""
    own = _at(groups, 0)
    logits = _at(maps, 0).at(slots, batch.context[0])
    return choose_list(logits, own.exploration, own.eligible, points, batch.uniforms, own.limits)


@jax.jit
def tabulate(slots: SlotMap, maps: LogitMap, groups: CandidateGroups, points: Array) -> ChoiceTable:
    """Return the table of one group for requests without context."""
    own = _at(groups, 0)
    logits = _at(maps, 0).at(slots, jnp.zeros(N_CONTEXT))
    return _tabulated(look_ahead(logits, own.exploration, own.eligible), own, points)


def _tabulated(lookahead: Lookahead, own: CandidateGroups, points: Array) -> ChoiceTable:
    """Return the table of requests that are all believed to be alike; `own` is one group."""

    def of_set(chosen_set: Array) -> tuple[Array, Propensities]:
        best = is_best(lookahead.mean, lookahead.spread, chosen_set, own.eligible)
        return best, propensities_at(best, own.exploration, own.eligible, own.limits)

    best, propensities = jax.vmap(of_set)(points)
    control_share = jnp.asarray(own.exploration.control_share)
    return ChoiceTable(best, propensities, lookahead.remaining, own.eligible, control_share)


@jax.jit
def draw_from_table(table: ChoiceTable, uniforms: Uniforms) -> Choice:
    """Draw for requests of one group without context; the same choices as `select_batch`."""

    def one(uniforms: Uniforms) -> Choice:
        index = uniforms.point_set % N_SETS
        propensities = jax.tree.map(lambda leaf: leaf[index], table.propensities)
        winners = table.best[index, :, (uniforms.point * N_POINTS).astype(int)]
        chosen, is_control = draw(
            propensities, winners, table.eligible, table.control_share, uniforms, has_caps=True
        )
        return Choice(propensities.capped, chosen, table.remaining, is_control)

    return jax.vmap(one)(uniforms)
