"""What a finished test taught stays exactly: against the state that keeps all arms, and the dense model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from bandit.features.content_pca import Components
from bandit.features.design import N_CONTENT
from bandit.posterior import Prior, Rows, Sites, absorb, grow, initial_state, predict, update
from simulations.experiments.archive import N_SEEDS
from simulations.experiments.cold_start import closed, play_cold
from simulations.policies.base import Outcomes
from simulations.policies.engine import engine_on_logits
from simulations.worlds.archive import PastTest
from tests.bandit.posterior.dense import dense_prior

pytestmark = pytest.mark.usefixtures("double_precision")

DIM, N_ARMS, N_TESTS, BATCH = 3, 4, 3, 50
N_PLAYED = 30


def a_prior() -> Prior:
    return Prior(*map(jnp.asarray, ([-3.0, 0.0, 0.1], [0.7, 0.3, 0.4], 0.6, 0.25)))


def a_test_of(number: int) -> tuple[Array, Sites]:
    random = np.random.default_rng(number)
    weight = random.uniform(0, 5, N_ARMS)
    weight[number % N_ARMS] = 0.0  # an arm never shown
    information = np.where(weight > 0, random.normal(size=N_ARMS), 0.0)
    return jnp.asarray(random.normal(size=(N_ARMS, DIM))), Sites(
        jnp.asarray(weight), jnp.asarray(information)
    )


def rows_of(features: Array, weight: Array, first_arm: int, campaign: int) -> Rows:
    arms = first_arm + jnp.arange(N_ARMS)
    return Rows(features, arms, jnp.full(N_ARMS, campaign), (weight > 0).astype(float), jnp.zeros(N_ARMS))


@pytest.mark.slow
def test_closing_tests_keeps_what_the_weights_know() -> None:
    absorb_jit = jax.jit(absorb)
    one_by_one = initial_state(a_prior(), 1, 1)
    together = initial_state(a_prior(), N_TESTS * N_ARMS, N_TESTS)
    dense = dense_prior(a_prior(), N_TESTS * N_ARMS, N_TESTS)
    precision, information = dense.precision.copy(), dense.information.copy()
    for number in range(N_TESTS):
        features, sites = a_test_of(number)
        one_by_one = closed(
            absorb_jit(grow(one_by_one, N_ARMS, 1), rows_of(features, sites.weight, 0, 0), sites)
        )
        together = absorb_jit(together, rows_of(features, sites.weight, number * N_ARMS, number), sites)
        for arm in range(N_ARMS):
            row = np.zeros(len(information))
            row[:DIM] = features[arm]
            row[[DIM + number, DIM + N_TESTS + number * N_ARMS + arm]] = 1
            precision += float(sites.weight[arm]) * np.outer(row, row)
            information += float(sites.information[arm]) * row
    assert one_by_one.arm_precision.shape == one_by_one.campaign_precision.shape == (1,)
    np.testing.assert_allclose(one_by_one.weights, together.weights, rtol=1e-9)
    np.testing.assert_allclose(one_by_one.weights, np.linalg.solve(precision, information)[:DIM], rtol=1e-9)
    covariance = np.linalg.inv(precision)[:DIM, :DIM]
    factor = np.asarray(one_by_one.factor)
    np.testing.assert_allclose(np.linalg.inv(factor @ factor.T), covariance, rtol=1e-9)
    # A new test's arms have the weights' uncertainty and their own.
    features, _ = a_test_of(99)
    new = predict(grow(one_by_one, N_ARMS, 1), features, jnp.arange(N_ARMS), jnp.zeros(N_ARMS, int))
    expected = features @ covariance @ features.T + 0.6**2 + 0.25**2 * np.eye(N_ARMS)
    np.testing.assert_allclose(new.covariance, expected, rtol=1e-9)


def test_what_is_learnt_on_logits_is_what_the_full_state_learns() -> None:
    state = initial_state(a_prior(), N_ARMS, 1)
    features, _ = a_test_of(0)
    arms, campaign = jnp.arange(N_ARMS), jnp.zeros(N_ARMS, int)
    policy = engine_on_logits(predict(state, features, arms, campaign), 400.0, refits=False)
    learn, update_jit = jax.jit(policy.learn), jax.jit(update)
    learning, full = policy.start, state
    random = np.random.default_rng(3)
    for _ in range(4):
        shown = jnp.asarray(random.integers(0, N_ARMS - 1, BATCH))  # the last arm is never shown
        clicks = jnp.asarray((random.uniform(size=BATCH) < 0.1).astype(float))
        learning = learn(learning, Outcomes(jnp.zeros((BATCH, 0)), shown, clicks))
        n, c = (jnp.zeros(N_ARMS).at[shown].add(values) for values in (jnp.ones(BATCH), clicks))
        full, _ = update_jit(full, Rows(features, arms, campaign, n, c))
    summed = jax.jit(absorb)(
        state, Rows(features, arms, campaign, learning.sites.weight, jnp.zeros(N_ARMS)), learning.sites
    )
    assert float(learning.so_far) == 4 * BATCH
    for mine, theirs in zip(jax.tree.leaves(closed(summed)), jax.tree.leaves(closed(full)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
    after = predict(full, features, arms, campaign)
    np.testing.assert_allclose(learning.logits.mean, after.mean, rtol=1e-9)


@pytest.mark.slow
def test_all_tests_are_played_in_order_and_the_last_are_scored() -> None:
    random = np.random.default_rng(0)
    vectors = {str(i): np.zeros(N_CONTENT, np.float32) for i in range(3 * N_PLAYED)}
    components = Components(np.zeros(N_CONTENT, np.float32), np.eye(N_CONTENT, dtype=np.float32))
    # What is good shows in the first component; that can only be known from the tests before.
    tests = []
    for number in range(N_PLAYED):
        headlines = tuple(str(3 * number + i) for i in range(3))
        appeal = random.normal(size=3)
        for headline, value in zip(headlines, appeal, strict=True):
            vectors[headline][0] = value
        clicks = np.round(1e4 / (1 + np.exp(4 - 1.5 * appeal)))
        tests.append(PastTest(f"t{number:02d}", 201501, headlines, np.full(3, 1e4), clicks))
    finished: list[int] = []
    played = play_cold(tests, vectors, components, "score", False, 100, finished.append)
    assert sum(finished) == (N_PLAYED - 12) * N_SEEDS
    truths = np.stack([test.truth for test in tests[12:]])
    np.testing.assert_allclose(played.best, 300 * truths.max(axis=1))
    np.testing.assert_allclose(played.uniform, 300 * truths.mean(axis=1))
    assert (played.earned <= played.best + 1e-9).all()
    alone = [play_cold([test], vectors, components, "score", False, 100).earned[0] for test in tests[12:]]
    lift = (played.best - played.uniform).sum()
    assert (played.earned.sum() - np.sum(alone)) / lift > 0.1
