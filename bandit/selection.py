"""Compiled selection: many requests of one padded shape in one call."""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from bandit.features import N_CONTEXT, design_row
from bandit.limits import Limits, Odds, draw
from bandit.logit_map import LogitMap, SlotMap, map_logits, map_slots
from bandit.luck import Luck
from bandit.points import N_POINTS, N_SETS
from bandit.posterior import State
from bandit.thompson import Choice, Exploration, ListChoice, believe, choose, choose_list, is_best, odds_at

Leaves = TypeVar("Leaves")

BATCHES = (1, 8, 64, 256)
CANDIDATES = (4, 8, 12, 16, 32, 64, 128, 256, 512, 1024)


class Tables(NamedTuple):
    """Contents on the device, padded to the posterior's capacity.

    Attributes:
        content: content features of each arm.
        mean_content: mean content of each campaign.
    """

    content: Float[Array, "arms content"]
    mean_content: Float[Array, "campaigns content"]


class Groups(NamedTuple):
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
    """Requests as arrays: the context vector, the group that each belongs to, and its luck."""

    context: Float[Array, "batch 16"]
    group: Int[Array, "batch"]
    luck: Luck


class Table(NamedTuple):
    """All that one group without context can draw from.

    Attributes:
        best: who is best at each point of each set.
        odds: propensities under each set, leaves [sets, candidates].
        remaining: H.
    """

    best: Bool[Array, "sets candidates points"]
    odds: Odds
    remaining: Float[Array, ""]


def padded_size(n: int, sizes: tuple[int, ...]) -> int:
    """Return the smallest of the sizes that holds n, or the next power of two.

    Example:
        >>> padded_size(5, (4, 8)), padded_size(9, (4, 8))
        (8, 16)
    """
    return next((size for size in sizes if size >= n), 1 << (n - 1).bit_length())


def design(tables: Tables, context: Array, arm: Array, campaign: Array) -> Array:
    """Return φ of one request's candidates, [candidates, 209]."""
    mean = tables.mean_content[campaign]
    return jax.vmap(lambda index: design_row(context, tables.content[index], mean))(arm)


slots_of = jax.jit(map_slots)


@jax.jit
def maps_of(state: State, slots: SlotMap, tables: Tables, arm: Array, campaign: Array) -> LogitMap:
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
def select_batch(slots: SlotMap, maps: LogitMap, groups: Groups, batch: Batch, points: Array) -> Choice:
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

    def one(context: Array, group: Array, luck: Luck) -> Choice:
        own = _at(groups, group)
        logits = _at(maps, group).at(slots, context)
        return choose(logits, own.exploration, own.eligible, points, luck, own.limits)

    return jax.vmap(one)(*batch)


@jax.jit
def select_list(slots: SlotMap, maps: LogitMap, groups: Groups, batch: Batch, points: Array) -> ListChoice:
    """Choose an ordered list for one request; the batch holds one row a place, all of one context."""
    own = _at(groups, 0)
    logits = _at(maps, 0).at(slots, batch.context[0])
    return choose_list(logits, own.exploration, own.eligible, points, batch.luck, own.limits)


@jax.jit
def tabulate(slots: SlotMap, maps: LogitMap, groups: Groups, points: Array) -> Table:
    """Return the table of one group for requests without context."""
    own = _at(groups, 0)
    logits = _at(maps, 0).at(slots, jnp.zeros(N_CONTEXT))
    belief = believe(logits, own.exploration, own.eligible)

    def of_set(chosen_set: Array) -> tuple[Array, Odds]:
        best = is_best(belief.mean, belief.spread, chosen_set, own.eligible)
        return best, odds_at(best, own.exploration, own.eligible, own.limits)

    return Table(*jax.vmap(of_set)(points), belief.remaining)


@jax.jit
def draw_from_table(table: Table, groups: Groups, luck: Luck) -> Choice:
    """Draw for requests of one group without context; the same choices as `select_batch`."""
    own = _at(groups, 0)

    def one(luck: Luck) -> Choice:
        index = luck.point_set % N_SETS
        odds = jax.tree.map(lambda leaf: leaf[index], table.odds)
        winners = table.best[index, :, (luck.place * N_POINTS).astype(int)]
        control_share = own.exploration.control_share
        chosen, is_control = draw(odds, winners, own.eligible, control_share, luck, has_caps=True)
        return Choice(odds.propensities, chosen, table.remaining, is_control)

    return jax.vmap(one)(luck)
