"""The fast policy of known contents against the engine's own prediction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

from bandit.features.design import PriorScales, design_row, weight_prior
from bandit.policy.predictive import map_logits, map_slots
from bandit.policy.quasi_random import normal_points
from bandit.posterior import Rows, State, initial_state, predict, update
from simulations.loop import uniforms_of_key
from simulations.policies.base import ContextualState, Request, thompson_on_weights
from simulations.policies.contextual import bayes_ucb_on_contents, thompson_on_contents

pytestmark = pytest.mark.usefixtures("double_precision")

N_ARMS = 6
CONTENT = 0.1 * np.random.default_rng(0).normal(size=(N_ARMS, 64))


def rows_in(context: np.ndarray) -> jax.Array:
    row = jax.vmap(design_row, in_axes=(None, 0, None))
    return row(jnp.asarray(context), jnp.asarray(CONTENT), jnp.asarray(CONTENT.mean(axis=0)))


@pytest.fixture
def learnt() -> State:
    rng = np.random.default_rng(1)
    arms = rng.integers(0, N_ARMS, 120)
    features = jnp.stack([rows_in(rng.normal(size=16))[arm] for arm in arms])
    rows = Rows(
        features,
        jnp.asarray(arms),
        jnp.zeros(120, int),
        jnp.ones(120),
        jnp.asarray((rng.random(120) < 0.2).astype(float)),
    )
    return update(initial_state(weight_prior(PriorScales()), N_ARMS, 1), rows)[0]


def test_mapped_logits_are_the_predicted_ones(learnt: State) -> None:
    slots = map_slots(learnt)
    content = jnp.asarray(CONTENT)
    logits = map_logits(learnt, slots, content, content.mean(axis=0), jnp.arange(N_ARMS), jnp.asarray(0))
    for seed in range(5):
        context = np.random.default_rng(seed).normal(size=16)
        wanted = predict(learnt, rows_in(context), jnp.arange(N_ARMS), jnp.zeros(N_ARMS, int))
        got = logits.at(slots, jnp.asarray(context))
        assert_allclose(got.mean, wanted.mean, atol=1e-10)
        assert_allclose(got.covariance, wanted.covariance, atol=1e-10)


@pytest.mark.parametrize(("horizon", "kappa"), [(5_000.0, 0.3), (np.inf, 1.0), (5_000.0, 0.0)])
def test_choices_are_those_of_thompson_on_weights(learnt: State, horizon: float, kappa: float) -> None:
    points, reach = jnp.asarray(normal_points(N_ARMS)), jnp.asarray(horizon)
    state = ContextualState(learnt, jnp.asarray(120.0))
    slow = thompson_on_weights("slow", learnt, reach, points, kappa)
    contents = jnp.asarray(CONTENT), jnp.asarray(CONTENT.mean(axis=0))
    fast = thompson_on_contents("fast", learnt, *contents, reach, points, kappa)
    rng = np.random.default_rng(2)
    eligible = jnp.asarray([True, True, False, True, True, True])
    for number in range(5):
        request = Request(rows_in(rng.normal(size=16)), eligible)
        uniforms = jax.tree.map(lambda leaf: leaf[0], uniforms_of_key(jax.random.key(number), 1))
        wanted, got = (policy.choose(state, request, uniforms) for policy in (slow, fast))
        assert int(got.chosen) == int(wanted.chosen)
        assert_allclose(got.propensities, wanted.propensities, atol=1e-12)


def test_bayes_ucb_is_the_upper_quantile_of_the_engines_logits(learnt: State) -> None:
    rng, eligible = np.random.default_rng(3), np.array([True, True, True, True, False, True])
    contents = jnp.asarray(CONTENT), jnp.asarray(CONTENT.mean(axis=0))
    policy = bayes_ucb_on_contents(learnt, *contents, jnp.asarray(5_000.0), 0.7, 5.0)
    state = ContextualState(learnt, jnp.asarray(120.0))
    uniforms = jax.tree.map(lambda leaf: leaf[0], uniforms_of_key(jax.random.key(0), 1))
    for _ in range(5):
        rows = rows_in(rng.normal(size=16))
        logits = predict(learnt, rows, jnp.arange(N_ARMS), jnp.zeros(N_ARMS, int))
        z = 0.7 * norm.ppf(1 - 1 / (121 * np.log(5_000) ** 5))
        index = np.asarray(logits.mean) + z * np.sqrt(np.diag(logits.covariance))
        chosen = policy.choose(state, Request(rows, jnp.asarray(eligible)), uniforms).chosen
        assert int(chosen) == np.where(eligible, index, -np.inf).argmax()
