"""Each policy against a second account of it: a formula, an exact probability, or the engine's own filter."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from scipy.integrate import quad
from scipy.stats import beta

from bandit.policy.randomness import Uniforms, uniforms_of_ids
from bandit.policy.thompson import Choice
from bandit.posterior import Gaussian, Prior, initial_state, predict
from simulations.policies.base import (
    Counts,
    Outcomes,
    Policy,
    Request,
    beta_thompson,
    certain,
    ucb1,
    uniform,
)
from simulations.policies.engine import (
    Design,
    EngineNumbers,
    engine,
    engine_on_logits,
    logits_of_rows,
)

pytestmark = pytest.mark.usefixtures("double_precision")

N_ARMS, DIM, BATCH = 4, 3, 20
N_DECISIONS = 20_000
ALL = np.ones(N_ARMS, bool)

empty, predict_jit = jax.jit(initial_state, static_argnums=(1, 2)), jax.jit(predict)


def uniforms_of(n: int, seed: int = 0) -> Uniforms:
    return uniforms_of_ids([str(i) for i in range(n)], seed)


UNIFORMS = jax.tree.map(lambda numbers: numbers[0], uniforms_of(1))


def a_request(eligible: np.ndarray = ALL) -> Request:
    return Request(np.zeros((N_ARMS, 0)), eligible)


def counts_of(impressions: list[int], clicks: list[int]) -> Counts:
    return Counts(*map(jnp.asarray, (np.asarray(impressions, float), np.asarray(clicks, float))))


@cache
def many(make: Callable[[int], Policy]) -> Callable[[Counts, Request, np.ndarray], Choice]:
    """Return a policy's choices for many uniform numbers, compiled once."""
    return jax.jit(jax.vmap(make(N_ARMS).choose, in_axes=(None, None, 0)))


def test_counts_add_up() -> None:
    before = counts_of([5, 0, 2, 1], [1, 0, 0, 1])
    new = Outcomes(jnp.zeros((4, 0)), jnp.array([0, 2, 2, 0]), jnp.array([1.0, 0.0, 1.0, 1.0]))
    after = before.plus(new)
    np.testing.assert_array_equal(after.impressions, [7, 0, 4, 1])
    np.testing.assert_array_equal(after.clicks, [3, 0, 1, 1])


def test_certain_takes_the_first_of_the_best() -> None:
    choice = certain(jnp.array([0.1, 0.4, 0.4, 9.0]), jnp.array([True, True, True, False]))
    assert int(choice.chosen) == 1
    np.testing.assert_array_equal(choice.propensities, [0, 1, 0, 0])


def test_uniform_shows_the_eligible_alike() -> None:
    eligible = np.array([True, False, True, True])
    answers = many(uniform)(counts_of([0] * 4, [0] * 4), a_request(eligible), uniforms_of(N_DECISIONS))
    np.testing.assert_allclose(answers.propensities, np.tile(eligible / 3, (N_DECISIONS, 1)))
    shown = np.bincount(answers.chosen, minlength=N_ARMS)
    assert shown[1] == 0
    assert np.abs(shown[eligible] - N_DECISIONS / 3).max() < 5 * np.sqrt(N_DECISIONS * 2 / 9)


@pytest.mark.parametrize(
    ("impressions", "clicks"),
    [
        ([0, 0], [0, 0]),
        ([10, 0], [0, 0]),
        ([1, 1], [1, 0]),
        ([100, 100], [10, 5]),
        ([100_000, 90_000], [1_500, 1_290]),
        ([1_000_000, 50], [0, 0]),
    ],
)
def test_beta_thompson_shows_an_arm_as_often_as_it_is_the_best(
    impressions: list[int], clicks: list[int]
) -> None:
    state = counts_of([*impressions, 0, 0], [*clicks, 0, 0])
    request = a_request(np.array([True, True, False, False]))
    chosen = np.asarray(many(beta_thompson)(state, request, uniforms_of(N_DECISIONS)).chosen)
    first, second = (beta(1 + c, 1 + n - c) for n, c in zip(impressions, clicks, strict=True))
    places = sorted(
        {0.0, 1.0, *(float(one.ppf(q)) for one in (first, second) for q in (1e-9, 0.5, 1 - 1e-9))}
    )
    exact = sum(
        quad(lambda x: first.pdf(x) * second.cdf(x), low, high, limit=200)[0]
        for low, high in pairwise(places)
    )
    error = np.sqrt(max(exact * (1 - exact), 1e-4) / N_DECISIONS)
    assert (chosen == 0).mean() == pytest.approx(exact, abs=5 * error)


