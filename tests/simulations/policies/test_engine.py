"""The simulated engine: its fast ways against the plain ones, its steps against the schedule, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

from bandit.features.design import PriorScales, design_row, weight_prior
from bandit.policy.predictive import map_logits, map_slots
from bandit.posterior import Rows, State, forget, initial_state, learn_scales, predict, refit, update
from simulations.loop import uniforms_of_key
from simulations.policies.base import Outcomes, Request
from simulations.policies.engine import (
    Design,
    EngineNumbers,
    EngineState,
    design_of_contents,
    engine,
    logits_of_rows,
)
from simulations.policies.logit_policies import bayes_ucb_in_contexts
from simulations.policies.refit import Seen, nothing_seen, refit_seen

pytestmark = pytest.mark.usefixtures("double_precision")

N_ARMS = 6
CONTENT = 0.1 * np.random.default_rng(0).normal(size=(N_ARMS, 64))


def rows_in(context: np.ndarray) -> jax.Array:
    row = jax.vmap(design_row, in_axes=(None, 0, None))
    return row(jnp.asarray(context), jnp.asarray(CONTENT), jnp.asarray(CONTENT.mean(axis=0)))


def a_design() -> Design:
    return design_of_contents(jnp.asarray(CONTENT), jnp.asarray(CONTENT.mean(axis=0)))


def known(posterior: State, start: EngineState) -> EngineState:
    """Return an engine's state after the 120 impressions of `learnt`."""
    return start._replace(posterior=posterior, so_far=jnp.asarray(120.0))


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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(("horizon", "kappa"), [(5_000.0, 0.3), (np.inf, 1.0), (5_000.0, 0.0)])
def test_maps_choose_as_rows_do(learnt: State, horizon: float, kappa: float) -> None:
    fast, slow = (
        engine(design, horizon, EngineNumbers(kappa=kappa), room=1)
        for design in (a_design(), a_design()._replace(logits=logits_of_rows))
    )
    state = known(learnt, fast.start)
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
    policy = bayes_ucb_in_contexts(a_design(), 5_000.0, 0.7, 5.0, room=1)
    state = known(learnt, policy.start)
    uniforms = jax.tree.map(lambda leaf: leaf[0], uniforms_of_key(jax.random.key(0), 1))
    for _ in range(5):
        rows = rows_in(rng.normal(size=16))
        logits = predict(learnt, rows, jnp.arange(N_ARMS), jnp.zeros(N_ARMS, int))
        z = 0.7 * norm.ppf(1 - 1 / (121 * np.log(5_000) ** 5))
        index = np.asarray(logits.mean) + z * np.sqrt(np.diag(logits.covariance))
        chosen = policy.choose(state, Request(rows, jnp.asarray(eligible)), uniforms).chosen
        assert int(chosen) == np.where(eligible, index, -np.inf).argmax()


N_SEEN = 700
UPDATE, FORGET, LEARN_SCALES = jax.jit(update), jax.jit(forget), jax.jit(learn_scales)
REFIT = jax.jit(refit, static_argnums=3)


