"""Compiled selection: many requests of one padded shape in one call."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from bandit.features import design_row
from bandit.posterior import State, predict
from bandit.thompson import Choice, Exploration, choose

BATCHES = (1, 8, 64, 256)
CANDIDATES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Tables(NamedTuple):
    """Contents on the device, padded to the posterior's capacity.

    Attributes:
        content: content features of each arm.
        mean_content: mean content of each campaign.
    """

    content: Float[Array, "arms content"]
    mean_content: Float[Array, "campaigns content"]


class Batch(NamedTuple):
    """Requests as arrays; `eligible` is False for padded candidates and for all of a padded request."""

    context: Float[Array, "batch 16"]
    arm: Int[Array, "batch candidates"]
    campaign: Int[Array, "batch"]
    eligible: Bool[Array, "batch candidates"]
    exploration: Exploration
    words: Int[Array, "batch 3"]


def padded_size(n: int, sizes: tuple[int, ...]) -> int:
    """Return the smallest of the sizes that holds n, or the next power of two.

    Example:
        >>> padded_size(5, (4, 8)), padded_size(9, (4, 8))
        (8, 16)
    """
    return next((size for size in sizes if size >= n), 1 << (n - 1).bit_length())


def room_for(n: int, least: int) -> int:
    """Return a capacity that holds n: powers of two, and from 65,536 in steps of an eighth of one.

    Each capacity has compiled programs of its own, so there should be few; 200,000 arms take 334 MB, so
    many should not be padded by half.

    Example:
        >>> room_for(5, 16), room_for(300, 256), room_for(200_000, 256)
        (16, 512, 212992)
    """
    power = 1 << (max(n, least) - 1).bit_length()
    if power <= 65_536:
        return power
    return next(size for size in range(power * 9 // 16, power + 1, power // 16) if size >= n)


def design(tables: Tables, context: Array, arm: Array, campaign: Array) -> Array:
    """Return φ of one request's candidates, [candidates, 209]."""
    mean = tables.mean_content[campaign]
    return jax.vmap(lambda index: design_row(context, tables.content[index], mean))(arm)


@jax.jit
def select_batch(state: State, tables: Tables, batch: Batch, points: Array, seed: Array) -> Choice:
    """Choose for every request of a batch; one compiled program per shape.

    Args:
        state: The posterior.
        tables: Contents.
        batch: The requests.
        points: The point sets for the padded number of candidates.
        seed: The model's seed.

    Returns:
        Choices, leaves [batch, …]; each is the same as if its request had come alone.
    """

    def one(request: Batch) -> Choice:
        features = design(tables, request.context, request.arm, request.campaign)
        logits = predict(state, features, request.arm, jnp.full_like(request.arm, request.campaign))
        choice = choose(logits, request.exploration, request.eligible, points, request.words, seed)
        # The drawn point is computed apart from the others, to float32 rounding: where two candidates tie to
        # 5e-7 and nothing is explored, it may name one whose π is 0.
        most = jnp.argmax(choice.propensities)
        return choice._replace(chosen=jnp.where(choice.propensities[choice.chosen] > 0, choice.chosen, most))

    return jax.vmap(one)(batch)
