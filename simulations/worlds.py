"""A synthetic shop whose truth is known: contexts, effects of content and context, exact expected click rates.

    logit p(click | x, a in g) = base + campaign_g + x·c + content_a·w + words_a·v + x·(G content_a) + residual_a

One World is one campaign; campaigns of one shop share all weights. The policies' model holds a part of this
only: it knows nothing of words, and lets contexts interact with the first contents alone.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from bandit.features import N_CONTENT, N_CONTEXT, design_row
from simulations.errors import SimulationError
from simulations.policies import Request
from simulations.run import Traffic

LEVELS: Final = {  # field -> level -> share of the requests
    "device": {"mobile": 0.6, "desktop": 0.32, "tablet": 0.08},
    "daypart": {"morning": 0.2, "midday": 0.25, "evening": 0.4, "night": 0.15},
    "segment": {"new": 0.5, "returning": 0.35, "loyal": 0.15},
}
WEEKEND_SHARE: Final = 2 / 7
BASKET: Final = (5.0, 95.0)  # value of the basket, uniform between these
BASKET_MEAN: Final = sum(BASKET) / 2
BASKET_SD: Final = (BASKET[1] - BASKET[0]) / 12**0.5
# As the engine gives slots out: a field of strings takes one for "other", then one for each frequent level.
FIRST_SLOT: Final = {"device": 0, "daypart": 4, "segment": 9, "weekend": 13, "basket": 14}

Context = Mapping[str, str | float | bool]


class WorldError(SimulationError, ValueError):
    """A world that cannot be made, or a question that it cannot answer."""


class UnknownCreativeError(WorldError, LookupError):
    """A creative that a world does not have."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EffectSizes:
    """How strong each effect is: standard deviations in logits; 0 switches an effect off.

    By default they spread the creatives of a campaign by about 0.35 logits, of which a third of the variance
    is no one's but the creative's own.

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
    content: float = 0.4
    words: float = 0.15
    interaction: float = 0.2
    residual: float = 0.2

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
    """

    content: Float[Array, "arms content"]
    base: Float[Array, ""]
    context: Float[Array, "slots"]
    appeal: Float[Array, "arms"]
    interaction: Float[Array, "arms slots"]


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
        The world; appeals and interactions are differences from the campaign's mean.
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


class Visits(NamedTuple):
    """The contexts of some requests: indices of levels, and the basket's value."""

    levels: Int[Array, "visits fields"]
    weekend: Int[Array, "visits"]
    basket: Float[Array, "visits"]


def draw_visits(key: Array, size: int) -> Visits:
    """Draw the contexts of some requests."""
    keys = jax.random.split(key, len(LEVELS) + 2)
    levels = [
        jax.random.choice(key_field, len(shares), (size,), p=jnp.array(list(shares.values())))
        for key_field, shares in zip(keys, LEVELS.values(), strict=False)
    ]
    basket = jax.random.uniform(keys[-1], (size,), minval=BASKET[0], maxval=BASKET[1])
    weekend = jax.random.bernoulli(keys[-2], WEEKEND_SHARE, (size,))
    return Visits(jnp.stack(levels, axis=1), weekend.astype(int), jnp.round(basket, 2))


def context_vectors(visits: Visits) -> Float[Array, "visits slots"]:
    """Return the context vectors that the engine's schema gives once it knows all levels and moments."""
    rows = jnp.arange(visits.basket.shape[0])
    vectors = jnp.zeros((rows.shape[0], N_CONTEXT))
    for column, field in enumerate(LEVELS):
        vectors = vectors.at[rows, FIRST_SLOT[field] + 1 + visits.levels[:, column]].set(1.0)
    vectors = vectors.at[:, FIRST_SLOT["weekend"]].set(visits.weekend - 0.5)
    return vectors.at[:, FIRST_SLOT["basket"]].set((visits.basket - BASKET_MEAN) / BASKET_SD)


def click_rates(world: World, vectors: Array) -> Float[Array, "visits arms"]:
    """Return the exact expected click rate of every creative in every context."""
    shared = world.base + vectors @ world.context
    return jax.nn.sigmoid(shared[:, None] + world.appeal + vectors @ world.interaction.T)


def traffic_of(world: World, batch: int) -> Callable[[Array, Array], Traffic]:
    """Return the world's `traffic_at` for `simulations.run.play`: (batch number, key) -> the batch."""
    n_arms = world.appeal.shape[0]
    mean = world.content.mean(axis=0)
    rows_of_one = jax.vmap(design_row, in_axes=(None, 0, None))

    def traffic_at(number: Array, key: Array) -> Traffic:
        vectors = context_vectors(draw_visits(key, batch))
        features = jax.vmap(lambda vector: rows_of_one(vector, world.content, mean))(vectors)
        return Traffic(Request(features, jnp.ones((batch, n_arms), bool)), click_rates(world, vectors))

    return traffic_at


def as_mappings(visits: Visits) -> list[dict[str, str | float | bool]]:
    """Return contexts as a caller of the engine would write them."""
    names = [list(shares) for shares in LEVELS.values()]
    return [
        {
            **{field: names[i][level] for i, (field, level) in enumerate(zip(LEVELS, row, strict=True))},
            "weekend": bool(weekend),
            "basket": float(basket),
        }
        for row, weekend, basket in zip(*(np.asarray(part).tolist() for part in visits), strict=True)
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostView:
    """A world as a caller of the engine meets it: contexts are mappings, creatives have ids.

    Attributes:
        creative_ids: in the order of the world's arms.
        world: the world; its arrays are read on the host.
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
        world = World(*(np.asarray(part, float) for part in self.world))
        vectors = np.stack([_vector(context) for context in contexts])
        logits = (
            (world.base + vectors @ world.context)[:, None] + world.appeal + vectors @ world.interaction.T
        )
        return np.asarray(1 / (1 + np.exp(-logits)))


def _vector(context: Context) -> np.ndarray:
    """Encode one mapping, independently of `context_vectors`."""
    missing = [field for field in FIRST_SLOT if field not in context]
    if missing:
        raise WorldError(
            f"a context of this world has {', '.join(FIRST_SLOT)}; missing: {', '.join(missing)}"
        )
    vector = np.zeros(N_CONTEXT)
    for field, shares in LEVELS.items():
        level = context[field]
        if level not in shares:
            raise WorldError(f"{field} must be one of {', '.join(shares)}, got {level!r}")
        vector[FIRST_SLOT[field] + 1 + list(shares).index(str(level))] = 1.0
    vector[FIRST_SLOT["weekend"]] = 0.5 if context["weekend"] else -0.5
    vector[FIRST_SLOT["basket"]] = (float(context["basket"]) - BASKET_MEAN) / BASKET_SD
    return vector
