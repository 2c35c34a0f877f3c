"""Each baseline against its formula written a second time, or the exact probability of what it shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from bandit.policy.randomness import Uniforms, uniforms_of_ids
from bandit.posterior import Gaussian
from simulations.policies.base import Counts, Policy, Request
from simulations.policies.engine import LogitState, engine_on_logits
from simulations.policies.logit_policies import (
    ab_then_commit,
    bayes_ucb,
    epsilon_greedy_on_logits,
    informed_beta,
    kl_ucb,
    lola,
    scaled_thompson,
)

pytestmark = pytest.mark.usefixtures("double_precision")

N_ARMS = 4
N_DECISIONS = 20_000
ALL = np.ones(N_ARMS, bool)


def uniforms_of(n: int) -> Uniforms:
    return uniforms_of_ids([str(i) for i in range(n)], 0)


def belief(logits: Gaussian, so_far: float = 0.0) -> LogitState:
    """Return a state that knows these logits after so many impressions."""
    start: LogitState = engine_on_logits(logits, 1.0).start
    return start._replace(so_far=jnp.asarray(float(so_far)))


def chosen(policy: Policy, state: Counts | LogitState, eligible: np.ndarray = ALL, n: int = 1) -> np.ndarray:
    request = Request(np.zeros((N_ARMS, 0)), eligible)
    many = jax.jit(jax.vmap(policy.choose, in_axes=(None, None, 0)))
    return np.asarray(many(state, request, uniforms_of(n)).chosen)


def some_counts(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    impressions = random.integers(1, 2_000, N_ARMS)
    return impressions.astype(float), random.binomial(impressions, 0.03).astype(float)


def counts(impressions: np.ndarray, clicks: np.ndarray) -> Counts:
    return Counts(jnp.asarray(impressions, float), jnp.asarray(clicks, float))


def some_logits(seed: int) -> Gaussian:
    random = np.random.default_rng(seed)
    factor = random.normal(size=(N_ARMS, N_ARMS)) / 4
    return Gaussian(
        jnp.asarray(random.normal(-4, 0.2, N_ARMS)), jnp.asarray(factor @ factor.T + 0.05 * np.eye(N_ARMS))
    )


@pytest.mark.parametrize("power", [0.0, 5.0])
def test_bayes_ucb_shows_the_highest_quantile(power: float) -> None:
    shown = set()
    for seed in range(8):
        logits, so_far = some_logits(seed), 10 * seed**2
        state = belief(logits, so_far)
        level = 1 - 1 / ((so_far + 1) * np.log(4_000) ** power)
        sd = np.sqrt(np.diagonal(logits.covariance))
        best = int(np.argmax(np.asarray(logits.mean) + 0.7 * norm.ppf(max(level, 0.5)) * sd))
        policy = bayes_ucb(logits, 0.7, power, jnp.asarray(4_000.0))
        np.testing.assert_array_equal(chosen(policy, state), best)
        shown.add(best)
    assert len(shown) > 1


def test_lola_counts_its_prediction_as_impressions() -> None:
    shown = set()
    for seed in range(8):
        logits, (n, c) = some_logits(seed), some_counts(seed)
        predicted = 1 / (1 + np.exp(-np.asarray(logits.mean)))
        total = 500.0 * 3 + n[:3].sum()
        index = (500 * predicted + c) / (500 + n) + 0.02 * np.sqrt(2 * np.log(total) / (500 + n))
        eligible = np.arange(N_ARMS) < 3
        best = int(np.argmax(index[:3]))
        assert chosen(lola(logits, 500.0, 0.02), counts(n, c), eligible) == best
        shown.add(best)
    assert len(shown) > 1


def test_kl_ucb_shows_the_highest_rate_within_its_bound() -> None:
    def divergence(p: float, q: float) -> float:
        first = p * np.log(p / q) if p > 0 else 0.0
        return float(first + (1 - p) * np.log((1 - p) / (1 - q)))

    shown = set()
    for seed in range(8):
        n, c = some_counts(seed)
        c[seed % N_ARMS] = 0
        bound = 0.3 * np.log(n.sum()) / n
        index = [
            brentq(lambda q, p=p, b=b: divergence(p, q) - b, p + 1e-12, 1 - 1e-9)
            for p, b in zip(c / n, bound, strict=True)
        ]
        assert chosen(kl_ucb(N_ARMS, 0.3), counts(n, c)) == int(np.argmax(index))
        shown.add(int(np.argmax(index)))
    assert len(shown) > 1
    assert chosen(kl_ucb(N_ARMS, 0.3), counts(np.array([9.0, 9, 0, 0]), np.array([9.0, 0, 0, 0]))) == 2


def test_ab_test_shows_all_alike_and_then_the_best() -> None:
    eligible = np.array([True, False, True, True])
    policy = ab_then_commit(N_ARMS, 0.2, jnp.asarray(1_000.0))
    before = counts(np.array([100, 0, 49, 50]), np.array([9, 0, 0, 0]))  # 199 of 200
    shown = np.bincount(chosen(policy, before, eligible, N_DECISIONS), minlength=N_ARMS)
    assert shown[1] == 0
    assert np.abs(shown[eligible] - N_DECISIONS / 3).max() < 5 * np.sqrt(N_DECISIONS * 2 / 9)
    after = counts(np.array([100, 0, 50, 50]), np.array([3, 0, 1, 2]))
    np.testing.assert_array_equal(chosen(policy, after, eligible, 50), 3)


def test_epsilon_greedy_shows_the_best_mean_but_for_its_share() -> None:
    logits = some_logits(1)
    state = belief(logits)
    shown = np.bincount(chosen(epsilon_greedy_on_logits(logits, 0.2), state, n=N_DECISIONS), minlength=N_ARMS)
    expected = np.full(N_ARMS, 0.05)
    expected[int(np.argmax(logits.mean))] += 0.8
    error = np.sqrt(expected * (1 - expected) / N_DECISIONS)
    assert (np.abs(shown / N_DECISIONS - expected) < 5 * error).all()


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_scaled_thompson_shows_an_arm_as_often_as_its_scaled_draw_is_the_best(scale: float) -> None:
    logits = some_logits(2)
    eligible = np.array([True, True, False, False])
    covariance = np.asarray(logits.covariance)
    sd = scale * np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    exact = norm.cdf(float(logits.mean[0] - logits.mean[1]) / sd)
    state = belief(logits)
    first = (chosen(scaled_thompson(logits, scale), state, eligible, N_DECISIONS) == 0).mean()
    assert 0.02 < exact < 0.98
    assert first == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / N_DECISIONS))


def test_informed_beta_starts_at_the_pasts_rate() -> None:
    start: Counts = informed_beta(N_ARMS, 5.0, jnp.asarray(0.02)).start
    clicks, others = 1 + np.asarray(start.clicks), 1 + np.asarray(start.impressions - start.clicks)
    np.testing.assert_allclose(clicks, 5)
    np.testing.assert_allclose(clicks / (clicks + others), 0.02)
