"""Estimators against NumPy sums, and their expectation over all logs of a world of two by two."""

from collections.abc import Callable
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from numpy.testing import assert_allclose

from simulations.ope.estimators import (
    LoggedBatch,
    Terms,
    direct_method,
    doubly_robust,
    dr_optimistic_shrinkage,
    ips,
    largest_weight,
    marginalised_ips,
    rejection_replay,
    snips,
    switch_dr,
    value_of,
)

pytestmark = pytest.mark.usefixtures("double_precision")

CONTEXT = np.array([0.3, 0.7])
LOGGING = np.array([[0.8, 0.2], [0.1, 0.9]])
TARGET = np.array([[0.25, 0.75], [0.6, 0.4]])
REWARD = np.array([[0.1, 0.5], [0.7, 0.2]])
WRONG = np.array([[0.9, 0.2], [0.3, 0.3]])
TRUTH = float(CONTEXT @ (TARGET * REWARD).sum(axis=1))


def some_batch(seed: int = 0, size: int = 40, n_actions: int = 3) -> LoggedBatch:
    rng = np.random.default_rng(seed)
    logging, target = (rng.dirichlet(np.full(n_actions, 4.0), size) for _ in range(2))
    action = np.array([rng.choice(n_actions, p=row) for row in logging])
    return LoggedBatch(
        action=jnp.asarray(action),
        reward=jnp.asarray((rng.random(size) < 0.4).astype(float)),
        propensity=jnp.asarray(logging[np.arange(size), action]),
        logging=jnp.asarray(logging),
        eligible=jnp.ones((size, n_actions), bool),
        target=jnp.asarray(target),
        estimates=jnp.asarray(rng.random((size, n_actions))),
    )


def test_every_estimator_is_the_sum_of_its_equation() -> None:
    batch = some_batch()
    uniforms = np.random.default_rng(1).random(len(batch.reward))
    total = dict.fromkeys(("ips", "clipped", "dm", "dr", "switch", "shrunk", "w", "kept", "kept_r"), 0.0)
    bound = np.max(np.asarray(batch.target) / np.asarray(batch.logging))
    for i, a in enumerate(np.asarray(batch.action)):
        r, q = float(batch.reward[i]), np.asarray(batch.estimates[i])
        w = float(batch.target[i, a]) / float(batch.propensity[i])
        model = sum(float(batch.target[i, b]) * q[b] for b in range(3))
        total["ips"] += w * r
        total["clipped"] += min(w, 1.5) * r
        total["w"] += w
        total["dm"] += model
        total["dr"] += model + w * (r - q[a])
        total["switch"] += model + (w * (r - q[a]) if w <= 1.5 else 0)
        total["shrunk"] += model + 2 * w / (w * w + 2) * (r - q[a])
        total["kept"] += uniforms[i] < w / bound
        total["kept_r"] += r * (uniforms[i] < w / bound)
    n = len(uniforms)
    assert_allclose(value_of(ips(batch)), total["ips"] / n, rtol=1e-13)
    assert_allclose(value_of(ips(batch, 1.5)), total["clipped"] / n, rtol=1e-13)
    assert_allclose(value_of(snips(batch)), total["ips"] / total["w"], rtol=1e-13)
    assert_allclose(value_of(direct_method(batch)), total["dm"] / n, rtol=1e-13)
    assert_allclose(value_of(doubly_robust(batch)), total["dr"] / n, rtol=1e-13)
    assert_allclose(value_of(switch_dr(batch, 1.5)), total["switch"] / n, rtol=1e-13)
    assert_allclose(value_of(dr_optimistic_shrinkage(batch, 2.0)), total["shrunk"] / n, rtol=1e-13)
    assert total["kept_r"] > 0
    assert_allclose(value_of(rejection_replay(batch, jnp.asarray(uniforms))), total["kept_r"] / total["kept"])


@pytest.mark.parametrize(
    ("estimator", "estimates"),
    [
        (ips, WRONG),
        (doubly_robust, WRONG),
        (direct_method, REWARD),
        (doubly_robust, REWARD),
        (lambda batch: switch_dr(batch, 1.0), REWARD),
        (lambda batch: dr_optimistic_shrinkage(batch, 1.0), REWARD),
    ],
    ids=["ips", "dr, wrong model", "dm, true", "dr, true", "switch-dr, true", "dr-os, true"],
)
def test_the_expectation_over_all_logs_is_the_truth(
    estimator: Callable[[LoggedBatch], Terms], estimates: np.ndarray
) -> None:
    assert_allclose(expectation(estimator, estimates), TRUTH, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("estimator", "estimates"),
    [
        (direct_method, WRONG),
        (lambda batch: ips(batch, 1.0), WRONG),
        (lambda batch: switch_dr(batch, 1.0), WRONG),
        (lambda batch: dr_optimistic_shrinkage(batch, 1.0), WRONG),
    ],
    ids=["dm", "clipped ips", "switch-dr", "dr-os"],
)
def test_what_is_biased_is_seen_to_be(
    estimator: Callable[[LoggedBatch], Terms], estimates: np.ndarray
) -> None:
    assert abs(expectation(estimator, estimates) - TRUTH) > 0.01


CLUSTER = np.array([0, 0, 1, 1])
LOGGING_4 = np.array([[0.5, 0.2, 0.1, 0.2], [0.1, 0.3, 0.6, 0.0]])  # the last is never shown in context 1
TARGET_4 = np.array([[0.1, 0.5, 0.2, 0.2], [0.4, 0.1, 0.1, 0.4]])
ALIKE = np.array([[0.1, 0.1, 0.6, 0.6], [0.3, 0.3, 0.2, 0.2]])
UNLIKE = np.array([[0.1, 0.4, 0.6, 0.5], [0.3, 0.1, 0.2, 0.7]])