def seen_rows(rng: np.random.Generator, n: int = N_SEEN) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return contexts, arms and clicks of some decisions; the last arm is never shown."""
    contexts = rng.normal(size=(n, 16))
    arms = rng.integers(0, N_ARMS - 1, n)
    return contexts, arms, (rng.random(n) < 0.05 + 0.03 * arms).astype(float)


@jax.jit
def features_of(contexts: np.ndarray, arms: np.ndarray) -> jax.Array:
    mean = jnp.asarray(CONTENT.mean(axis=0))
    return jax.vmap(design_row, in_axes=(0, 0, None))(contexts, jnp.asarray(CONTENT)[arms], mean)


@pytest.mark.slow
@pytest.mark.parametrize("learns_scales", [False, True])
def test_the_refit_by_contexts_is_that_of_all_rows(learns_scales: bool) -> None:
    contexts, arms, clicks = seen_rows(np.random.default_rng(4))
    design, weight = a_design(), np.where(np.arange(N_SEEN) < 300, 0.5, 1.0)  # the older half-forgotten
    rows = Rows(
        features_of(contexts, arms),
        jnp.asarray(arms),
        jnp.zeros(N_SEEN, int),
        jnp.asarray(weight),
        jnp.asarray(weight * clicks),
    )
    groups = design.groups if learns_scales else None
    nowhere = jnp.zeros(N_ARMS, int)
    wanted = jax.jit(lambda: refit(design.prior, rows, nowhere, 1, groups)[0])()
    room = nothing_seen(1_000, 17)
    seen = Seen(
        room.context.at[:N_SEEN].set(np.column_stack([np.ones(N_SEEN), contexts])),
        room.arm.at[:N_SEEN].set(arms),
        room.impressions.at[:N_SEEN].set(weight),
        room.clicks.at[:N_SEEN].set(weight * clicks),
    )
    got = jax.jit(lambda n: refit_seen(design.prior, design.loading, seen, n, groups))(N_SEEN)
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert_allclose(mine, theirs, rtol=1e-7, atol=1e-9)


def by_hand(policy: str, batches: list[tuple[np.ndarray, ...]]) -> tuple[State, list[str]]:
    """Learn batch by batch with the posterior's own functions, in the order of the engine's log."""
    design, nowhere = a_design(), jnp.zeros(N_ARMS, int)
    state, log, known, at_refit = initial_state(design.prior, N_ARMS, 1), [], [], 0
    for contexts, arms, clicks in batches:
        for start in range(0, len(arms), 256):
            piece = slice(start, start + 256)
            if policy != "fixed" and (len(log) + 1) % 20 == 0:
                state = LEARN_SCALES(state, design.prior, design.groups, nowhere)
                log.append("scales")
            n = len(arms[piece])
            own = (features_of(contexts[piece], arms[piece]), jnp.asarray(arms[piece]), jnp.zeros(n, int))
            rows = Rows(*own, jnp.ones(n), jnp.asarray(clicks[piece]))
            known.append(rows)
            state = UPDATE(state, rows)[0]
            log.append("batch")
            learnt = sum(len(each.arm) for each in known)
            if learnt >= max(512, 2 * at_refit):
                rows = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *known)
                groups = None if policy == "fixed" else design.groups
                state = REFIT(design.prior, rows, nowhere, 1, groups)[0]
                log.append("refit")
                at_refit = learnt
    return state, log


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "size", "n_batches"), [("", 50, 24), ("fixed", 50, 24), ("", 600, 3)])
def test_steps_are_those_of_the_engines_log(policy: str, size: int, n_batches: int) -> None:
    rng = np.random.default_rng(6)
    batches = [seen_rows(rng, size) for _ in range(n_batches)]
    wanted, log = by_hand(policy, batches)
    assert {"batch", "refit"} <= set(log)
    assert ("scales" in log) == (policy == "" and size == 50)
    own = engine(a_design(), 5_000.0, room=size * n_batches, learns_scales=policy != "fixed")
    learn, state = jax.jit(own.learn), own.start
    for contexts, arms, clicks in batches:
        state = learn(state, Outcomes(features_of(contexts, arms), jnp.asarray(arms), jnp.asarray(clicks)))
    assert int(state.step) == len(log)
    assert float(state.so_far) == size * n_batches
    assert_allclose(state.posterior.weights, wanted.weights, atol=1e-6)
    assert_allclose(state.posterior.prior.scale, wanted.prior.scale, rtol=1e-6)
    assert_allclose(state.posterior.arm_precision, wanted.arm_precision, rtol=1e-6)


@pytest.mark.slow
def test_it_forgets_every_hour_also_what_it_is_fitted_to() -> None:
    """Batches of 60 at 2,880 a day come every half an hour; every second one finds an hour gone."""
    rng, nowhere = np.random.default_rng(7), jnp.zeros(N_ARMS, int)
    design, size, days = a_design(), 60, 0.25
    own = engine(
        *(design, 5_000.0, EngineNumbers(half_life=days)), room=600, per_day=48.0 * size, learns_scales=False
    )
    learn, state = jax.jit(own.learn), own.start
    wanted, weights, known = own.start.posterior, np.zeros(0), []
    decay = 0.5 ** (1 / 24 / days)
    for number in range(1, 10):
        contexts, arms, clicks = seen_rows(rng, size)
        outcomes = Outcomes(features_of(contexts, arms), jnp.asarray(arms), jnp.asarray(clicks))
        state = learn(state, outcomes)
        if number % 2 == 0:
            wanted = FORGET(wanted, decay, nowhere)
            weights = weights * decay
        rows = Rows(outcomes.features, outcomes.chosen, jnp.zeros(size, int), jnp.ones(size), outcomes.clicks)
        wanted, weights = UPDATE(wanted, rows)[0], np.append(weights, np.ones(size))
        known.append(rows)
        if number < 9:
            assert_allclose(state.posterior.weights, wanted.weights, atol=1e-9)
    rows = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *known)
    weighed = rows._replace(impressions=jnp.asarray(weights), clicks=rows.clicks * weights)
    refitted = REFIT(design.prior, weighed, nowhere, 1)[0]
    assert_allclose(state.posterior.weights, refitted.weights, atol=1e-6)
    assert int(state.step) == 9 + 4 + 1
