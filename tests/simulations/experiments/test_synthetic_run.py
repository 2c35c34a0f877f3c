"""A whole run of synthetic worlds: rows, files, tuning; and comparisons by hand."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from bandit.features.design import PriorScales, scale_groups, weight_prior
from bandit.learning.schedule import SCALES_EVERY
from bandit.posterior import forget, learn_scales
from encoders import TextEncoder
from simulations.experiments.plans import N_TUNING, Plan
from simulations.experiments.synthetic import draw_worlds, own_policy, setting_numbers
from simulations.experiments.synthetic_run import run_synthetic
from simulations.loop import play
from simulations.policies.base import Outcomes, Policy
from simulations.policies.rivals import GRIDS, RIVALS, TUNED
from simulations.policies.settings import FIXED_SCALES, FORGETTING, WORLD_TUNED, Setting, engine_setting, grid
from simulations.reports.scores import Comparison, Played, compare
from simulations.sweep import Workers
from simulations.worlds.requests import WorldError
from simulations.worlds.shop import traffic_of
from tests.paths import TINY

SMALL = {"seeds": 2, "impressions": 400, "creatives": 3, "batch": 100}


def by_hand(name: str, earned: list[list[float]]) -> Played:
    """Two seeds of two batches; uniform loses 4 and 8 clicks."""
    return Played(
        Setting(policy=name),
        10,
        earned=np.array(earned),
        best=np.array([[5.0, 5.0], [6.0, 6.0]]),
        uniform=np.array([[3.0, 3.0], [2.0, 2.0]]),
        shown=np.full((2, 2, 2), 5.0),
    )


def test_comparison_by_hand() -> None:
    engine = by_hand("engine", [[4.0, 5.0], [4.0, 6.0]])  # loses 1 of 4 and 2 of 8
    rival = by_hand("rival", [[3.0, 5.0], [3.0, 5.0]])  # loses 2 of 4 and 4 of 8
    other = by_hand("other", [[4.0, 5.0], [2.0, 2.0]])  # loses 1 of 4 and 8 of 8
    first, second, third = compare([engine, rival, other])
    assert (first.policy, first.impressions, first.seeds, first.clicks) == ("engine", 20, 2, 9.5)
    assert (first.of_uniform, first.of_uniform_error, first.engine_saves) == (0.25, 0, 0)
    assert (second.regret, second.of_uniform, second.more_than_engine) == (3, 0.5, 0.25)
    assert (second.engine_saves, second.engine_saves_error, second.more_than_engine_error) == (0.5, 0, 0)
    assert second.regret_error == pytest.approx(1.0)
    assert third.of_uniform == pytest.approx(0.625)
    assert third.of_uniform_error == pytest.approx(0.375)
    assert third.more_than_engine_error == pytest.approx(0.375)
    assert third.engine_saves == pytest.approx(0.6)
    # The delta method: residuals 0.25 − 0.4 · (0.25, 1), over their mean's 0.625.
    assert third.engine_saves_error == pytest.approx(0.4 * 0.375 / 0.625)


def test_nothing_can_be_saved_where_nothing_is_lost() -> None:
    best = by_hand("oracle", [[5.0, 5.0], [6.0, 6.0]])
    row = compare([by_hand("engine", [[4.0, 5.0], [4.0, 6.0]]), best])[1]
    assert (row.of_uniform, row.engine_saves, row.engine_saves_error) == (0, None, None)
    same = best._replace(uniform=best.best)
    assert compare([same])[0].of_uniform == 0


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Comparison], Path]:
    out = tmp_path_factory.mktemp("out")
    plan = Plan(policies=("lin-ucb", "engine", "beta-thompson"), is_tuned=True, **SMALL)
    return run_synthetic(plan, out), out


def test_rows_begin_with_the_engine_and_end_with_the_exact_ones(
    tuned: tuple[list[Comparison], Path],
) -> None:
    rows, out = tuned
    assert [row.policy for row in rows] == ["engine", "lin-ucb", "beta-thompson", "uniform", "oracle"]
    assert [row.of_uniform for row in rows[-2:]] == [1, 0]
    assert all(row.impressions == SMALL["impressions"] and row.seeds == SMALL["seeds"] for row in rows)
    with (out / "results.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(line["regret"]) for line in written] == [row.regret for row in rows]
    page = (out / "report.html").read_text()
    assert "lin-ucb" in page
    assert "What each policy lost" in page


def test_the_best_setting_of_the_grid_is_scored(tuned: tuple[list[Comparison], Path]) -> None:
    rows, out = tuned
    with (out / "tuning.csv").open(newline="") as file:
        trials = list(csv.DictReader(file))
    assert [trial["setting"] for trial in trials] == [one.setting_id for one in GRIDS["lin-ucb"]]
    assert {int(trial["seeds"]) for trial in trials} == {N_TUNING}
    best = min(trials, key=lambda trial: float(trial["of_uniform"]))
    assert rows[1].setting == best["setting"]


def test_each_rival_has_a_grid_of_the_same_size_with_its_setting() -> None:
    assert len({*(len(one) for one in GRIDS.values()), *(len(grid(name)) for name in WORLD_TUNED)}) == 1
    assert set(GRIDS) == set(RIVALS) == set(TUNED)
    assert all(TUNED[name] in grid for name, grid in GRIDS.items())


@pytest.mark.slow
@pytest.mark.usefixtures("double_precision")
def test_the_engine_learns_its_scales_every_twenty_batches() -> None:
    world, batch = draw_worlds(3, n_worlds=1, n_creatives=4)[0], 50
    numbers, prior = setting_numbers(engine_setting()), weight_prior(PriorScales())
    groups = jnp.asarray(scale_groups())
    key = jax.random.key(0)
    horizon = 10_000.0

    def played(name: str, n_batches: int) -> Any:
        policy = own_policy(name, world, horizon, batch, numbers)
        return jax.jit(lambda: play(policy, traffic_of(world, batch), n_batches, key)[0].posterior)()

    before, fixed = played("engine", SCALES_EVERY - 1), played(FIXED_SCALES, SCALES_EVERY)
    assert_allclose(before.prior.scale, prior.scale)
    assert_allclose(fixed.prior.scale, prior.scale)
    wanted = jax.jit(learn_scales)(fixed, prior, groups, jnp.zeros(4, int))
    got = played("engine", SCALES_EVERY)
    assert_allclose(got.prior.scale, wanted.prior.scale, rtol=1e-9)
    assert_allclose(got.weights, wanted.weights, atol=1e-9)
    assert not np.allclose(got.prior.scale, prior.scale)


@pytest.mark.slow
@pytest.mark.usefixtures("double_precision")
def test_the_forgetting_engine_forgets_before_each_batch_that_it_learns() -> None:
    world, batch = draw_worlds(3, n_worlds=1, n_creatives=4)[0], 50
    numbers = {**setting_numbers(engine_setting()), "half_life": jnp.asarray(0.005)}
    fixed = own_policy(FIXED_SCALES, world, 10_000.0, batch, numbers)
    forgetful = own_policy(FORGETTING, world, 10_000.0, batch, numbers)
    scene = traffic_of(world, batch)

    def played(policy: Policy) -> Any:
        return jax.jit(lambda: play(policy, scene, 3, jax.random.key(0))[0])()

    known = played(fixed)
    features = scene.traffic_at((), jnp.asarray(0), jax.random.key(5)).requests.features[:, 0]
    outcomes = Outcomes(features, jnp.zeros(batch, int), jnp.zeros(batch))
    # 50 impressions are a half-life of 0.005 days of 10,000.
    halved = forget(known.posterior, 0.5, jnp.zeros(4, int))
    wanted = fixed.learn(known._replace(posterior=halved), outcomes).posterior
    got = forgetful.learn(known, outcomes).posterior
    assert_allclose(got.weights, wanted.weights, atol=1e-10)
    assert_allclose(got.arm_precision, wanted.arm_precision, rtol=1e-10)
    assert not np.allclose(got.arm_precision, fixed.learn(known, outcomes).posterior.arm_precision)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"policies": ("lin-ucb", "linucb")}, "unknown policy 'linucb'; nearest: lin-ucb"),
        ({"policies": ("qqq",)}, "unknown policy 'qqq'; known: engine, plain-thompson, greedy, "),
        ({"policies": ("lin-ucb", "lin-ucb")}, "expected each policy once, got lin-ucb, lin-ucb"),
        ({"seeds": 0}, "expected 1 to 1,000 seeds, got 0"),
        ({"seeds": 1001}, "expected 1 to 1,000 seeds, got 1001"),
        ({"creatives": 0}, "expected at least one creative, got 0"),
        ({"batch": 0}, "got batch=0, impressions=100000"),
        ({"impressions": 499}, "got batch=500, impressions=499"),
    ],
)
def test_plans_that_cannot_be_played(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(WorldError) as caught:
        Plan(**{"policies": ("lin-ucb",), **settings})
    assert words in str(caught.value)


@pytest.mark.slow
def test_every_engine_gives_the_same_results_bit_for_bit(tmp_path: Path) -> None:
    plan = Plan(policies=("lin-ucb", "beta-thompson"), **SMALL)
    rows = run_synthetic(plan, tmp_path / "here")
    for engine in ("local", "ray"):
        assert run_synthetic(plan, tmp_path / engine, workers=Workers(engine=engine, n_workers=2)) == rows
        assert (tmp_path / engine / "results.csv").read_bytes() == (
            tmp_path / "here" / "results.csv"
        ).read_bytes()


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    plan = Plan(policies=("lin-ucb", "ucb1"), **SMALL)
    alone = run_synthetic(Plan(policies=("ucb1",), **{**SMALL, "seeds": 1}), tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert len(kept) == 2
    rows = run_synthetic(plan, tmp_path, overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "nothing is played twice"
    assert len(list((tmp_path / "cells").iterdir())) == 6
    assert rows == run_synthetic(plan, tmp_path / "anew")
    assert alone[0].clicks != rows[0].clicks
    other = Plan(policies=(), **{**SMALL, "batch": 50, "seeds": 1})
    run_synthetic(other, tmp_path, overwrite=True)
    assert len(list((tmp_path / "cells").iterdir())) == 7, "other worlds are other cells"


def test_a_run_with_ads(tmp_path: Path) -> None:
    encoder = TextEncoder(TINY, dtype="float32")
    plan = Plan(policies=("lin-ts",), has_ads=True, **SMALL)
    rows = run_synthetic(plan, tmp_path / "ads", encoder=encoder)
    plain = run_synthetic(replace(plan, has_ads=False), tmp_path / "ads", overwrite=True)
    assert [row.policy for row in rows] == ["engine", "lin-ts", "uniform", "oracle"]
    # Runs with other contents are other cells, though they lie in one folder.
    assert len(list((tmp_path / "ads" / "cells").glob("*.npz"))) == 2 * 2 * SMALL["seeds"]
    assert rows[-2].regret != plain[-2].regret
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "ads" / "cells").iterdir()}
    assert run_synthetic(plan, tmp_path / "ads", overwrite=True, encoder=encoder) == rows
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "ads" / "cells").iterdir()} == kept
    assert encoder.fingerprint in (tmp_path / "ads" / "report.html").read_text()


def test_more_ads_than_a_product_has_are_refused(tmp_path: Path) -> None:
    plan = Plan(policies=(), has_ads=True, **(SMALL | {"creatives": 2_000}))
    with pytest.raises(WorldError, match=r"as a product has ads, got 2000: .* must be at most"):
        run_synthetic(plan, tmp_path, encoder=TextEncoder(TINY, dtype="float32"))
