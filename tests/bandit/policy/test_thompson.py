"""The draw and its propensity: exact limits, an independent Thompson sampler, frequencies of the choice."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from bandit.policy.propensity import Limits, propensities_of
from bandit.policy.quasi_random import N_SETS, normal_points
from bandit.policy.randomness import Uniforms, uniforms_of_ids
from bandit.policy.thompson import (
    ENDLESS,
    KAPPA,
    NOISE,
    OPTIMISM,
    Choice,
    Exploration,
    best_shares,
    choose,
    is_best,
    lookahead,
    remaining_impressions,
)
from bandit.posterior import Gaussian

pytestmark = pytest.mark.usefixtures("double_precision")

K = 4  # every test plays four places, so that one program serves them all
ALL = np.ones(K, bool)
N_DECISIONS = 30_000
CHUNK = 500

choose_one = jax.jit(choose)
choose_chunk = jax.jit(jax.vmap(choose, in_axes=(None, None, None, None, 0, None)))
choose_batch = jax.jit(jax.vmap(choose, in_axes=(0, 0, 0, None, 0)))
lookahead_jit = jax.jit(lookahead)
remaining_jit = jax.jit(remaining_impressions)


@pytest.fixture(scope="module")
def points(double_precision: None) -> Array:
    return jnp.asarray(normal_points(K))


def some_logits(seed: int = 0, n: int = K, sd: float = 0.3) -> Gaussian:
    """Return correlated logits near a click rate of 2 %."""
    random = np.random.default_rng(seed)
    factor = random.normal(size=(n, n + 2)) / np.sqrt(n)
    return Gaussian(random.normal(-3.9, 0.2, n), sd**2 * (factor @ factor.T + 0.5 * np.eye(n)))


@jax.jit
def propensities_jit(best: Array, eligible: Array, uniform_share: Array) -> Array:
    return propensities_of(best_shares(best), eligible, uniform_share).capped


def explore(
    horizon: float = 40_000.0,
    so_far: float = 2_000.0,
    kappa: float = KAPPA,
    uniform_share: float = 0.01,
    n_active: float = K,
    control_share: float = 0.0,
) -> Exploration:
    numbers = (horizon, so_far, kappa, uniform_share, n_active, control_share)
    return Exploration(*map(np.float64, numbers))


def uniforms_of(n: int, seed: int = 0) -> Uniforms:
    return uniforms_of_ids([f"decision-{i}" for i in range(n)], seed)


def every_set() -> Uniforms:
    """Return the uniform numbers of 64 decisions, each with a point set of its own."""
    return uniforms_of(N_SETS)._replace(point_set=np.arange(N_SETS, dtype=np.uint32))


def choose_many(
    logits: Gaussian,
    exploration: Exploration,
    eligible: np.ndarray,
    points: Array,
    uniforms: Uniforms,
    limits: Limits | None = None,
) -> Choice:
    """Choose for each decision, in chunks of one size: one program for all tests of one kind of limits."""
    n = len(uniforms.order)
    padded = [np.pad(numbers, (0, -n % CHUNK)).reshape(-1, CHUNK) for numbers in uniforms]
    chunks = [
        jax.tree.map(np.asarray, choose_chunk(logits, exploration, eligible, points, Uniforms(*part), limits))
        for part in zip(*padded, strict=True)
    ]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:n], *chunks)


def shares_of(logits: Gaussian, exploration: Exploration, eligible: np.ndarray, points: Array) -> np.ndarray:
    """Return π under each of the 64 point sets, [sets, candidates]."""
    return np.asarray(choose_many(logits, exploration, eligible, points, every_set()).propensities)


def thompson_shares(mean: np.ndarray, covariance: np.ndarray, n: int = 400_000) -> np.ndarray:
    """Return how often each is best among independent normal draws: an oracle without point sets."""
    draws = np.random.default_rng(7).multivariate_normal(mean, covariance, n)
    return np.bincount(draws.argmax(axis=1), minlength=len(mean)) / n


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("remaining", [0.0, 7.0, 400.0, 1e5])
def test_spread_is_what_the_remaining_traffic_removes(seed: int, remaining: float) -> None:
    logits = some_logits(seed, sd=0.5)
    spread = np.asarray(lookahead_jit(logits, np.float64(remaining), 0.3))
    p = 1 / (1 + np.exp(-logits.mean))
    information = np.diag(0.3 * remaining * p * (1 - p))
    left = np.linalg.inv(np.linalg.inv(logits.covariance) + information)
    np.testing.assert_allclose(spread.T @ spread, logits.covariance - left, rtol=1e-9, atol=1e-12)


def test_spread_without_a_future_is_nothing_and_with_an_endless_one_everything() -> None:
    logits = some_logits()
    np.testing.assert_array_equal(lookahead_jit(logits, np.float64(0.0), KAPPA), 0)
    np.testing.assert_array_equal(lookahead_jit(logits, np.float64(1e4), 0.0), 0)
    endless = np.asarray(lookahead_jit(logits, np.float64(ENDLESS), 1.0))
    np.testing.assert_allclose(endless.T @ endless, logits.covariance, atol=1e-6 * logits.covariance.max())


@pytest.mark.parametrize(
    ("horizon", "so_far", "n_active", "expected"),
    [
        (10_000, 0, 4, 2_500),
        (10_000, 6_000, 4, 1_000),
        (10_000, 9_900, 4, 247.5),  # the future is at least a tenth of the past
        (10_000, 50_000, 5, 1_000),
        (1, 0, 10, 0.1),
        (np.inf, 500, 3, ENDLESS),
        (1e12, 0, 2, ENDLESS),
        (0, 0, 3, 0),
    ],
)
def test_remaining_impressions(horizon: float, so_far: float, n_active: int, expected: float) -> None:
    left = float(remaining_jit(np.float64(horizon), np.float64(so_far), n_active))
    if expected in (0, ENDLESS):
        assert left == expected
        return
    assert left == pytest.approx(expected, rel=0.05)
    steps = np.log(left) / np.log(1.1)
    assert steps == pytest.approx(round(steps), abs=1e-9)


def test_the_future_is_split_among_active_creatives_not_among_this_requests(points: Array) -> None:
    some = np.array([True, True, False, False])
    few, everyone = (
        choose_many(some_logits(), explore(n_active=8), eligible, points, uniforms_of(1))
        for eligible in (some, ALL)
    )
    assert few.remaining[0] == everyone.remaining[0] == pytest.approx(38_000 / 8, rel=0.05)


def test_shares_by_hand() -> None:
    # Three candidates at four points; the third has the highest mean but may not be chosen.
    logits = Gaussian(np.array([0.0, 0.5, 9.0]), np.eye(3))
    at = np.array([[1.0, -1.0, 0.0, 0.5], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    eligible = np.array([True, True, False])
    best = jax.jit(is_best)(logits.mean, np.diag([1.0, 1.0, 0.0]), at, eligible)
    # (1 | .5), (−1 | .5), (0 | 1.5), (.5 | .5): one win, two, and one shared.
    np.testing.assert_array_equal(best, [[1, 0, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]])
    np.testing.assert_allclose(propensities_jit(best, eligible, 0.0), [0.375, 0.625, 0], rtol=1e-15)
    np.testing.assert_allclose(propensities_jit(best, eligible, 0.2), [0.4, 0.6, 0], rtol=1e-15)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_eligible", [1, 2, 3, 4])
def test_propensities_are_a_distribution_over_the_eligible(points: Array, seed: int, n_eligible: int) -> None:
    eligible = np.random.default_rng(seed).permutation(K) < n_eligible
    answers = choose_many(some_logits(seed), explore(), eligible, points, uniforms_of(300, seed))
    weights = np.asarray(answers.propensities)
    assert weights.dtype == np.float64
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-14)
    assert (weights[:, ~eligible] == 0).all()
    assert (weights[:, eligible] >= 0.01 / n_eligible).all()
    assert eligible[np.asarray(answers.chosen)].all()
    if n_eligible == 1:
        np.testing.assert_allclose(weights[:, eligible], 1, rtol=1e-15)


@pytest.mark.parametrize("changes", [{"kappa": 0.0}, {"horizon": 0.0, "so_far": 0.0}])
def test_without_a_future_it_is_greedy(points: Array, changes: dict[str, float]) -> None:
    logits = some_logits(2)
    best = logits.mean.argmax()
    for uniform_share in (0.0, 0.2):
        exploration = explore(uniform_share=uniform_share, **changes)
        shares = shares_of(logits, exploration, ALL, points)
        expected = np.full(K, uniform_share / K)
        expected[best] += 1 - uniform_share
        np.testing.assert_allclose(shares, np.tile(expected, (N_SETS, 1)), rtol=1e-14)
    answers = choose_many(logits, explore(uniform_share=0.0, **changes), ALL, points, uniforms_of(300))
    assert (np.asarray(answers.chosen) == best).all()


@pytest.mark.parametrize("seed", range(3))
def test_an_endless_horizon_is_plain_thompson_sampling(points: Array, seed: int) -> None:
    logits = some_logits(seed)
    shares = shares_of(logits, explore(horizon=np.inf, uniform_share=0.0, kappa=1.0), ALL, points)
    expected = thompson_shares(*logits)
    # The oracle's own error is 0.0008, one set's about 0.01.
    np.testing.assert_allclose(shares.mean(axis=0), expected, atol=0.005)
    np.testing.assert_allclose(shares, np.tile(expected, (N_SETS, 1)), atol=0.05)
    assert np.sqrt(((shares - expected) ** 2).mean()) < 0.015


@pytest.mark.parametrize("seed", range(3))
def test_a_horizon_is_optimistic_about_the_posterior_mean_to_come(points: Array, seed: int) -> None:
    logits = some_logits(seed)
    exploration = explore(uniform_share=0.0)
    shares = shares_of(logits, exploration, ALL, points)
    p = 1 / (1 + np.exp(-logits.mean))
    remaining = 1.1 ** np.round(np.log(38_000 / K) / np.log(1.1))
    learnable = np.diag(KAPPA * remaining * p * (1 - p))
    left = np.linalg.inv(np.linalg.inv(logits.covariance) + learnable)
    to_come = logits.covariance - left
    lifted = logits.mean + OPTIMISM * np.sqrt(np.diag(to_come))
    expected = thompson_shares(lifted, NOISE**2 * to_come)
    np.testing.assert_allclose(shares.mean(axis=0), expected, atol=0.005)
    plain = shares_of(logits, explore(horizon=np.inf, uniform_share=0.0, kappa=1.0), ALL, points)
    assert shares.mean(axis=0).max() > plain.mean(axis=0).max() + 0.005, "less future, less exploration"


def test_two_identical_creatives_share_alike(points: Array) -> None:
    # Same content, effects of their own: equal means and variances, correlated.
    logits = Gaussian(np.full(K, -3.9), 0.04 + 0.06 * np.eye(K))
    eligible = np.array([True, False, True, False])
    shares = shares_of(logits, explore(), eligible, points)
    np.testing.assert_allclose(shares[:, [0, 2]], 0.5, atol=0.03)
    np.testing.assert_allclose(shares[:, [0, 2]].mean(axis=0), 0.5, atol=0.003)
    # With nothing left to learn they tie at every point, and a tie is split.
    tied = shares_of(logits, explore(kappa=0.0), eligible, points)
    np.testing.assert_array_equal(tied[:, [0, 2]], 0.5)


class Setup(NamedTuple):
    """What a campaign may look like when it chooses."""

    logits: Gaussian
    exploration: Exploration
    eligible: np.ndarray


SETUPS = {
    "default": Setup(some_logits(1), explore(), ALL),
    "half uniform": Setup(some_logits(1), explore(uniform_share=0.5), ALL),
    "three of four": Setup(some_logits(3), explore(uniform_share=0.0), np.array([True, False, True, True])),
    "greedy with a tie": Setup(
        Gaussian(np.array([-4.0, -3.9, -3.9, -3.9]), 0.1 * np.eye(K)),
        explore(kappa=0.0, uniform_share=0.1),
        np.array([True, True, True, False]),
    ),
}


@pytest.mark.parametrize("name", SETUPS)
def test_creatives_are_shown_as_often_as_their_propensities_say(points: Array, name: str) -> None:
    logits, exploration, eligible = SETUPS[name]
    uniforms = uniforms_of(N_DECISIONS, seed=5)
    answers = choose_many(logits, exploration, eligible, points, uniforms)
    weights, chosen = np.asarray(answers.propensities), np.asarray(answers.chosen)
    surprise = np.eye(K)[chosen] - weights
    spread = np.sqrt((weights * (1 - weights)).sum(axis=0))
    z = surprise.sum(axis=0)[eligible] / spread[eligible]
    assert np.abs(z).max() < 5, z
    # π depends on the point set; within each set the frequencies must follow that set's π.
    point_set = uniforms.point_set % N_SETS
    for index in range(N_SETS):
        here = point_set == index
        shown = np.bincount(chosen[here], minlength=K)
        variance = here.sum() * weights[here][0] * (1 - weights[here][0])
        error = (shown - here.sum() * weights[here][0])[eligible] / np.sqrt(np.maximum(variance, 1))[eligible]
        assert np.abs(error).max() < 5, (index, error)
    assert (weights[np.arange(N_DECISIONS), chosen] > 0).all(), "shown at a propensity of 0"
    # Inverse propensities are unbiased for any fixed values of the arms: here for their sum of 1, 2, 3, 4.
    value = np.arange(1.0, K + 1)
    if exploration.uniform_share > 0:
        target = eligible / eligible.sum()
        estimate = target[chosen] / weights[np.arange(N_DECISIONS), chosen] * value[chosen]
        assert estimate.mean() == pytest.approx(target @ value, abs=5 * estimate.std() / np.sqrt(N_DECISIONS))


def test_every_point_is_drawn_alike() -> None:
    # Points at which the first creative wins in the first quarter, the second in the next, and so on:
    # scrambled points would hide a draw that favours some.
    quarters = np.repeat(np.eye(K), 64, axis=1).astype(np.float32)
    equal = Gaussian(np.full(K, -3.9), 0.09 * np.eye(K))
    points = jnp.asarray(np.broadcast_to(quarters, (N_SETS, K, 256)))
    answers = choose_many(equal, explore(uniform_share=0.0), ALL, points, uniforms_of(N_DECISIONS))
    np.testing.assert_array_equal(answers.propensities, 0.25)
    shown = np.bincount(answers.chosen, minlength=K)
    assert np.abs(shown - N_DECISIONS / K).max() < 5 * np.sqrt(N_DECISIONS * 3 / 16)


def test_the_same_uniform_numbers_choose_the_same(points: Array) -> None:
    logits = some_logits(1)
    first, again = (choose_many(logits, explore(), ALL, points, uniforms_of(300, 3)) for _ in range(2))
    np.testing.assert_array_equal(first.chosen, again.chosen)
    np.testing.assert_array_equal(first.propensities, again.propensities)
    other = choose_many(logits, explore(), ALL, points, uniforms_of(300, 4))
    assert (np.asarray(first.chosen) != np.asarray(other.chosen)).mean() > 0.1


def test_a_batch_is_its_requests_one_by_one(points: Array) -> None:
    n = 64
    logits = jax.tree.map(lambda *leaves: np.stack(leaves), *[some_logits(seed) for seed in range(n)])
    random = np.random.default_rng(3)
    horizons = Exploration(
        random.uniform(1e3, 1e6, n),
        random.uniform(0, 1e4, n),
        np.full(n, KAPPA),
        np.full(n, 0.01),
        np.full(n, float(K)),
        np.full(n, 0.0),
    )
    eligible = random.uniform(size=(n, K)) < 0.7
    eligible[:, 0] = True
    uniforms = uniforms_of(n)
    batch = choose_batch(logits, horizons, eligible, points, uniforms)
    for i in range(n):
        request = jax.tree.map(lambda leaf, i=i: leaf[i], (logits, horizons, eligible))
        alone = choose_one(*request, points, Uniforms(*(numbers[i] for numbers in uniforms)))
        for name, one, of_batch in zip(Choice._fields, alone, batch, strict=True):
            np.testing.assert_array_equal(one, of_batch[i], err_msg=f"{name} of request {i}")


def test_what_padding_holds_does_not_matter(points: Array) -> None:
    eligible = np.array([True, True, True, False])
    clean = some_logits(1)
    mean, covariance = clean.mean.copy(), clean.covariance.copy()
    mean[3], covariance[3, :], covariance[:, 3] = 50.0, 9.0, 9.0
    uniforms = uniforms_of(300)
    first = choose_many(clean, explore(), eligible, points, uniforms)
    second = choose_many(Gaussian(mean, covariance), explore(), eligible, points, uniforms)
    for name, one, two in zip(Choice._fields, first, second, strict=True):
        np.testing.assert_array_equal(one, two, err_msg=name)


def test_more_padding_moves_propensities_within_the_error_of_the_points(points: Array) -> None:
    logits = some_logits(1)
    wide = Gaussian(np.pad(logits.mean, (0, K)), np.pad(logits.covariance, (0, K)))
    eligible = np.pad(ALL, (0, K))
    narrow_shares = shares_of(logits, explore(), ALL, points)
    wide_shares = shares_of(wide, explore(), eligible, normal_points(2 * K))
    assert (wide_shares[:, K:] == 0).all()
    np.testing.assert_allclose(wide_shares[:, :K].mean(axis=0), narrow_shares.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(
        wide_shares[:, :K], np.tile(narrow_shares.mean(axis=0), (N_SETS, 1)), atol=0.05
    )


def test_extreme_logits_still_give_a_distribution(points: Array) -> None:
    for mean in (np.array([-40.0, -39.0, -38.0, -1.0]), np.full(K, 30.0), np.full(K, -700.0)):
        logits = Gaussian(mean, np.diag([1e-12, 1e-6, 1.0, 4.0]))
        shares = shares_of(logits, explore(horizon=np.inf), ALL, points)
        assert np.isfinite(shares).all()
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-14)
