"""One synthetic world while it changes: the equations of `Changes`.

    logit p_a(x, t) = base + season(t) + x·c + appeal_a + content_a·W(t) + x·G content_a − tired_a(t)

    arrivals   only creatives with arrives_a ≤ t < retires_a can be shown
    season     season(t) = daily cos 2π(t − 0.65) + weekly cos 2π(t − 6)/7
    drift      W(t) is a Brownian motion: W(0) = 0, W(t + h) − W(t) ~ N(0, drift² h I)
    fatigue    tired_a = fatigue f_a/(1 + f_a)    f_a(t + h) = f_a(t) 2^(−h/recovery) + impressions_a/wear

    delay       a click comes in time with the chance in_time = 1 − 2^(−window/delay)
    bots, lost  value = (1 − bots) p    reported = (1 − lost) ((1 − bots) in_time p + bots bot_rate)
    conversions value = (1 − bots) p q_a    q_a = σ(logit converting + convincing z_a), z_a ~ N(0, 1)
                and, where policies are told of conversions, reported = (1 − lost) (1 − bots) in_time p q_a

What an impression is worth is the chance that a person clicks, or converts where clicks may; policies see
what is reported only. A bot never converts.
Contents are differences from the mean of all creatives. Time t is in days; a day is a number of impressions
and begins in the morning, a week on Monday. Seasons go by the impression; who is there, how far weights
have drifted and how tired creatives are is settled at a batch's first impression.
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from bandit.features.design import N_CONTENT
from simulations.worlds.changes import Changes
from simulations.worlds.requests import LEVELS, Visits

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
