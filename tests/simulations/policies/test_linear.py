"""Linear baselines against ridge regressions written out in NumPy, arm by arm."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from bandit.features.design import design_row
from bandit.policy.randomness import Uniforms
from simulations.loop import uniforms_of_key
from simulations.policies.base import Outcomes, Policy, Request, key_of
from simulations.policies.linear import (
    N_SLOTS,
    Basis,
    LinearState,
    disjoint_basis,
    epsilon_greedy,
    hybrid_basis,
    lin_ts,
    lin_ucb,
    shared_basis,
)

pytestmark = pytest.mark.usefixtures("double_precision")

N_ARMS, BATCH, RIDGE, BASE_RATE = 4, 60, 3.0, 0.02
CONTENT = 0.3 * np.random.default_rng(0).normal(size=(N_ARMS, 64))
BASES: dict[str, Callable[[], Basis]] = {
    "disjoint": lambda: disjoint_basis(N_ARMS),
    "shared": lambda: shared_basis(jnp.asarray(CONTENT)),
    "hybrid": lambda: hybrid_basis(jnp.asarray(CONTENT)),
}


def design_rows(context: np.ndarray) -> jax.Array:
    row = jax.vmap(design_row, in_axes=(None, 0, None))
    return row(jnp.asarray(context), jnp.asarray(CONTENT), jnp.asarray(CONTENT.mean(axis=0)))


def rows_of(kind: str, context: np.ndarray) -> np.ndarray:
    """z of each arm as the papers write it, one long vector for all arms' weights."""
    own = np.kron(np.eye(N_ARMS), np.r_[1.0, context])
    crossed = np.stack([np.outer(context, content[:4]).ravel() for content in CONTENT])
    shared = np.hstack([np.tile(np.r_[1.0, context], (N_ARMS, 1)), CONTENT, crossed])
    return {"disjoint": own, "shared": shared, "hybrid": np.hstack([shared, own])}[kind]


def some_outcomes(seed: int, size: int = BATCH) -> tuple[Outcomes, np.ndarray]:
    rng = np.random.default_rng(seed)
    contexts, chosen = rng.normal(size=(size, 16)), rng.integers(0, N_ARMS, size)
    features = jnp.stack([design_rows(context)[arm] for context, arm in zip(contexts, chosen, strict=True)])
    clicks = (rng.random(size) < 0.3).astype(float)
    return Outcomes(features, jnp.asarray(chosen), jnp.asarray(clicks)), contexts


