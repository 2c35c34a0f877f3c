"""A synthetic shop whose truth is known: contexts, effects of content and context, exact click rates.

    logit p(click | x, a in g) = base + effect_g + x·c + content_a·w + words_a·v + x·G content_a + residual_a

One World is one campaign; campaigns of one shop share all weights. The policies' model holds a part of this
only: it knows nothing of words, and lets contexts interact with the first contents alone.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from bandit.features.design import N_CONTENT, N_CONTEXT, design_row
from simulations.loop import Scene, Traffic, steady
from simulations.policies.base import Request
from simulations.worlds.drift import (
    Course,
    Now,
    advanced,
    at_the_start,
    eligible_at,
    on_the_clock,
    reported,
    season_at,
    tired,
    valued,
)
from simulations.worlds.requests import Context, WorldError, context_vectors, draw_visits, vector_of

DRIFT = 1  # folded into a batch's key of visits


class UnknownCreativeError(WorldError, LookupError):
    """A creative that a world does not have."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EffectSizes:
    """How strong each effect is: standard deviations in logits; 0 switches an effect off.

    By default they spread the creatives of a campaign by about 0.35 logits, half of the variance their own,
    as in past A/B tests of headlines, where the residual was 0.25.

    Attributes:
        base_rates: the base click rate is drawn between these, log-uniformly.
        campaign: of a campaign's effect.
        context: of the weight of each context slot.
        content: of the weight of each content component; contents have length 1 at most.
        words: of the weight of each word (tone, offer, …).
        interaction: of the weight of each pair of context slot and content component.
        residual: of what is each creative's own.
    """

    base_rates: tuple[float, float] = (0.005, 0.05)
    campaign: float = 0.3
    context: float = 0.25
    content: float = 0.3
    words: float = 0.1
    interaction: float = 0.15
    residual: float = 0.25

    def __post_init__(self) -> None:
        low, high = self.base_rates
        if not 0 < low <= high < 1:
            raise WorldError(f"base_rates must satisfy 0 < low <= high < 1, got ({low}, {high})")
        for field in dataclasses.fields(self)[1:]:
            size = getattr(self, field.name)
            if not (np.isfinite(size) and size >= 0):
                raise WorldError(f"{field.name} must be a finite number of at least 0, got {size}")


class Truth(NamedTuple):
    """What all campaigns of one shop share: weights in logits."""

    base: Float[Array, ""]
    context: Float[Array, "slots"]
    content: Float[Array, "content"]
    words: Float[Array, "words"]
    interaction: Float[Array, "slots content"]


class World(NamedTuple):
    """One campaign.

    Attributes:
        content: content features of its creatives, as the policies see them.
        base: logit of a creative of average appeal in an average context.
        context: effect of each context slot.
        appeal: of each creative: content, words and residual.
        interaction: effect of each context slot on each creative, beyond the above.
        course: how it changes; None when it does not.
    """

    content: Float[Array, "arms content"]
    base: Float[Array, ""]
    context: Float[Array, "slots"]
    appeal: Float[Array, "arms"]
    interaction: Float[Array, "arms slots"]
    course: Course | None = None


def draw_truth(key: Array, n_words: int, sizes: EffectSizes) -> Truth:
    """Draw the weights that the campaigns of one shop share.

    Args:
        key: randomness.
        n_words: number of columns of the word indicators; may be 0.
        sizes: how strong the effects are.
    """
    keys = jax.random.split(key, 5)
    low, high = sizes.base_rates
    rate = low * (high / low) ** jax.random.uniform(keys[0])
    return Truth(
        base=jnp.log(rate / (1 - rate)),
        context=sizes.context * jax.random.normal(keys[1], (N_CONTEXT,)),
        content=sizes.content * jax.random.normal(keys[2], (N_CONTENT,)),
        words=sizes.words * jax.random.normal(keys[3], (n_words,)),
        interaction=sizes.interaction * jax.random.normal(keys[4], (N_CONTEXT, N_CONTENT)),
    )


