"""Worlds that change while they are played: each effect against its equation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bandit.features.design import N_CONTEXT, design_row
from simulations.experiments.synthetic import COURSE, draw_worlds, play_worlds
from simulations.loop import Traffic
from simulations.policies.settings import WORLD_SETTINGS, PolicySetting
from simulations.worlds.drift import (
    CONVERSIONS,
    Changes,
    Course,
    Now,
    at_the_start,
    batches_to_wait,
    draw_course,
    eligible_at,
    parse_changes,
)
from simulations.worlds.requests import FIRST_SLOT, WorldError, context_vectors, draw_visits
from simulations.worlds.shop import World, launch_mean, traffic_of

pytestmark = pytest.mark.usefixtures("double_precision")

N_ARMS, BATCH, IMPRESSIONS = 6, 100, 2_000


def worlds(n_worlds: int = 1, n_creatives: int = N_ARMS, **changes: float) -> list[World]:
    return draw_worlds(
        4,
        n_worlds=n_worlds,
        n_creatives=n_creatives,
        changes=Changes(**changes),
        impressions=IMPRESSIONS,
    )


def course(world: World) -> Course:
    assert world.course is not None
    return world.course


@pytest.mark.slow
def test_changes_that_are_switched_off_leave_a_world_as_it_is() -> None:
    plain = draw_worlds(4, n_worlds=2, n_creatives=N_ARMS)
    still = worlds(n_worlds=2)
    for name in ("beta-thompson", "engine"):
        wanted, got = (
            play_worlds(both, WORLD_SETTINGS[name], IMPRESSIONS, batch=BATCH) for both in (plain, still)
        )
        assert_array_equal(got.shown, wanted.shown)
        assert_allclose(got.earned, wanted.earned, rtol=1e-12)
        assert_allclose(got.best, wanted.best, rtol=1e-12)
        assert_allclose(got.uniform, wanted.uniform, rtol=1e-12)


@pytest.mark.parametrize(("arriving", "retiring"), [(0.5, 0.0), (0.0, 0.5), (0.7, 0.7), (1.0, 1.0)])
def test_as_many_arrive_and_retire_as_were_asked_for_and_the_first_stays(
    arriving: float, retiring: float
) -> None:
    lives = draw_course(jax.random.key(3), Changes(arriving=arriving, retiring=retiring), 40, 100_000)
    arrives, retires = np.asarray(lives.arrives), np.asarray(lives.retires)
    assert (arrives > 0).sum() == min(40 * arriving, 39)
    assert np.isfinite(retires).sum() == min(40 * retiring, 39)
    assert (arrives < retires).all()
    assert (arrives[0], retires[0]) == (0, np.inf)
    ended = np.where(np.isfinite(retires), retires, 10)
    assert ended.max() <= 10  # days of 10,000 impressions
    assert np.unique(np.concatenate([arrives[arrives > 0], retires[np.isfinite(retires)]])).size > 10


def test_times_of_arrival_are_even_over_the_run() -> None:
    # 400 · 9 times; the mean of n even ones has standard error 10/√(12 n) = 0.048.
    draw = jax.vmap(lambda key: draw_course(key, Changes(arriving=1.0), 10, 100_000).arrives)
    arrives = np.asarray(draw(jax.random.split(jax.random.key(0), 400)))[:, 1:]
    assert arrives.mean() == pytest.approx(5, abs=4 * 10 / np.sqrt(12 * arrives.size))
    assert arrives.std() == pytest.approx(10 / np.sqrt(12), rel=0.05)


def test_eligible_by_hand() -> None:
    lives = draw_course(jax.random.key(0), Changes(per_day=100), 3, 500)._replace(
        arrives=jnp.asarray([0.0, 2.0, 0.0]), retires=jnp.asarray([jnp.inf, 4.0, 3.0])
    )
    at = {day: np.asarray(eligible_at(lives, jnp.asarray(100 * day))).tolist() for day in (0, 2, 3, 4)}
    assert at == {
        0: [True, False, True],
        2: [True, True, True],
        3: [True, True, False],
        4: [True, False, False],
    }


@pytest.mark.parametrize("name", ["beta-thompson", "engine"])
def test_nobody_is_shown_outside_its_life_and_the_best_is_one_of_those_there(name: str) -> None:
    (world,) = worlds(arriving=0.5, retiring=0.5)
    played = play_worlds([world], WORLD_SETTINGS[name], IMPRESSIONS, batch=BATCH)
    starts = np.arange(IMPRESSIONS // BATCH) * BATCH / 10_000
    there = (np.asarray(course(world).arrives) <= starts[:, None]) & (
        starts[:, None] < np.asarray(course(world).retires)
    )
    assert not there.all()
    assert (played.shown[0][~there] == 0).all()
    assert_array_equal(played.shown[0].sum(axis=1), BATCH)
    for number in (0, 5, 19):
        key_traffic, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), number))
        vectors = np.asarray(context_vectors(draw_visits(key_traffic, BATCH)))
        logits = float(world.base) + (vectors @ np.asarray(world.context))[:, None] + np.asarray(world.appeal)
        rates = 1 / (1 + np.exp(-logits - vectors @ np.asarray(world.interaction).T))
        rates = np.where(there[number], rates, np.nan)
        assert played.best[0, number] == pytest.approx(np.nanmax(rates, axis=1).sum(), rel=1e-9)
        assert played.uniform[0, number] == pytest.approx(np.nanmean(rates, axis=1).sum(), rel=1e-9)


def test_design_rows_are_centred_on_those_there_at_the_start() -> None:
    (world,) = worlds(arriving=0.5)
    first = np.asarray(course(world).arrives) == 0
    mean = np.asarray(world.content)[first].mean(axis=0)
    assert_allclose(launch_mean(world), mean, rtol=1e-12)
    late = batch_of_700(world, at_the_start(course(world)), jnp.asarray(300.0), jax.random.key(2))
    vector = late.requests.features[3, 0, 1 : 1 + N_CONTEXT]
    assert_allclose(late.requests.features[3, 5], design_row(vector, world.content[5], jnp.asarray(mean)))


@jax.jit
def batch_of_700(world: World, now: Now, number: jax.Array, key: jax.Array) -> Traffic:
    return traffic_of(world, 700).traffic_at(now, number, key)


def traffic_at(world: World, impression: int, now: Now | None = None) -> tuple[Traffic, np.ndarray]:
    """Return a batch of 700 from an impression on, and its logits without changes, by NumPy."""
    now = now or at_the_start(course(world))
    traffic = batch_of_700(world, now, jnp.asarray(impression / 700), jax.random.key(8))
    vectors = np.asarray(traffic.requests.features)[:, 0, 1 : 1 + N_CONTEXT]
    logits = float(world.base) + (vectors @ np.asarray(world.context))[:, None] + np.asarray(world.appeal)
    return traffic, logits + vectors @ np.asarray(world.interaction).T


def test_seasons_move_every_rate_by_the_hour_and_the_day() -> None:
    (world,) = worlds(per_day=700, daily=0.4, weekly=0.2)
    day = np.arange(700) / 700  # from a Monday morning on, and from a Sunday
    for first, weekday in ((0, 0), (6 * 700, 6)):
        traffic, logits = traffic_at(world, first)
        season = 0.4 * np.cos(2 * np.pi * (day - 0.65))
        season += 0.2 * np.cos(2 * np.pi * (weekday + day - 6) / 7)
        assert_allclose(traffic.truth, 1 / (1 + np.exp(-logits - season[:, None])), rtol=1e-9)


def test_dayparts_and_weekends_are_those_of_the_clock_where_there_are_seasons() -> None:
    (world,) = worlds(per_day=700, daily=0.4)
    slots = np.asarray(traffic_at(world, 0)[0].requests.features)[:, 0, 1 : 1 + N_CONTEXT]
    first = FIRST_SLOT["daypart"] + 1
    parts = slots[:, first : first + 4].argmax(axis=1)
    assert_array_equal(np.bincount(parts), [140, 175, 280, 105])
    assert (np.diff(parts) >= 0).all()
    assert (slots[:, FIRST_SLOT["weekend"]] == -0.5).all()
    for weekday, sign in ((4, -0.5), (5, 0.5), (6, 0.5), (7, -0.5)):
        traffic, _ = traffic_at(world, weekday * 700)
        assert (traffic.requests.features[:, 0, 1 + FIRST_SLOT["weekend"]] == sign).all()


def test_drift_moves_appeals_by_contents_that_differ() -> None:
    (world,) = worlds(drift=0.3)
    drifted = np.random.default_rng(0).normal(size=64)
    traffic, logits = traffic_at(world, 0, at_the_start(course(world))._replace(drifted=jnp.asarray(drifted)))
    content = np.asarray(world.content)
    moved = logits + (content - content.mean(axis=0)) @ drifted
    assert_allclose(traffic.truth, 1 / (1 + np.exp(-moved)), rtol=1e-9)


def test_drift_is_a_brownian_motion_that_all_policies_meet_alike() -> None:
    (world,) = worlds(per_day=1_000, drift=0.3)
    scene, shown = traffic_of(world, BATCH), jnp.zeros(N_ARMS).at[0].set(BATCH)

    @jax.jit
    def path(key: jax.Array) -> jax.Array:
        def body(now: Now, number: jax.Array) -> tuple[Now, jax.Array]:
            after = scene.advance(now, number, jax.random.fold_in(key, number), shown)
            return after, after.drifted

        return jax.lax.scan(body, scene.start, jnp.arange(200))[1]

    steps = np.diff(np.asarray(path(jax.random.key(1))), axis=0)  # 199 × 64 of a tenth of a day
    assert steps.std() == pytest.approx(0.3 * np.sqrt(0.1), rel=4 / np.sqrt(2 * steps.size))
    assert abs(np.corrcoef(steps[1:].ravel(), steps[:-1].ravel())[0, 1]) < 4 / np.sqrt(steps.size)
    counts, bayes = (
        play_worlds([world], WORLD_SETTINGS[name], IMPRESSIONS, batch=BATCH)
        for name in ("beta-thompson", "ucb1")
    )
    assert_allclose(counts.best, bayes.best, rtol=1e-12)
    still = play_worlds(
        [world._replace(course=course(world)._replace(drift=jnp.zeros(())))],
        WORLD_SETTINGS["ucb1"],
        IMPRESSIONS,
        batch=BATCH,
    )
    assert counts.best[0, 0] == pytest.approx(still.best[0, 0], rel=1e-12)
    assert (np.abs(counts.best - still.best)[0, 1:] > 1e-3).all()


def test_fatigue_takes_appeal_and_gives_it_back() -> None:
    (world,) = worlds(per_day=1_000, fatigue=1.5, wear=500, recovery=2.0)
    scene = traffic_of(world, 1_000)
    advance = jax.jit(scene.advance)
    first = jnp.zeros(N_ARMS).at[2].set(1_000)
    nobody = jnp.zeros(N_ARMS).at[0].set(1_000)
    now = advance(scene.start, jnp.asarray(0), jax.random.key(0), first)
    later = advance(now, jnp.asarray(1), jax.random.key(0), nobody)
    # 1,000 impressions are twice the wear: 2/3 of 1.5 logits. A day later 2/√2 of them are remembered.
    for known, lost in ((now, 1.0), (later, 1.5 * np.sqrt(2) / (1 + np.sqrt(2)))):
        traffic, logits = traffic_at(world, 0, known)
        logits[:, 2] -= lost
        logits[:, 0] -= 0 if known is now else 1.0
        assert_allclose(traffic.truth, 1 / (1 + np.exp(-logits)), rtol=1e-9)


@pytest.mark.slow
def test_where_creatives_tire_uniform_and_oracle_play_and_each_meets_its_own_moments() -> None:
    tiring = worlds(n_worlds=2, per_day=1_000, fatigue=1.5, wear=100)
    fresh = worlds(n_worlds=2, per_day=1_000)
    counts, even, best = (
        play_worlds(tiring, PolicySetting(policy=name), IMPRESSIONS, batch=BATCH)
        for name in ("beta-thompson", "uniform", "oracle")
    )
    untired = play_worlds(fresh, PolicySetting(policy="oracle"), IMPRESSIONS, batch=BATCH)
    assert_allclose(best.earned, best.best, rtol=1e-12)
    assert_allclose(untired.earned, untired.best, rtol=1e-12)
    assert (best.earned.sum(axis=1) < untired.earned.sum(axis=1)).all()
    assert (best.earned.sum(axis=1) > even.earned.sum(axis=1)).all()
    assert_allclose(counts.best[:, 0], best.best[:, 0], rtol=1e-12)
    assert (np.abs(counts.best - best.best)[:, 1:] > 1e-6).all()
    assert_allclose(even.earned.sum(), even.uniform.sum(), rtol=0.05)


def test_clicks_after_the_window_are_not_reported() -> None:
    (world,) = worlds(per_day=1_000, window=0.2, delay=0.1)
    traffic, logits = traffic_at(world, 0)
    rates = 1 / (1 + np.exp(-logits))
    assert_allclose(traffic.truth, rates, rtol=1e-9)
    assert traffic.reported is not None
    assert_allclose(traffic.reported, 0.75 * rates, rtol=1e-9)  # two half-lives
    assert batches_to_wait(course(world), 100) == 2
    assert batches_to_wait(course(world), 150) == 2
    assert batches_to_wait(course(*worlds(window=0.07)), 100) == 7  # 0.07 · 10,000 is 700.0000000000001
    assert batches_to_wait(course(*worlds(per_day=1_000)), 150) == 0


def test_bots_and_losses_change_what_is_reported_and_bots_what_it_is_worth() -> None:
    (world,) = worlds(bots=0.2, bot_rate=0.1, lost=0.25, per_day=1_000, window=0.1, delay=0.1)
    traffic, logits = traffic_at(world, 0)
    rates = 1 / (1 + np.exp(-logits))
    assert_allclose(traffic.truth, 0.8 * rates, rtol=1e-9)
    assert traffic.reported is not None
    assert_allclose(traffic.reported, 0.75 * (0.8 * 0.5 * rates + 0.02), rtol=1e-9)


def test_policies_see_the_reported_clicks() -> None:
    (silent,), (noisy,) = worlds(lost=1.0), worlds(bots=1.0, bot_rate=1.0)
    # Without any click UCB1 goes by its bonus alone, and where all is clicked likewise: every arm alike.
    for world in (silent, noisy):
        played = play_worlds([world], WORLD_SETTINGS["ucb1"], 12 * BATCH, batch=BATCH)
        assert_array_equal(played.shown[0].sum(axis=0), 2 * BATCH)
    assert played.best.sum() == 0


def conversion_rates(world: World) -> np.ndarray:
    """Return q of each creative, from the standard normals of the course's own key."""
    (key,) = jax.random.split(jax.random.key(4), 1)
    z = np.asarray(
        jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, COURSE), CONVERSIONS), (N_ARMS,))
    )
    return np.asarray(1 / (1 + np.exp(-(np.log(0.2 / 0.8) + 1.5 * z))))