def ridge_by_hand(kind: str, outcomes: Outcomes, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A and b over the weights of all arms, summed row by row."""
    dim = rows_of(kind, np.zeros(16)).shape[1]
    first = np.arange(0, dim, N_SLOTS) if kind == "disjoint" else [0]
    a, b = RIDGE * np.eye(dim), np.zeros(dim)
    b[first] = RIDGE * BASE_RATE
    for context, arm, click in zip(contexts, outcomes.chosen, outcomes.clicks, strict=True):
        z = rows_of(kind, context)[int(arm)]
        a, b = a + np.outer(z, z), b + float(click) * z
    return a, b


def whole(state: LinearState) -> tuple[np.ndarray, np.ndarray]:
    """The state as one matrix and one vector."""
    groups, dim = state.information.shape
    a = np.zeros((groups * dim, groups * dim))
    for group in range(groups):
        part = slice(group * dim, (group + 1) * dim)
        a[part, part] = state.precision[group]
    return a, np.asarray(state.information).ravel()


def uniforms_of(n: int, seed: int = 0) -> Uniforms:
    return uniforms_of_key(jax.random.key(seed), n)


def chosen_by(policy: Policy, state: LinearState, contexts: np.ndarray, uniforms: Uniforms) -> np.ndarray:
    """Whom the policy shows, one decision per context, compiled once."""
    requests = Request(jax.vmap(design_rows)(contexts), jnp.ones((len(contexts), N_ARMS), bool))
    choices = jax.jit(jax.vmap(policy.choose, in_axes=(None, 0, 0)))(state, requests, uniforms)
    assert_allclose(choices.propensities, np.eye(N_ARMS)[np.asarray(choices.chosen)])
    return np.asarray(choices.chosen)


@pytest.mark.parametrize("kind", BASES)
def test_posterior_is_the_ridge_regression(kind: str) -> None:
    outcomes, contexts = some_outcomes(1)
    policy = lin_ucb(BASES[kind](), 0.1, RIDGE, BASE_RATE)
    a, b = ridge_by_hand(kind, outcomes, contexts)
    got_a, got_b = whole(policy.learn(policy.start, outcomes))
    assert_allclose(got_a, a, atol=1e-9)
    assert_allclose(got_b, b, atol=1e-9)


@pytest.mark.parametrize("kind", BASES)
def test_a_batch_is_its_impressions_one_by_one(kind: str) -> None:
    outcomes, _ = some_outcomes(2, 10)
    policy = lin_ts(BASES[kind](), 0.1, RIDGE, BASE_RATE)
    learn = jax.jit(policy.learn)
    at_once, state = learn(policy.start, outcomes), policy.start
    for i in range(10):
        state = learn(state, jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], outcomes))
    assert_allclose(state.precision, at_once.precision, atol=1e-9)
    assert_allclose(state.information, at_once.information, atol=1e-9)


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("bonus", [0.0, 0.2])
def test_lin_ucb_takes_the_largest_bound(kind: str, bonus: float) -> None:
    outcomes, seen = some_outcomes(3)
    policy = lin_ucb(BASES[kind](), bonus, RIDGE, BASE_RATE)
    a, b = ridge_by_hand(kind, outcomes, seen)
    inverse, contexts = np.linalg.inv(a), np.random.default_rng(3).normal(size=(50, 16))
    wanted = []
    for context in contexts:
        z = rows_of(kind, context)
        wanted.append(np.argmax(z @ inverse @ b + bonus * np.sqrt(np.einsum("ad,de,ae->a", z, inverse, z))))
    got = chosen_by(policy, jax.jit(policy.learn)(policy.start, outcomes), contexts, uniforms_of(50))
    np.testing.assert_array_equal(got, wanted)
    assert len(set(wanted)) > 1


@pytest.mark.parametrize("kind", BASES)
def test_lin_ts_takes_the_best_under_drawn_weights(kind: str) -> None:
    outcomes, seen = some_outcomes(4)
    scale, uniforms = 0.5, uniforms_of(50)
    policy = lin_ts(BASES[kind](), scale, RIDGE, BASE_RATE)
    a, b = ridge_by_hand(kind, outcomes, seen)
    factor, mean = np.linalg.cholesky(a), np.linalg.solve(a, b)
    contexts = np.random.default_rng(4).normal(size=(50, 16))
    shape = (N_ARMS,) if kind == "disjoint" else (1, len(b))
    noises = jax.jit(jax.vmap(lambda one: noise_of(one, shape)))(uniforms)
    wanted = []
    for context, noise in zip(contexts, np.asarray(noises, float), strict=True):
        z = rows_of(kind, context)
        if kind == "disjoint":
            drawn = noise * np.sqrt(np.einsum("ad,de,ae->a", z, np.linalg.inv(a), z))
        else:
            drawn = z @ np.linalg.solve(factor.T, noise[0])
        wanted.append(np.argmax(z @ mean + scale * drawn))
    got = chosen_by(policy, jax.jit(policy.learn)(policy.start, outcomes), contexts, uniforms)
    np.testing.assert_array_equal(got, wanted)
    assert len(set(wanted)) > 1


def noise_of(uniforms: Uniforms, shape: tuple[int, ...]) -> jax.Array:
    key = key_of(uniforms, 3)
    return jax.random.normal(key, shape, jnp.float32)


def test_disjoint_lin_ts_draws_as_weights_would() -> None:
    outcomes, contexts = some_outcomes(5)
    n, scale, context = 20_000, 2.0, np.random.default_rng(6).normal(size=16)
    policy = lin_ts(disjoint_basis(N_ARMS), scale, RIDGE, BASE_RATE)
    state = policy.learn(policy.start, outcomes)
    request = Request(design_rows(context), jnp.ones(N_ARMS, bool))
    uniforms = uniforms_of(n)
    chosen = jax.jit(jax.vmap(policy.choose, in_axes=(None, None, 0)))(state, request, uniforms).chosen
    a, b = ridge_by_hand("disjoint", outcomes, contexts)
    weights = np.random.default_rng(8).multivariate_normal(
        np.linalg.solve(a, b), scale**2 * np.linalg.inv(a), n
    )
    wanted = np.bincount((weights @ rows_of("disjoint", context).T).argmax(axis=1), minlength=N_ARMS) / n
    got = np.bincount(np.asarray(chosen), minlength=N_ARMS) / n
    assert np.all(np.abs(got - wanted) < 5 * np.sqrt(2 * wanted * (1 - wanted) / n))
    assert wanted.min() > 0.02


@pytest.mark.slow
def test_epsilon_greedy_between_greedy_and_uniform() -> None:
    outcomes, _ = some_outcomes(9)
    n, context = 20_000, np.random.default_rng(10).normal(size=16)
    eligible = jnp.asarray([True, False, True, True])
    request = Request(design_rows(context), eligible)
    uniforms = uniforms_of(n)
    basis = disjoint_basis(N_ARMS)
    greedy = lin_ucb(basis, 0.0, RIDGE, BASE_RATE)
    state = greedy.learn(greedy.start, outcomes)
    best = int(greedy.choose(state, request, jax.tree.map(lambda leaf: leaf[0], uniforms)).chosen)
    for share in (0.0, 0.3, 1.0):
        policy = epsilon_greedy(basis, share, RIDGE, BASE_RATE)
        chosen = jax.jit(jax.vmap(policy.choose, in_axes=(None, None, 0)))(state, request, uniforms).chosen
        wanted = share * np.asarray(eligible) / 3 + (1 - share) * (np.arange(N_ARMS) == best)
        got = np.bincount(np.asarray(chosen), minlength=N_ARMS) / n
        assert np.all(np.abs(got - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / n))


def test_without_data_all_arms_score_the_base_rate() -> None:
    policy = lin_ucb(disjoint_basis(N_ARMS), 0.1, RIDGE, BASE_RATE)
    weights = np.linalg.solve(
        np.asarray(policy.start.precision), np.asarray(policy.start.information)[..., None]
    )
    assert_allclose(weights[:, 0, 0], BASE_RATE)
    assert_allclose(weights[:, 1:, 0], 0)
    assert chosen_by(policy, policy.start, np.ones((1, 16)), uniforms_of(1)) == [0]
