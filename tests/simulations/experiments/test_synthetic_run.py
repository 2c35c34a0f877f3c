"""A whole run of synthetic worlds: rows, files, tuning; and comparisons by hand."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders import TextEncoder
from simulations.errors import PolicyError
from simulations.experiments.plans import N_TUNING, Plan
from simulations.experiments.synthetic import draw_worlds, play_worlds
from simulations.experiments.synthetic_run import run_synthetic
from simulations.policies.registry import GRID_SIZE, IN_CONTEXTS, grid_of, numbers_of
from simulations.policies.settings import (
    FIXED_SCALES,
    FORGETTING,
    WORLD_SETTINGS,
    PolicySetting,
    engine_setting,
    setting,
)
from simulations.reports.scores import Comparison, Played, compare
from simulations.sweep import Workers
from simulations.worlds.requests import WorldError
from tests.paths import TINY

SMALL = {"seeds": 2, "impressions": 400, "creatives": 3, "batch": 100}


def by_hand(name: str, earned: list[list[float]]) -> Played:
    """Two seeds of two batches; uniform loses 4 and 8 clicks."""
    return Played(
        PolicySetting(policy=name),
        10,
        earned=np.array(earned),
        best=np.array([[5.0, 5.0], [6.0, 6.0]]),
        uniform=np.array([[3.0, 3.0], [2.0, 2.0]]),
        shown=np.full((2, 2, 2), 5.0),
    )


def test_comparison_by_hand() -> None:
    engine = by_hand("engine", [[4.0, 5.0], [4.0, 6.0]])  # loses 1 of 4 and 2 of 8
    baseline = by_hand("baseline", [[3.0, 5.0], [3.0, 5.0]])  # loses 2 of 4 and 4 of 8
    other = by_hand("other", [[4.0, 5.0], [2.0, 2.0]])  # loses 1 of 4 and 8 of 8
    first, second, third = compare([engine, baseline, other])
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


@pytest.mark.slow
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
    assert [trial["setting"] for trial in trials] == [
        one.setting_id for one in grid_of("lin-ucb", IN_CONTEXTS)
    ]
    assert {int(trial["seeds"]) for trial in trials} == {N_TUNING}
    best = min(trials, key=lambda trial: float(trial["of_uniform"]))
    assert rows[1].setting == best["setting"]


def test_whoever_is_tuned_has_a_grid_of_the_same_size() -> None:
    grids = {name: grid_of(name, IN_CONTEXTS) for name in IN_CONTEXTS}
    assert {len(grid) for grid in grids.values()} == {0, GRID_SIZE}
    untuned = {name for name, grid in grids.items() if not grid}
    engines = {"engine", "plain-thompson", "greedy", FIXED_SCALES, FORGETTING}
    assert untuned == {*engines, "beta-thompson", "uniform", "oracle"}
    for name, grid in grids.items():
        assert not grid or WORLD_SETTINGS[name] in grid, name


def test_every_setting_names_all_numbers_that_its_policy_reads() -> None:
    for name, one in WORLD_SETTINGS.items():
        assert {*numbers_of(one, IN_CONTEXTS)} == {*IN_CONTEXTS[name].reads}, name


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (setting("lin-ucb", alpha=0.1), "lin-ucb reads alpha, ridge; ridge is missing in 'alpha=0.1'"),
        (setting("beta-thompson", scale=1), "beta-thompson does not read scale: its numbers are none"),
        (setting("ucb1", scale=1, ridge=2), "ucb1 does not read ridge: its numbers are scale"),
        (setting("ucb2"), "unknown policy 'ucb2'; nearest: ucb1"),
    ],
)
def test_numbers_that_are_not_read_are_refused(one: PolicySetting, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        numbers_of(one, IN_CONTEXTS)
    assert words in str(caught.value)
    with pytest.raises(PolicyError, match="engine does not read kapa"):
        engine_setting(kapa=1)


@pytest.mark.slow
def test_what_an_engines_setting_shows_is_what_plays() -> None:
    worlds = draw_worlds(7, n_worlds=1, n_creatives=4)

    def earned(**numbers: float) -> np.ndarray:
        return play_worlds(worlds, engine_setting(**numbers), 400, batch=100).earned

    shipped = earned()
    for changed in ({"optimism": 0, "noise": 1}, {"kappa": 1}, {"uniform": 0.5}, {"endless": 1}):
        assert not np.array_equal(earned(**changed), shipped), changed


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_more_ads_than_a_product_has_are_refused(tmp_path: Path) -> None:
    plan = Plan(policies=(), has_ads=True, **(SMALL | {"creatives": 2_000}))
    with pytest.raises(WorldError, match=r"as a product has ads, got 2000: .* must be at most"):
        run_synthetic(plan, tmp_path, encoder=TextEncoder(TINY, dtype="float32"))
