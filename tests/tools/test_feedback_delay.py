"""What waiting costs: limits that are known exactly, and the table."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit, logit

from tools.feedback_delay import BASE_RATE, N_ARMS, SPREAD, factor, regrets, rows

pytestmark = pytest.mark.usefixtures("double_precision")

RUNS = 3


def lost_by_arm() -> np.ndarray:
    """Return what an impression of each arm loses in each run, [runs, arms]."""
    keys = jax.random.split(jax.random.key(0), RUNS)
    noise = np.stack([jax.random.normal(jax.random.split(key)[0], (N_ARMS,)) for key in keys])
    rates = expit(logit(BASE_RATE) + SPREAD * noise)
    return rates.max(axis=1, keepdims=True) - rates


def test_who_learns_only_at_the_end_has_shown_what_it_knew_at_the_start() -> None:
    keys = jax.random.split(jax.random.key(0), RUNS)
    lost = regrets("ucb1", 1_000, 1_000, keys)
    assert_allclose(lost, 1_000 * lost_by_arm()[:, 0], rtol=1e-9, atol=1e-9)  # the first arm, every time
    # Draws from equal beliefs are uniform: 1,000 of them lose the mean, within four standard errors.
    lost, each = np.asarray(regrets("beta-thompson", 1_000, 1_000, keys)), lost_by_arm()
    assert np.all(np.abs(lost - 1_000 * each.mean(axis=1)) < 4 * each.std(axis=1) * 1_000**0.5)


def test_ucb_without_delay_shows_every_arm_once_first() -> None:
    keys = jax.random.split(jax.random.key(0), RUNS)
    assert_allclose(regrets("ucb1", N_ARMS, 1, keys), lost_by_arm().sum(axis=1), rtol=1e-9)


def test_a_factor_is_the_ratio_of_means() -> None:
    assert factor(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0])) == "2.00 ± 0.00"
    assert factor(np.array([3.0, 1.0]), np.array([2.0, 2.0])) == "1.00 ± 0.50"


def test_a_row_of_the_table() -> None:
    header, row = rows(20, RUNS, names=("ucb1",), delays=(1, N_ARMS))
    assert header == ("policy", "clicks lost, delay 1", "× at 10")
    keys = jax.random.split(jax.random.key(0), RUNS)
    first, later = (np.asarray(regrets("ucb1", 20, delay, keys)) for delay in (1, N_ARMS))
    assert row[1].startswith(f"{first.mean():,.0f} ± ")
    assert row[2] == factor(later, first)


def test_the_engine_learns() -> None:
    keys = jax.random.split(jax.random.key(0), RUNS)
    lost = np.asarray(regrets("engine", 4_000, 200, keys))
    assert lost.mean() < 0.8 * 4_000 * lost_by_arm().mean()  # of showing all alike