def make_world(key: Array, truth: Truth, content: Array, words: Array, sizes: EffectSizes) -> World:
    """Make one campaign of a shop.

    Args:
        key: randomness of the campaign's own effect and of its creatives' residuals.
        truth: the shop's weights.
        content: content features of the creatives, [arms, 64].
        words: which words each creative uses, 0 or 1, [arms, words].
        sizes: how strong the effects are.

    Returns:
        The world, without changes; appeals and interactions are differences from the mean of all its
        creatives, those included that a course lets arrive later.
    """
    key_campaign, key_residual = jax.random.split(key)
    content = jnp.asarray(content, float)
    differing = content - content.mean(axis=0)
    appeal = differing @ truth.content + (words - words.mean(axis=0)) @ truth.words
    return World(
        content=content,
        base=truth.base + sizes.campaign * jax.random.normal(key_campaign),
        context=truth.context,
        appeal=appeal + sizes.residual * jax.random.normal(key_residual, appeal.shape),
        interaction=differing @ truth.interaction.T,
    )


def click_rates(world: World, vectors: Array) -> Float[Array, "visits arms"]:
    """Return the exact expected click rate of every creative in every context, before the world changes."""
    return jax.nn.sigmoid(_logits(world, vectors))


def _logits(world: World, vectors: Array) -> Float[Array, "visits arms"]:
    shared = world.base + vectors @ world.context
    return shared[:, None] + world.appeal + vectors @ world.interaction.T


def launch_mean(world: World) -> Float[Array, "content"]:
    """Return the campaign's mean content as the engine has it: of those there at its first decision."""
    if world.course is None:
        return world.content.mean(axis=0)
    there = eligible_at(world.course, jnp.zeros(()))
    return there @ world.content / there.sum()


def traffic_of(world: World, batch: int) -> Scene:
    """Return the world as `simulations.loop.play` takes it, in batches of some impressions."""
    mean = launch_mean(world)
    rows_of_one = jax.vmap(design_row, in_axes=(None, 0, None))

    def requests_of(vectors: Array, eligible: Array) -> Request:
        features = jax.vmap(lambda vector: rows_of_one(vector, world.content, mean))(vectors)
        return Request(features, jnp.broadcast_to(eligible, features.shape[:2]))

    def traffic_at(number: Array, key: Array) -> Traffic:
        vectors = context_vectors(draw_visits(key, batch))
        there = jnp.ones(world.appeal.shape, bool)
        return Traffic(requests_of(vectors, there), click_rates(world, vectors), batch)

    course = world.course
    if course is None:
        return steady(traffic_at)
    differing = world.content - world.content.mean(axis=0)

    def changed_traffic_at(now: Now, number: Array, key: Array) -> Traffic:
        impressions = number * batch + jnp.arange(batch)
        vectors = context_vectors(on_the_clock(course, draw_visits(key, batch), impressions))
        logits = _logits(world, vectors) + season_at(course, impressions)[:, None]
        logits += differing @ now.drifted - tired(course, now)
        eligible = eligible_at(course, impressions[0])
        rates = jax.nn.sigmoid(logits)
        requests = requests_of(vectors, eligible)
        return Traffic(requests, valued(course, rates), batch, reported(course, rates))

    def advance(now: Now, number: Array, key: Array, shown: Array) -> Now:
        return advanced(course, now, jax.random.fold_in(key, DRIFT), shown)

    return Scene(at_the_start(course), changed_traffic_at, advance)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostView:
    """A world as a caller of the engine meets it: contexts are mappings, creatives have ids.

    Attributes:
        creative_ids: in the order of the world's arms.
        world: the world, without changes; its arrays are read on the host.
    """

    creative_ids: tuple[str, ...]
    world: World

    def true_rate(self, context: Context, creative: str) -> float:
        """Return the exact expected click rate of one creative.

        Raises:
            UnknownCreativeError: the campaign has no such creative.
            WorldError: the context misses a field, or has a level that does not exist.
        """
        if creative not in self.creative_ids:
            raise UnknownCreativeError(
                f"the world has no creative {creative!r}; it has {', '.join(self.creative_ids)}"
            )
        return float(self.true_rates([context])[0, self.creative_ids.index(creative)])

    def true_rates(self, contexts: Sequence[Context]) -> Float[np.ndarray, "contexts arms"]:
        """Return the exact expected click rates of all creatives; errors as in `true_rate`."""
        _, base, effect, appeal, interaction = (np.asarray(part, float) for part in self.world[:5])
        vectors = np.stack([vector_of(context) for context in contexts])
        logits = (base + vectors @ effect)[:, None] + appeal + vectors @ interaction.T
        return np.asarray(1 / (1 + np.exp(-logits)))
