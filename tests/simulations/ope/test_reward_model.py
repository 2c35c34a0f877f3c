"""The reward model against a general minimiser, and that it never sees what it scores."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.special import expit, logit

from simulations.ope.reward_model import ACTION_SD, SHARED_SD, cross_fitted, fit, predict

pytestmark = pytest.mark.usefixtures("double_precision")

N_ROWS, N_ACTIONS, SLOTS = 200, 4, 3


def some_rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    context = np.column_stack([np.ones(N_ROWS), rng.normal(size=(N_ROWS, SLOTS - 1))])
    action = rng.integers(0, N_ACTIONS, N_ROWS)
    return context, action, (rng.random(N_ROWS) < expit(-1 + context[:, 1] + 0.5 * action)).astype(float)


@pytest.mark.parametrize("n_clicks", [None, 0])
def test_the_fit_is_the_mode_that_scipy_finds(n_clicks: int | None) -> None:
    context, action, reward = some_rows()
    if n_clicks == 0:
        reward = np.zeros(N_ROWS)
    counted = (np.arange(N_ROWS) % 3 > 0).astype(float)
    mean = np.zeros(SLOTS)
    mean[0] = logit((counted @ reward + 1) / (counted.sum() + 2))
    spread = np.array([1.0, *[SHARED_SD] * (SLOTS - 1)])

    def loss(flat: np.ndarray) -> float:
        shared, own = flat[:SLOTS], flat[SLOTS:].reshape(N_ACTIONS, SLOTS)
        eta = (context * (shared + own[action])).sum(axis=1)
        prior = (((shared - mean) / spread) ** 2).sum() + ((own / ACTION_SD) ** 2).sum()
        return float(counted @ (np.logaddexp(0, eta) - reward * eta) + prior / 2)

    start = np.concatenate([mean, np.zeros(N_ACTIONS * SLOTS)])
    best = minimize(loss, start, method="BFGS", options={"gtol": 1e-9}).x
    shared, own = fit(*map(jnp.asarray, (context, action, reward, counted)), N_ACTIONS)
    assert_allclose(np.concatenate([shared, np.ravel(own)]), best, atol=2e-5)
    expected = expit(context @ (np.asarray(shared)[:, None] + np.asarray(own).T))
    assert_allclose(predict((shared, own), jnp.asarray(context)), expected, rtol=1e-12)


def test_a_row_is_never_scored_by_a_model_that_has_seen_it() -> None:
    context, action, reward = map(jnp.asarray, some_rows())
    row, changed = 13, reward.at[13].set(1 - reward[13])
    before, after = (cross_fitted(context, action, one, N_ACTIONS) for one in (reward, changed))
    same_fold = np.arange(N_ROWS) % 5 == row % 5
    assert_allclose(before[same_fold], after[same_fold], rtol=0, atol=0)
    assert np.all(np.abs(before - after)[~same_fold].max(axis=1) > 0)
    assert np.all((np.asarray(before) > 0) & (np.asarray(before) < 1))