def expectation_of_a_row(estimator: Callable[[LoggedBatch], Terms], reward: np.ndarray) -> float:
    """Over all logs of one row of a world of two contexts and four actions."""
    rows = [row for row in product(range(2), range(4), (0, 1)) if LOGGING_4[row[0], row[1]] > 0]
    x, a, r = map(np.array, zip(*rows, strict=True))
    chance = CONTEXT[x] * LOGGING_4[x, a] * np.where(r == 1, reward[x, a], 1 - reward[x, a])
    batch = LoggedBatch(
        action=jnp.asarray(a),
        reward=jnp.asarray(r * 1.0),
        propensity=jnp.asarray(LOGGING_4[x, a]),
        logging=jnp.asarray(LOGGING_4[x]),
        eligible=jnp.asarray(LOGGING_4[x] > 0),
        target=jnp.asarray(TARGET_4[x]),
        estimates=jnp.zeros((len(rows), 4)),
        cluster=jnp.asarray(CLUSTER),
    )
    terms = estimator(batch)
    return float(chance @ np.asarray(terms.numerator)) / float(chance @ np.asarray(terms.denominator))


def truth_of(reward: np.ndarray) -> float:
    return float(CONTEXT @ (TARGET_4 * reward).sum(axis=1))


def test_mips_is_unbiased_where_clusters_say_all_even_of_what_is_never_shown() -> None:
    assert_allclose(expectation_of_a_row(marginalised_ips, ALIKE), truth_of(ALIKE), atol=1e-14, rtol=0)
    assert abs(expectation_of_a_row(ips, ALIKE) - truth_of(ALIKE)) > 0.05


def test_the_bias_of_mips_is_the_covariance_of_weights_and_rates_within_clusters() -> None:
    bias = 0.0
    for x, c in product(range(2), range(2)):
        is_in = c == CLUSTER
        mass = LOGGING_4[x, is_in].sum()
        share = LOGGING_4[x, is_in] / mass
        # μ w = π, of the never shown too: the covariance's mean of w q is the target's mean of q.
        q, pi = UNLIKE[x, is_in], TARGET_4[x, is_in]
        bias -= CONTEXT[x] * (pi @ q - pi.sum() * (share @ q))
    found = expectation_of_a_row(marginalised_ips, UNLIKE) - truth_of(UNLIKE)
    assert_allclose(found, bias, atol=1e-14, rtol=0)
    assert abs(found) > 0.02


def test_mips_with_a_cluster_for_each_action_is_ips() -> None:
    batch = some_batch()._replace(cluster=jnp.arange(3))
    assert_allclose(marginalised_ips(batch).numerator, ips(batch).numerator, rtol=1e-13)
    one = batch._replace(cluster=jnp.zeros(3, int))
    assert_allclose(value_of(marginalised_ips(one)), np.mean(batch.reward), rtol=1e-13)


def expectation(estimator: Callable[[LoggedBatch], Terms], estimates: np.ndarray) -> float:
    """Over all 64 logs of two rows, each by its probability."""
    rows = list(product(range(2), range(2), (0.0, 1.0)))
    chance = [CONTEXT[x] * LOGGING[x, a] * (REWARD[x, a] if r else 1 - REWARD[x, a]) for x, a, r in rows]
    assert sum(chance) == pytest.approx(1)
    pairs = list(product(range(8), repeat=2))
    x, a, r = (np.array([[rows[i][k] for i in pair] for pair in pairs]) for k in range(3))
    batches = LoggedBatch(
        action=jnp.asarray(a.astype(int)),
        reward=jnp.asarray(r),
        propensity=jnp.asarray(LOGGING[x, a]),
        logging=jnp.asarray(LOGGING[x]),
        eligible=jnp.ones((*x.shape, 2), bool),
        target=jnp.asarray(TARGET[x]),
        estimates=jnp.asarray(estimates[x]),
    )

    def value(batch: LoggedBatch) -> Array:
        return value_of(estimator(batch))

    return float(np.array([chance[i] * chance[j] for i, j in pairs]) @ jax.vmap(value)(batches))


def test_limits_that_are_known() -> None:
    batch = some_batch()
    own = batch._replace(target=batch.logging)
    assert_allclose(value_of(ips(own)), np.mean(batch.reward))
    assert_allclose(value_of(snips(own)), np.mean(batch.reward))
    assert_allclose(value_of(switch_dr(batch, jnp.inf)), value_of(doubly_robust(batch)), rtol=1e-13)
    assert_allclose(value_of(dr_optimistic_shrinkage(batch, 0.0)), value_of(direct_method(batch)), rtol=1e-13)
    silent = batch._replace(estimates=jnp.zeros_like(batch.estimates))
    assert_allclose(value_of(doubly_robust(silent)), value_of(ips(batch)), rtol=1e-13)


@pytest.mark.parametrize("row", [0, 17, 39])
def test_the_largest_weight_is_unknown_when_a_propensity_is(row: int) -> None:
    batch = some_batch()
    assert largest_weight(batch) == np.max(np.asarray(batch.target / batch.logging))
    assert np.isnan(largest_weight(batch._replace(logging=batch.logging.at[row, 1].set(jnp.nan))))
