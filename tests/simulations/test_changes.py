"""Worlds that change while they are played: each effect against its equation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bandit.features import design_row
from simulations.changes import Changes, Course, draw_course, eligible_at, parse_changes
from simulations.settings import WORLD_SETTINGS
from simulations.synthetic import draw_worlds, play_worlds
from simulations.visits import WorldError, context_vectors, draw_visits
from simulations.worlds import World, launch_mean, traffic_of

pytestmark = pytest.mark.usefixtures("double_precision")

BY_NAME = {setting.policy: setting for setting in WORLD_SETTINGS}
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


def test_changes_that_are_switched_off_leave_a_world_as_it_is() -> None:
    plain = draw_worlds(4, n_worlds=2, n_creatives=N_ARMS)
    still = worlds(n_worlds=2)
    for name in ("beta-thompson", "engine"):
        wanted, got = (play_worlds(both, BY_NAME[name], IMPRESSIONS, batch=BATCH) for both in (plain, still))
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
    lives = Course(
        per_day=jnp.asarray(100.0),
        arrives=jnp.asarray([0.0, 2.0, 0.0]),
        retires=jnp.asarray([jnp.inf, 4.0, 3.0]),
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
    played = play_worlds([world], BY_NAME[name], IMPRESSIONS, batch=BATCH)
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
    key = jax.random.key(2)
    late = traffic_of(world, 5)(jnp.asarray(300), key)
    vector = context_vectors(draw_visits(key, 5))[3]
    assert_allclose(late.requests.features[3, 5], design_row(vector, world.content[5], jnp.asarray(mean)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arriving": -0.1}, "arriving must be a finite number of at least 0, got -0.1"),
        ({"retiring": 1.5}, "retiring is a share and must be at most 1, got 1.5"),
        ({"per_day": 0}, "per_day must be above 0, got 0"),
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