@pytest.mark.parametrize("telling", [0, 1])
def test_where_clicks_convert_an_impression_is_worth_its_conversion(telling: int) -> None:
    numbers = {"bots": 0.1, "bot_rate": 0.3, "lost": 0.2, "window": 0.2, "delay": 0.2}
    (world,) = worlds(converting=0.2, convincing=1.5, telling=telling, **numbers)
    traffic, logits = traffic_at(world, 0)
    clicks = 0.9 / (1 + np.exp(-logits))  # of people
    q = conversion_rates(world)
    assert q.max() / q.min() > 3
    assert_allclose(traffic.truth, clicks * q, rtol=1e-9)
    # The window is one delay: half of all comes in time. Bots click and never convert.
    told = 0.8 * (0.5 * clicks * q if telling else 0.5 * clicks + 0.1 * 0.3)
    assert_allclose(traffic.reported, told, rtol=1e-9)


def test_conversions_leave_the_rest_of_a_world_as_it_is() -> None:
    numbers = {"arriving": 0.5, "retiring": 0.5, "bots": 0.1}
    (plain,), (selling,) = worlds(**numbers), worlds(converting=0.2, convincing=1.0, **numbers)
    assert_array_equal(course(plain).arrives, course(selling).arrives)
    assert_array_equal(course(plain).retires, course(selling).retires)
    assert_array_equal(course(plain).converts, 1)
    played = [
        play_worlds([one], WORLD_SETTINGS["ucb1"], IMPRESSIONS, batch=BATCH) for one in (plain, selling)
    ]
    assert_array_equal(played[0].shown, played[1].shown)  # it is told of the same clicks
    shown = played[0].shown[0] / BATCH
    assert_array_equal(shown.max(axis=1), 1)  # UCB1 shows one creative for a batch
    assert_allclose(played[1].earned[0], played[0].earned[0] * (shown @ course(selling).converts), rtol=1e-9)


