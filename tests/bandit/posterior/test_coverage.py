"""Intervals hold what they promise, whoever gathered the data: chance, plain or horizon-aware sampling."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from bandit.features.design import N_CONTENT, PriorScales, weight_prior
from bandit.policy.quasi_random import normal_points
from bandit.policy.randomness import Uniforms
from bandit.policy.thompson import KAPPA, Exploration, choose
from bandit.posterior import Rows, State, forget, initial_state, predict, predict_marginals, update

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("double_precision")]

N_CAMPAIGNS, N_ARMS, N_SEEDS = 150, 8, 8
ROUNDS, BATCH = 24, 50  # impressions of a campaign between two updates
TOGETHER = 30  # campaigns of a mini-batch: 240 rows
SETTINGS = {"uniform": (1e9, 1.0), "plain": (np.inf, 0.01), "horizon-aware": (ROUNDS * BATCH, 0.01)}
REMEMBERED = 0.99  # correlation of every effect with itself a round later: half of it is gone in 69 rounds
KEPT = 0.87  # of what was learnt, each round: a half-life of 5 rounds


@partial(jax.jit, static_argnames="n_rounds")
def played(
    key: Array,
    horizon: Array,
    uniform_share: Array,
    points: Array,
    remembered: Array,
    kept: Array,
    n_rounds: int,
) -> tuple[Array, Array, Array]:
    """Draw a shop from the prior and play it.

    With `remembered` below 1 all effects drift, so that each stays a draw from the prior; what was learnt is
    forgotten but for `kept` before each round.

    Returns:
        z-scores of the arms' logits, [campaigns, arms]; of the weights; and the best arms' share of traffic.
    """
    prior = weight_prior(PriorScales(), with_context=False)
    keys = jax.random.split(key, 4)
    content = jax.random.normal(keys[0], (N_CAMPAIGNS, N_ARMS, N_CONTENT))
    content /= jnp.linalg.norm(content, axis=-1, keepdims=True)
    mean = jnp.broadcast_to(content.mean(axis=1, keepdims=True), content.shape)
    features = jnp.concatenate([jnp.ones((N_CAMPAIGNS, N_ARMS, 1)), content, mean], axis=-1)

    def drawn_effects(key: Array) -> tuple[Array, Array, Array]:
        keys = jax.random.split(key, 3)
        return (
            prior.scale * jax.random.normal(keys[0], prior.mean.shape),
            prior.campaign_scale * jax.random.normal(keys[1], (N_CAMPAIGNS, 1)),
            prior.arm_scale * jax.random.normal(keys[2], (N_CAMPAIGNS, N_ARMS)),
        )

    def truth_of(effects: tuple[Array, Array, Array]) -> Array:
        return features @ (prior.mean + effects[0]) + effects[1] + effects[2]

    arm = jnp.arange(N_CAMPAIGNS * N_ARMS).reshape(N_CAMPAIGNS, N_ARMS)
    campaign = jnp.broadcast_to(jnp.arange(N_CAMPAIGNS)[:, None], arm.shape)

    def pick(state: State, truth: Array, number: Array, key: Array) -> tuple[Array, Array]:
        def one(rows: Array, arms: Array, campaigns: Array, key: Array) -> Array:
            logits = predict(state, rows, arms, campaigns)
            exploration = Exploration(
                horizon, number * BATCH, jnp.asarray(KAPPA), uniform_share, jnp.asarray(float(N_ARMS))
            )
            # Only π is read: of the uniform numbers it needs the point set.
            half = jnp.asarray(0.5)
            uniforms = Uniforms(jax.random.bits(key, (), jnp.uint32), half, half, half, half, half)
            choice = choose(logits, exploration, jnp.ones(N_ARMS, bool), points, uniforms)
            drawn = jax.random.categorical(key, jnp.log(choice.propensities), shape=(BATCH,))
            return jnp.zeros(N_ARMS).at[drawn].add(1.0)

        key_pick, key_click = jax.random.split(key)
        shown = jax.vmap(one)(features, arm, campaign, jax.random.split(key_pick, N_CAMPAIGNS))
        return shown, jax.random.binomial(key_click, shown, jax.nn.sigmoid(truth))

    def one_round(carry: tuple[State, Any], number: Array) -> tuple[tuple[State, Any], tuple[Array, Array]]:
        state, effects = carry
        fresh = drawn_effects(jax.random.fold_in(keys[2], number))
        effects = jax.tree.map(
            lambda old, new: remembered * old + jnp.sqrt(1 - remembered**2) * new, effects, fresh
        )
        truth = truth_of(effects)
        state = forget(state, kept, campaign.ravel())
        shown, clicks = pick(state, truth, number, jax.random.fold_in(keys[3], number))
        chunks = jax.tree.map(
            lambda leaf: leaf.reshape(-1, TOGETHER * N_ARMS, *leaf.shape[2:]),
            Rows(features, arm, campaign, shown, clicks),
        )
        state, _ = jax.lax.scan(lambda state, rows: (update(state, rows)[0], None), state, chunks)
        best = jax.nn.one_hot(jnp.argmax(truth, axis=1), N_ARMS)
        return (state, effects), (jnp.sum(shown * best), jnp.sum(shown))

    start = (initial_state(prior, N_CAMPAIGNS * N_ARMS, N_CAMPAIGNS), drawn_effects(keys[1]))
    (state, effects), (on_best, shown) = jax.lax.scan(one_round, start, jnp.arange(n_rounds))
    truth = truth_of(effects)
    flat = features.reshape(-1, features.shape[-1])
    centre, variance = predict_marginals(state, flat, arm.ravel(), campaign.ravel())
    z = (truth.ravel() - centre) / jnp.sqrt(variance)
    sd = jnp.sqrt(jnp.diag(jax.scipy.linalg.cho_solve((state.factor, True), jnp.eye(len(state.weights)))))
    return (
        z.reshape(arm.shape),
        (prior.mean + effects[0] - state.weights) / sd,
        jnp.sum(on_best) / jnp.sum(shown),
    )


def coverage_of(policy: str, remembered: float = 1.0, kept: float = 1.0) -> tuple[float, float, list[Any]]:
    """Return the share of 95 % intervals that hold their arm, its standard error, and the runs."""
    horizon, uniform_share, points, *drift = map(
        jnp.asarray, (*SETTINGS[policy], normal_points(N_ARMS), remembered, kept)
    )
    runs = [
        played(jax.random.key(seed), horizon, uniform_share, points, *drift, n_rounds=ROUNDS)
        for seed in range(N_SEEDS)
    ]
    z = np.stack([run[0] for run in runs])
    inside = np.mean(np.abs(z) < 1.96, axis=2)  # of each campaign, the cluster
    return inside.mean(), inside.std(ddof=1) / np.sqrt(inside.size), runs


@pytest.mark.parametrize("policy", SETTINGS)
def test_95_percent_intervals_hold_their_arms(policy: str) -> None:
    coverage, error, runs = coverage_of(policy)
    assert 0.93 - 2 * error <= coverage <= 0.97 + 2 * error
    assert 0.9 <= np.std([run[1] for run in runs]) <= 1.15
    best = np.mean([run[2] for run in runs])
    assert (best > 0.2) == (policy != "uniform")  # else the policies were not told apart


def test_intervals_hold_under_drift_when_the_past_is_forgotten() -> None:
    forgetting, error, _ = coverage_of("horizon-aware", REMEMBERED, KEPT)
    believing, other_error, _ = coverage_of("horizon-aware", REMEMBERED)
    assert forgetting >= 0.90
    assert believing < forgetting - 3 * (error + other_error)
