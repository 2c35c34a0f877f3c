"""Requests of the synthetic shop: contexts drawn, as vectors for policies and as mappings for the engine."""

from collections.abc import Mapping
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from bandit.features.design import N_CONTEXT
from simulations.errors import SimulationError

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
    """A world that cannot be made or played, or a question that it cannot answer."""


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


def vector_of(context: Context) -> Float[np.ndarray, "slots"]:
    """Return the vector of one mapping; written apart from `context_vectors`, so that each tests the other.

    Raises:
        WorldError: a field is missing, or has a level that does not exist.
    """
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
