"""How synthetic worlds change while played: `Changes`, as numbers, of which 0 switches an effect off.

A `Course` is what one world draws from them.
"""

import dataclasses
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from bandit.features.design import N_CONTENT
from simulations.errors import unknown
from simulations.worlds.requests import LEVELS, Visits, WorldError

WEEKEND = 6  # day of the week at which the weekend's second day begins: its middle
# Ends of a day's parts, in their order; shares are of two digits, and their sums off by rounding errors.
PART_ENDS = tuple(round(end, 9) for end in itertools.accumulate(LEVELS["daypart"].values()))
EVENING = (PART_ENDS[1] + PART_ENDS[2]) / 2
# What a course takes over as it is.
NUMBERS = (
    *("per_day", "daily", "weekly", "drift", "fatigue", "wear", "recovery"),
    *("window", "bots", "bot_rate", "lost", "telling"),
)
CONVERSIONS = 1  # folded into a course's key, so that they leave the rest of it as it is


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changes:
    """How worlds change; by default not at all.

    Attributes:
        per_day: impressions of a day.
        arriving: share of the creatives that are not there at the start and arrive during the run, each at
            any time of it alike. The first creative of a world is always there.
        retiring: share of the creatives that retire before the run's end, each at any time alike between its
            arrival and the end.
        daily: amplitude of the base rate over a day, in logits; highest in the evening. Where there are
            seasons, `daypart` and `weekend` are those of the clock; else they are drawn.
        weekly: amplitude over a week, in logits; highest between the days of the weekend.
        drift: standard deviation of what each content's weight changes by in a day, in logits.
        fatigue: logits that a creative loses when it has been shown without end.
        wear: impressions after which it has lost half of that, if none were forgotten.
        recovery: days in which half of its impressions are forgotten.
        window: days that policies wait for clicks: an impression is learnt when they are over.
        delay: days in which half of the clicks come; those after the window are missed. Needs a window.
        bots: share of the impressions that are shown to bots.
        bot_rate: their click rate, whatever they are shown.
        lost: share of all clicks that are never reported.
        converting: share of people's clicks that convert, of a creative that convinces as most do. Above 0,
            an impression is worth its conversion, not its click.
        convincing: standard deviation of what a creative adds to that, in logits.
        telling: 1 when policies are told of conversions in place of clicks, 0 when of clicks.
    """

    per_day: float = 10_000.0
    arriving: float = 0.0
    retiring: float = 0.0
    daily: float = 0.0
    weekly: float = 0.0
    drift: float = 0.0
    fatigue: float = 0.0
    wear: float = 2_000.0
    recovery: float = 1.0
    window: float = 0.0
    delay: float = 0.0
    bots: float = 0.0
    bot_rate: float = 0.1
    lost: float = 0.0
    converting: float = 0.0
    convincing: float = 0.0
    telling: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not (np.isfinite(value) and value >= 0):
                raise WorldError(f"{field.name} must be a finite number of at least 0, got {value}")
            if value == 0 and field.name in DIVISORS:
                raise WorldError(f"{field.name} must be above 0, got {value}")
        if self.delay > 0 and self.window == 0:
            raise WorldError(f"delay needs a window above 0 for clicks to come in, got delay={self.delay:g}")
        if self.telling not in (0, 1):
            raise WorldError(f"telling must be 0 for clicks or 1 for conversions, got {self.telling:g}")
        if self.converting in (0, 1) and (self.telling or self.convincing):
            raise WorldError(
                "telling and convincing need clicks of which some convert and some don't, "
                f"got converting={self.converting:g}"
            )
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