@jax.jit
def ucb1_choice(scale: float, state: Counts, request: Request, uniforms: Uniforms) -> Choice:
    return ucb1(N_ARMS, scale).choose(state, request, uniforms)


@pytest.mark.parametrize("scale", [0.03, 1.0])
def test_ucb1_against_its_formula(scale: float) -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        impressions = random.integers(0, 5, N_ARMS) * random.integers(1, 1000, N_ARMS)
        clicks = random.binomial(impressions, 0.05)
        eligible = random.uniform(size=N_ARMS) < 0.7
        eligible[random.integers(N_ARMS)] = True
        index = [
            -np.inf
            if not eligible[a]
            else np.inf
            if impressions[a] == 0
            else clicks[a] / impressions[a]
            + scale * np.sqrt(2 * np.log(max(impressions.sum(), 2)) / impressions[a])
            for a in range(N_ARMS)
        ]
        chosen = ucb1_choice(scale, counts_of(impressions, clicks), a_request(eligible), UNIFORMS)
        assert int(chosen.chosen) == int(np.argmax(index))


def a_world() -> tuple[Prior, np.ndarray, Gaussian]:
    """Return a prior, the arms' features and the joint logits that they make."""
    prior = Prior(*map(jnp.asarray, ([-2.0, 0.3, -0.2], [0.7, 0.3, 0.3], 0.6, 0.25)))
    features = np.hstack([np.ones((N_ARMS, 1)), np.random.default_rng(1).normal(size=(N_ARMS, DIM - 1))])
    arms = np.arange(N_ARMS)
    return prior, features, predict_jit(empty(prior, N_ARMS, 1), features, arms, np.zeros_like(arms))


@pytest.mark.slow
def test_both_forms_of_the_engine_are_one_policy() -> None:
    # Without context the logits are all there is: the full posterior must make the same decisions from the
    # same uniform numbers, batch after batch.
    prior, features, logits = a_world()
    design = Design(prior, jnp.zeros((1, DIM)), jnp.asarray(features)[:, None, :], logits_of_rows)
    on_logits = engine_on_logits(logits, 4_000.0)
    on_weights = engine(design, 4_000.0, room=6 * BATCH, learns_scales=False)
    request = Request(features, ALL)
    choose_logits, choose_weights = (
        jax.jit(jax.vmap(policy.choose, in_axes=(None, None, 0))) for policy in (on_logits, on_weights)
    )
    learn_logits, learn_weights = (jax.jit(policy.learn) for policy in (on_logits, on_weights))
    random = np.random.default_rng(2)
    belief, full = on_logits.start, on_weights.start
    arms = np.arange(N_ARMS)
    for number in range(6):
        uniforms = uniforms_of(BATCH, seed=number)
        first, second = choose_logits(belief, request, uniforms), choose_weights(full, request, uniforms)
        np.testing.assert_array_equal(first.chosen, second.chosen)
        np.testing.assert_allclose(first.propensities, second.propensities, rtol=0, atol=1e-12)
        clicks = jnp.asarray((random.uniform(size=BATCH) < 0.2).astype(float))
        outcomes = Outcomes(features[np.asarray(first.chosen)], first.chosen, clicks)
        belief, full = learn_logits(belief, outcomes), learn_weights(full, outcomes)
        after = predict_jit(full.posterior, features, arms, np.zeros_like(arms))
        np.testing.assert_allclose(belief.logits.mean, after.mean, rtol=1e-9)
        np.testing.assert_allclose(belief.logits.covariance, after.covariance, rtol=1e-9)
        assert float(belief.so_far) == float(full.so_far) == (number + 1) * BATCH


def test_settings_reach_the_draw() -> None:
    _, _, logits = a_world()
    uniforms = uniforms_of(300)

    @jax.jit
    def shares(horizon: Array, kappa: Array, uniform_share: Array) -> Array:
        policy = engine_on_logits(logits, horizon, EngineNumbers(kappa=kappa, uniform=uniform_share))
        choose = jax.vmap(policy.choose, in_axes=(None, None, 0))
        return choose(policy.start, a_request(), uniforms).propensities

    best = np.asarray(logits.mean).argmax()
    np.testing.assert_array_equal(shares(4_000.0, 0.0, 0.0), np.tile(np.eye(N_ARMS)[best], (300, 1)))
    np.testing.assert_array_equal(shares(4_000.0, 0.0, 1.0), 1 / N_ARMS)
    # The longer the horizon, the more even the traffic; without end it is plain Thompson sampling.
    largest = [float(shares(horizon, 0.5, 0.0).max(axis=1).mean()) for horizon in (4.0, 400.0, np.inf)]
    assert largest[0] > largest[1] + 0.05
    assert largest[1] > largest[2] + 0.05
