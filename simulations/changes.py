"""How a synthetic world changes while it is played: every effect a number, of which 0 switches it off.

    logit p_a(x) = base + x·c + appeal_a + x·G content_a, for creatives with arrives_a ≤ t < retires_a

Time t is in days; a day is a number of impressions. What a batch can show is settled at its first one.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from simulations.errors import unknown
from simulations.visits import WorldError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changes:
    """How worlds change; by default not at all.

    Attributes:
        per_day: impressions of a day.
        arriving: share of the creatives that are not there at the start and arrive during the run, each at
            any time of it alike. The first creative of a world is always there.
        retiring: share of the creatives that retire before the run's end, each at any time alike between its
            arrival and the end.
    """

    per_day: float = 10_000.0
    arriving: float = 0.0
    retiring: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not (np.isfinite(value) and value >= 0):
                raise WorldError(f"{field.name} must be a finite number of at least 0, got {value}")
        if self.per_day <= 0:
            raise WorldError(f"per_day must be above 0, got {self.per_day}")
        for name in SHARES:
            if getattr(self, name) > 1:
                raise WorldError(f"{name} is a share and must be at most 1, got {getattr(self, name)}")

    @property
    def setting_id(self) -> str:
        """What is switched on, as `parse_changes` reads it.

        Example:
            >>> Changes(arriving=0.5).setting_id
            'arriving=0.5'
        """
        named = [(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)]
        return ",".join(f"{name}={value:g}" for name, value in named if value != getattr(Changes, name))


SHARES = ("arriving", "retiring")


def parse_changes(text: str) -> Changes:
    """Read changes from text.

    Args:
        text: names and numbers, as "arriving=0.5,per_day=5000".

    Raises:
        WorldError: a name is unknown or comes twice, or a number is none or out of range; all are named.

    Example:
        >>> parse_changes("arriving=0.5").arriving
        0.5
    """
    names = [field.name for field in dataclasses.fields(Changes)]
    numbers, wrong = dict[str, float](), list[str]()
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            wrong.append(f"{part!r} must be NAME=NUMBER")
            continue
        if name in numbers:
            wrong.append(f"{name} comes twice")
        numbers[name] = number
        if name not in names:
            wrong.append(unknown("change", name, names))
    if wrong:
        raise WorldError(f"changes {text!r} cannot be read: {'; '.join(wrong)}")
    return Changes(**numbers)


class Course(NamedTuple):
    """One world's changes: numbers of `Changes`, and the lives of its creatives.

    Attributes:
        per_day: impressions of a day.
        arrives: day from which each creative may be shown.
        retires: day from which it may not; infinite for one that stays.
    """

    per_day: Float[Array, ""]
    arrives: Float[Array, "arms"]
    retires: Float[Array, "arms"]


def draw_course(key: Array, changes: Changes, n_arms: int, impressions: int) -> Course:
    """Draw the changes of one world.

    Args:
        key: randomness of who arrives and retires, and when.
        changes: how worlds change.
        n_arms: creatives.
        impressions: of the run.
    """
    key_arrival, key_who, key_retirement = jax.random.split(key, 3)
    n_arriving, n_retiring = (
        min(round(share * n_arms), n_arms - 1) for share in (changes.arriving, changes.retiring)
    )
    end = impressions / changes.per_day
    others = jnp.arange(1, n_arms)
    arrives = end * jax.random.uniform(key_arrival, (n_arms,))
    arrives = jnp.where(jnp.arange(n_arms) >= n_arms - n_arriving, arrives, 0.0)
    retires = arrives + (end - arrives) * jax.random.uniform(key_retirement, (n_arms,))
    leaving = jax.random.permutation(key_who, others)[:n_retiring]
    stays = jnp.ones(n_arms, bool).at[leaving].set(False)
    return Course(jnp.asarray(changes.per_day), arrives, jnp.where(stays, jnp.inf, retires))


def eligible_at(course: Course, impression: Array) -> Bool[Array, "arms"]:
    """Return which creatives may be shown at an impression, counted from 0."""
    day = impression / course.per_day
    return (course.arrives <= day) & (day < course.retires)