SHARES = ("arriving", "retiring", "bots", "bot_rate", "lost", "converting")
DIVISORS = ("per_day", "wear", "recovery")


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
        in_time: chance that a click comes within the window.
        converts: chance that a person's click on each creative is worth something; 1 without conversions.
        daily: as in `Changes`, and likewise the others.
    """

    per_day: Float[Array, ""]
    arrives: Float[Array, "arms"]
    retires: Float[Array, "arms"]
    in_time: Float[Array, ""]
    converts: Float[Array, "arms"]
    telling: Float[Array, ""]
    daily: Float[Array, ""]
    weekly: Float[Array, ""]
    drift: Float[Array, ""]
    fatigue: Float[Array, ""]
    wear: Float[Array, ""]
    recovery: Float[Array, ""]
    window: Float[Array, ""]
    bots: Float[Array, ""]
    bot_rate: Float[Array, ""]
    lost: Float[Array, ""]


class Now(NamedTuple):
    """What a world has become.

    Attributes:
        drifted: W, how far the weights of contents have drifted.
        worn: f, how much each creative has been shown of late.
    """

    drifted: Float[Array, "content"]
    worn: Float[Array, "arms"]


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
    numbers = {name: jnp.asarray(getattr(changes, name), float) for name in NUMBERS}
    converts = jnp.ones(n_arms)
    if changes.converting:
        convincing = jax.random.normal(jax.random.fold_in(key, CONVERSIONS), (n_arms,))
        usual = jax.scipy.special.logit(jnp.asarray(changes.converting, float))
        converts = jax.nn.sigmoid(usual + changes.convincing * convincing)
    in_time = 1 - 2 ** (-changes.window / changes.delay) if changes.delay else 1.0
    return Course(
        arrives=arrives,
        retires=jnp.where(stays, jnp.inf, retires),
        in_time=jnp.asarray(in_time),
        converts=converts,
        **numbers,
    )


def eligible_at(course: Course, impression: Array) -> Bool[Array, "arms"]:
    """Return which creatives may be shown at an impression, counted from 0."""
    day = impression / course.per_day
    return (course.arrives <= day) & (day < course.retires)


def season_at(course: Course, impressions: Array) -> Float[Array, "impressions"]:
    """Return what the season adds to every logit at some impressions, counted from 0."""
    day = impressions / course.per_day
    daily = course.daily * jnp.cos(2 * jnp.pi * (day - EVENING))
    return daily + course.weekly * jnp.cos(2 * jnp.pi * (day - WEEKEND) / 7)


def on_the_clock(course: Course, visits: Visits, impressions: Array) -> Visits:
    """Return visits whose daypart and weekend are those of the clock, in a world with seasons."""
    day = impressions / course.per_day
    part = jnp.searchsorted(jnp.asarray(PART_ENDS), day % 1, side="right")
    levels = visits.levels.at[:, list(LEVELS).index("daypart")].set(part.astype(visits.levels.dtype))
    weekend = (day % 7 >= WEEKEND - 1).astype(visits.weekend.dtype)
    has_seasons = (course.daily != 0) | (course.weekly != 0)
    return jax.tree.map(
        lambda clock, drawn: jnp.where(has_seasons, clock, drawn),
        Visits(levels, weekend, visits.basket),
        visits,
    )


def at_the_start(course: Course) -> Now:
    """Return what a world is before its first batch."""
    return Now(drifted=jnp.zeros(N_CONTENT), worn=jnp.zeros_like(course.arrives))


def tired(course: Course, now: Now) -> Float[Array, "arms"]:
    """Return the logits that each creative has lost to fatigue."""
    return course.fatigue * now.worn / (1 + now.worn)


def advanced(course: Course, now: Now, key: Array, shown: Array) -> Now:
    """Return what a world is after some more impressions.

    Args:
        course: the world's.
        now: what it was.
        key: randomness of the drift.
        shown: impressions of each creative since.
    """
    days = shown.sum() / course.per_day
    step = course.drift * jnp.sqrt(days) * jax.random.normal(key, now.drifted.shape)
    return Now(
        drifted=now.drifted + step,
        worn=now.worn * 2 ** (-days / course.recovery) + shown / course.wear,
    )


def valued(course: Course, rates: Array) -> Array:
    """Return the chances that an impression is worth something, of people's click rates [..., arms]."""
    return (1 - course.bots) * rates * course.converts


def reported(course: Course, rates: Array) -> Array:
    """Return the chances that policies are told of a click, or conversion, in time; likewise."""
    told = jnp.where(course.telling > 0, rates * course.converts, rates)
    by_bots = jnp.where(course.telling > 0, 0.0, course.bots * course.bot_rate)
    return (1 - course.lost) * (course.in_time * (1 - course.bots) * told + by_bots)


def batches_to_wait(course: Course, batch: int) -> int:
    """Return the batches after which an impression's window is over, whole ones."""
    # Rounded, so that a window of whole batches is not one longer by a rounding error.
    return math.ceil(round(float(course.window) * float(course.per_day) / batch, 9))