def test_policies_learn_late_where_they_wait() -> None:
    late, prompt = worlds(per_day=1_000, window=0.4), worlds(per_day=1_000)
    waited, at_once = (
        play_worlds(one, WORLD_SETTINGS["ucb1"], IMPRESSIONS, batch=BATCH) for one in (late, prompt)
    )
    # UCB1 shows the first arm until it knows of an impression of it.
    assert_array_equal(waited.shown[0, :5, 0], BATCH)
    assert_array_equal(at_once.shown[0, :2, 0], [BATCH, 0])
    assert_allclose(waited.best, at_once.best, rtol=1e-12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arriving": -0.1}, "arriving must be a finite number of at least 0, got -0.1"),
        ({"retiring": 1.5}, "retiring is a share and must be at most 1, got 1.5"),
        ({"per_day": 0}, "per_day must be above 0, got 0"),
        ({"delay": 0.5}, "delay needs a window above 0 for clicks to come in, got delay=0.5"),
        ({"bot_rate": 1.1}, "bot_rate is a share and must be at most 1, got 1.1"),
        ({"wear": 0}, "wear must be above 0, got 0"),
        ({"converting": 1.5}, "converting is a share and must be at most 1, got 1.5"),
        ({"converting": 0.1, "telling": 0.5}, "telling must be 0 for clicks or 1 for conversions, got 0.5"),
        ({"convincing": 0.5}, "some convert and some don't, got converting=0"),
        ({"per_day": float("nan")}, "per_day must be a finite number of at least 0, got nan"),
    ],
)
def test_impossible_changes_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(WorldError) as caught:
        Changes(**changes)
    assert words in str(caught.value)


def test_changes_are_read_as_they_are_written() -> None:
    changes = Changes(arriving=0.5, per_day=5_000)
    assert changes.setting_id == "per_day=5000,arriving=0.5"
    assert parse_changes(changes.setting_id) == changes


def test_everything_wrong_in_changes_is_named_at_once() -> None:
    with pytest.raises(WorldError) as caught:
        parse_changes("ariving=0.5,retiring=x,arriving,per_day=1,per_day=2")
    for words in (
        "unknown change 'ariving'; nearest: arriving",
        "'retiring=x' must be NAME=NUMBER",
        "'arriving' must be NAME=NUMBER",
        "per_day comes twice",
    ):
        assert words in str(caught.value)
