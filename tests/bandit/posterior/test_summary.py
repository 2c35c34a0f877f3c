"""What people read of the posterior: held against quadrature and against independent joint draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from bandit.posterior import State, predict, summarise, update
from tests.bandit.posterior.small import ARM_CAMPAIGN, DIM, a_batch, empty_state

pytestmark = pytest.mark.usefixtures("double_precision")

CAMPAIGN = 2
# Four of the campaign's arms; the second may not compete.
ARMS = np.flatnonzero(ARM_CAMPAIGN == CAMPAIGN)[:4]
COMPETING = np.array([True, False, True, True])
N_CONTEXTS = 3
N_DRAWS = 1000

summarise_jit = jax.jit(summarise)


@pytest.fixture(scope="module")
def state(double_precision: None) -> State:
    learnt, _ = jax.jit(update)(empty_state(), a_batch(np.random.default_rng(0)))
    return learnt


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(N_CONTEXTS, len(ARMS), DIM)) + np.eye(DIM)[0]


def joint_rates(state: State, features: np.ndarray, weight: np.ndarray, n: int = 200_000) -> np.ndarray:
    """Return draws of the arms' rates over the contexts, [draws, arms], from the joint logits."""
    rows = features.reshape(-1, DIM)
    arm = np.tile(ARMS, N_CONTEXTS)
    mean, covariance = jax.jit(predict)(state, rows, arm, np.full_like(arm, CAMPAIGN))
    draws = np.random.default_rng(2).multivariate_normal(np.asarray(mean), np.asarray(covariance), n)
    return np.einsum("c,nca->na", weight, expit(draws).reshape(n, N_CONTEXTS, len(ARMS)))


def test_summary_is_that_of_the_joint_posterior(state: State, features: np.ndarray) -> None:
    weight = np.array([0.5, 0.3, 0.2])
    rates = joint_rates(state, features, weight)
    arms, key = jnp.asarray(ARMS), jax.random.key(0)
    summary = summarise_jit(state, features, weight, arms, jnp.asarray(CAMPAIGN), COMPETING, key)
    sd, error = rates.std(axis=0), 5 / np.sqrt(N_DRAWS)
    assert (np.abs(summary.ctr - rates.mean(axis=0)) < error * sd).all()
    # A quantile's error at 2.5 % is √(p(1 − p)/n) / density: below 0.4 sd of the rate, five times over.
    for ours, level in ((summary.low, 0.025), (summary.high, 0.975)):
        assert (np.abs(np.asarray(ours) - np.quantile(rates, level, axis=0)) < 0.5 * sd).all()
    competing = np.where(COMPETING, rates, -np.inf)
    p_best = np.bincount(competing.argmax(axis=1), minlength=len(ARMS)) / len(rates)
    np.testing.assert_allclose(summary.p_best, p_best, atol=error / 2)
    assert float(summary.p_best.sum()) == pytest.approx(1)
    assert float(summary.p_best[1]) == 0
    loss = competing.max(axis=1)[:, None] - rates
    assert (np.abs(summary.expected_loss - loss.mean(axis=0)) < error * loss.std(axis=0)).all()
    # By its place among the other draws: a quantile's error is that of a share, whatever the density.
    below = (loss / rates < np.asarray(summary.value_remaining)).mean(axis=0)
    np.testing.assert_allclose(below, 0.95, atol=5 * np.sqrt(0.05 * 0.95 / N_DRAWS))


def test_nothing_remains_where_nothing_competes(state: State, features: np.ndarray) -> None:
    weight, alone = np.array([1.0, 0.0, 0.0]), np.array([False, False, True, False])
    arms, campaign = jnp.asarray(ARMS), jnp.asarray(CAMPAIGN)
    summary = summarise_jit(state, features, weight, arms, campaign, alone, jax.random.key(0))
    assert float(summary.value_remaining[2]) == float(summary.expected_loss[2]) == 0
    assert float(summary.p_best[2]) == 1


def test_an_interval_holds_its_share_of_the_posterior(state: State, features: np.ndarray) -> None:
    weight = np.array([1.0, 0.0, 0.0])
    rates = joint_rates(state, features, weight)
    low, high = np.zeros((2, len(ARMS)))
    n_keys = 8
    for seed in range(n_keys):
        summary = summarise_jit(
            state, features, weight, jnp.asarray(ARMS), jnp.asarray(CAMPAIGN), COMPETING, jax.random.key(seed)
        )
        low += (rates < np.asarray(summary.low)).mean(axis=0) / n_keys
        high += (rates > np.asarray(summary.high)).mean(axis=0) / n_keys
    error = 5 * np.sqrt(0.025 * 0.975 / (n_keys * N_DRAWS))
    np.testing.assert_allclose(low, 0.025, atol=error)
    np.testing.assert_allclose(high, 0.025, atol=error)
