"""500 logs of one world of ten arms: no bias, and intervals that hold the truth as often as they say."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from numpy.testing import assert_allclose

from simulations.ope.estimators import (
    LoggedBatch,
    Terms,
    doubly_robust,
    ips,
    rejection_replay,
    snips,
    switch_dr,
    value_of,
)
from simulations.ope.intervals import bootstrap, empirical_bernstein
from simulations.ope.reward_model import cross_fitted

pytestmark = pytest.mark.usefixtures("double_precision")

SEED, N_LOGS, N_ROWS, N_ARMS = 7, 500, 1_000, 10
NAMES = ("ips", "snips", "dr", "switch-dr", "replay")


class Found(NamedTuple):
    """Per log and estimator; `unbiased` of one log's IPS and DR."""

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    bernstein: np.ndarray
    truth: float


@functools.cache
def found() -> Found:
    rng = np.random.default_rng(SEED)
    rates = jnp.asarray(rng.uniform(0.05, 0.4, N_ARMS))
    logging, target = (jnp.asarray(rng.dirichlet(np.full(N_ARMS, 5.0))) for _ in range(2))
    widest = jnp.max(target / logging)

    def one(key: Array) -> tuple[Array, Array, Array, Array]:
        keys = jax.random.split(key, 4)
        action = jax.random.choice(keys[0], N_ARMS, (N_ROWS,), p=logging)
        reward = (jax.random.uniform(keys[1], (N_ROWS,)) < rates[action]) * 1.0
        everywhere = (N_ROWS, N_ARMS)
        batch = LoggedBatch(
            action=action,
            reward=reward,
            propensity=logging[action],
            logging=jnp.broadcast_to(logging, everywhere),
            eligible=jnp.ones(everywhere, bool),
            target=jnp.broadcast_to(target, everywhere),
            estimates=cross_fitted(jnp.ones((N_ROWS, 1)), action, reward, N_ARMS),
        )
        each = (
            ips(batch),
            snips(batch),
            doubly_robust(batch),
            switch_dr(batch, N_ROWS**0.5),
            rejection_replay(batch, jax.random.uniform(keys[2], (N_ROWS,))),
        )
        interval, _ = bootstrap(
            Terms(*(jnp.stack(leaves) for leaves in zip(*each, strict=True))), keys[3], n_resamples=400
        )
        bounds = (
            empirical_bernstein(each[0].numerator, widest),
            empirical_bernstein(each[2].numerator, 2 * widest + 1),
        )
        return (
            jnp.stack([value_of(terms) for terms in each]),
            interval.low,
            interval.high,
            jnp.array([[bound.low, bound.high] for bound in bounds]),
        )

    keys = jax.random.split(jax.random.key(SEED), N_LOGS)
    results = jax.jit(lambda keys: jax.lax.map(one, keys))(keys)
    return Found(*map(np.asarray, results), float(target @ rates))


@pytest.mark.parametrize("name", NAMES)
def test_estimates_are_unbiased_within_four_standard_errors(name: str) -> None:
    values = found().values[:, NAMES.index(name)]
    error = values.std(ddof=1) / N_LOGS**0.5
    assert abs(values.mean() - found().truth) < 4 * error, (SEED, values.mean(), found().truth, error)


@pytest.mark.parametrize("name", NAMES)
def test_bootstrap_intervals_hold_the_truth_in_95_of_100_logs(name: str) -> None:
    i = NAMES.index(name)
    held = (found().low[:, i] <= found().truth) & (found().truth <= found().high[:, i])
    assert 0.92 <= held.mean() <= 0.98, SEED


@pytest.mark.parametrize("which", [0, 1], ids=["ips", "dr"])
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
