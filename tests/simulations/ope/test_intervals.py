"""500 logs of one world of ten arms: no bias, and intervals that hold the truth as often as they say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from simulations.ope.estimators import Terms
from simulations.ope.evaluation import BOUNDED
from simulations.ope.intervals import bootstrap, empirical_bernstein
from tools.ope_coverage import N_LOGS, NAMES, SEED, estimate_many

pytestmark = pytest.mark.usefixtures("double_precision")

found = functools.cache(estimate_many)
UNBIASED = ("ips", "snips", "dr", "switch-dr", "mips", "replay")


@pytest.mark.slow
@pytest.mark.parametrize("name", UNBIASED)
def test_estimates_are_unbiased_within_four_standard_errors(name: str) -> None:
    values = found().values[:, NAMES.index(name)]
    error = values.std(ddof=1) / N_LOGS**0.5
    assert abs(values.mean() - found().truth) < 4 * error, (SEED, values.mean(), found().truth, error)


@pytest.mark.parametrize("name", UNBIASED)
def test_bootstrap_intervals_hold_the_truth_in_95_of_100_logs(name: str) -> None:
    i = NAMES.index(name)
    held = (found().low[:, i] <= found().truth) & (found().truth <= found().high[:, i])
    assert 0.92 <= held.mean() <= 0.98, SEED


def test_mips_varies_less_than_ips() -> None:
    spread = found().values.std(axis=0)
    assert spread[NAMES.index("mips")] < 0.95 * spread[NAMES.index("ips")]


@pytest.mark.parametrize("which", [0, 1], ids=BOUNDED)
def test_bernstein_bounds_hold_the_truth_at_least_as_often(which: int) -> None:
    low, high = found().bernstein[:, which].T
    assert np.mean((low <= found().truth) & (found().truth <= high)) >= 0.95
    assert np.mean(high - low) < 0.6  # and say something


def test_a_bernstein_interval_is_its_equation() -> None:
    values = np.array([0.0, 2.0, 0.5, 0.0, 1.0])
    interval = empirical_bernstein(jnp.asarray(values), 3.0, confidence=0.9)
    logarithm = np.log(40)
    error = np.sqrt(2 * values.var(ddof=1) * logarithm / 5) + 7 * 3 * logarithm / 12
    assert_allclose([interval.low, interval.high], [0.7 - error, 0.7 + error])


def test_a_bootstrap_of_a_mean_has_the_standard_error_of_the_mean() -> None:
    values = np.random.default_rng(3).exponential(size=400)
    terms = Terms(jnp.asarray(values[None]), jnp.ones((1, 400)))
    interval, error = bootstrap(terms, jax.random.key(0), n_resamples=4_000)
    expected = values.std() / 20
    assert_allclose(error, expected, rtol=0.05)
    assert_allclose(
        [interval.low[0], interval.high[0]], values.mean() + np.array([-1.96, 1.96]) * expected, rtol=0.02
    )
    again, _ = bootstrap(terms, jax.random.key(0), n_resamples=4_000)
    assert again.low == interval.low
