"""Online logistic regressions against a general minimiser, arm by arm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.special import expit, logit

from bandit.features.design import DIM
from simulations.loop import uniforms_of_key
from simulations.policies.base import Outcomes, Request, key_of
from simulations.policies.linear import N_SLOTS
from simulations.policies.logistic import LogisticState, fit, logistic_ts

pytestmark = pytest.mark.usefixtures("double_precision")

N_ARMS, RIDGE, BASE_RATE = 3, 2.0, 0.02


def some_outcomes(seed: int, size: int = 120) -> Outcomes:
    rng = np.random.default_rng(seed)
    features = np.zeros((size, DIM))
    features[:, 0], features[:, 1:N_SLOTS] = 1, rng.normal(size=(size, N_SLOTS - 1))
    clicks = (rng.random(size) < 0.1).astype(float)
    return Outcomes(*map(jnp.asarray, (features, rng.integers(0, N_ARMS, size), clicks)))


def fit_by_hand(
    mean: np.ndarray, precision: np.ndarray, contexts: np.ndarray, clicks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mode and curvature of one arm, by SciPy and written out sums."""

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        eta, away = contexts @ w, w - mean
        value = 0.5 * away @ precision @ away + np.logaddexp(0, eta).sum() - clicks @ eta
        return value, precision @ away + contexts.T @ (expit(eta) - clicks)

    def curvature(w: np.ndarray) -> np.ndarray:
        p = expit(contexts @ w)
        return precision + sum(q * np.outer(x, x) for q, x in zip(p * (1 - p), contexts, strict=True))

    found = minimize(loss, mean, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-12})
    return found.x, curvature(found.x)


@pytest.mark.parametrize("is_diagonal", [True, False])
def test_two_batches_are_the_minimiser_s(is_diagonal: bool) -> None:
    policy = logistic_ts(N_ARMS, 1.0, RIDGE, BASE_RATE, is_diagonal=is_diagonal)
    state = policy.start
    weights = [np.r_[logit(BASE_RATE), np.zeros(N_SLOTS - 1)] for _ in range(N_ARMS)]
    precisions = [RIDGE * np.eye(N_SLOTS) for _ in range(N_ARMS)]
    for seed in (0, 1):
        outcomes = some_outcomes(seed)
        state = policy.learn(state, outcomes)
        for arm in range(N_ARMS):
            mine = np.asarray(outcomes.chosen) == arm
            contexts = np.asarray(outcomes.features)[mine, :N_SLOTS]
            weights[arm], curved = fit_by_hand(
                weights[arm], precisions[arm], contexts, np.asarray(outcomes.clicks)[mine]
            )
            precisions[arm] = np.diag(np.diag(curved)) if is_diagonal else curved
    assert_allclose(state.weights, weights, atol=1e-9)
    assert_allclose(state.precision, precisions, atol=1e-8)


def test_order_inside_a_batch_does_not_matter() -> None:
    policy, outcomes = logistic_ts(N_ARMS, 1.0, RIDGE, BASE_RATE), some_outcomes(2)
    order = np.random.default_rng(0).permutation(len(outcomes.clicks))
    one, other = (
        policy.learn(policy.start, some)
        for some in (outcomes, jax.tree.map(lambda leaf: leaf[order], outcomes))
    )
    assert_allclose(one.weights, other.weights, atol=1e-10)
    assert_allclose(one.precision, other.precision, atol=1e-10)


def test_draws_the_best_under_its_scaled_belief() -> None:
    scale = 0.7
    policy = logistic_ts(N_ARMS, scale, RIDGE, BASE_RATE, is_diagonal=False)
    state = policy.learn(policy.start, some_outcomes(3))
    eligible, seen = jnp.asarray([True, True, False]), set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        row = np.r_[1.0, rng.normal(size=N_SLOTS - 1), np.zeros(DIM - N_SLOTS)]
        uniforms = jax.tree.map(lambda leaf: leaf[0], uniforms_of_key(jax.random.key(seed), 1))
        noise = np.asarray(jax.random.normal(key_of(uniforms, 3), (N_ARMS,), jnp.float32), float)
        x = row[:N_SLOTS]
        sd = [np.sqrt(x @ np.linalg.inv(np.asarray(precision)) @ x) for precision in state.precision]
        wanted = (np.asarray(state.weights) @ x + scale * noise * sd)[:2].argmax()
        choice = policy.choose(state, Request(jnp.tile(row, (N_ARMS, 1)), eligible), uniforms)
        assert int(choice.chosen) == wanted
        seen.add(int(choice.chosen))
    assert seen == {0, 1}


@pytest.mark.parametrize("clicks", [0.0, 1.0])
def test_extreme_batches_settle(clicks: float) -> None:
    outcomes = some_outcomes(4, 500)
    contexts = outcomes.features[:, :N_SLOTS]
    start = logistic_ts(N_ARMS, 1.0, 0.01, BASE_RATE).start
    after = fit(LogisticState(*start), contexts, outcomes.chosen, jnp.full(500, clicks))
    p = expit(np.sum(np.asarray(contexts) * np.asarray(after.weights)[np.asarray(outcomes.chosen)], axis=1))
    for arm in range(N_ARMS):
        mine = np.asarray(outcomes.chosen) == arm
        away = np.asarray(after.weights[arm] - start.weights[arm])
        gradient = 0.01 * away + np.asarray(contexts)[mine].T @ (p[mine] - clicks)
        assert_allclose(gradient, 0, atol=1e-6)
