"""Learnt scales and forgetting, held against the dense model; and whether true scales are found."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from bandit.posterior import (
    Prior,
    Rows,
    Sites,
    State,
    absorb,
    find_sites,
    forget,
    learn_effect_scales,
    learn_prior,
    learn_scales,
    learn_weight_scales,
    predict,
    refit,
    rescale,
    rescale_weights,
)
from tests.bandit.posterior.dense import Dense, add_sites, dense_prior, design
from tests.bandit.posterior.small import (
    ARM_CAMPAIGN,
    DIM,
    KNOWN_ARMS,
    N_ARMS,
    N_CAMPAIGNS,
    a_batch,
    a_prior,
    assert_same_state,
    empty_state,
)

pytestmark = pytest.mark.usefixtures("double_precision")

EXACT = {"rtol": 1e-9, "atol": 1e-9}
GROUPS = np.array([[0, 1, 1, 0, 0, 1], [0, 0, 0, 1, 1, 0]], float)  # the first weight is in none
UNSEEN = 5  # the last weight's feature is 0 in every row


def other_prior() -> Prior:
    scale = jnp.asarray([0.7, 0.5, 0.1, 0.3, 0.4, 0.2])
    return Prior(a_prior().mean, scale, jnp.asarray(0.4), jnp.asarray(0.5))


def learnt() -> tuple[State, list[tuple[np.ndarray, Sites]]]:
    """Learn two batches; return the posterior, and each batch's dense design with its sites."""
    state, seen = empty_state(), []
    for seed in range(2):
        rows = a_batch(np.random.default_rng(seed))
        rows = rows._replace(features=rows.features.at[:, UNSEEN].set(0.0))
        before = jax.jit(predict)(state, rows.features, rows.arm, rows.campaign)
        sites = jax.jit(find_sites)(before, rows.impressions, rows.clicks)[0]
        state = jax.jit(absorb)(state, rows, sites)
        seen.append((design(rows, N_ARMS, N_CAMPAIGNS), sites))
    return state, seen


def dense_from(prior: Prior, seen: list[tuple[np.ndarray, Sites]], kept: float = 1.0) -> Dense:
    dense = dense_prior(prior, N_ARMS, N_CAMPAIGNS)
    for matrix, sites in seen:
        dense = add_sites(
            dense, matrix, kept * np.asarray(sites.weight), kept * np.asarray(sites.information)
        )
    return dense


def assert_is(state: State, dense: Dense) -> None:
    """Compare weights, and the joint logits of all arms."""
    features = np.random.default_rng(9).normal(size=(N_ARMS, DIM))
    rows = Rows(jnp.asarray(features), jnp.arange(N_ARMS), jnp.asarray(ARM_CAMPAIGN), *jnp.ones((2, N_ARMS)))
    logits = jax.jit(predict)(state, rows.features, rows.arm, rows.campaign)
    matrix = design(rows, N_ARMS, N_CAMPAIGNS)
    np.testing.assert_allclose(state.weights, dense.mean[:DIM], **EXACT)
    np.testing.assert_allclose(logits.mean, matrix @ dense.mean, **EXACT)
    np.testing.assert_allclose(logits.covariance, matrix @ dense.covariance @ matrix.T, **EXACT)


@pytest.mark.slow
def test_rescaled_is_as_if_the_prior_had_been_so() -> None:
    state, seen = learnt()
    assert_is(jax.jit(rescale)(state, other_prior(), ARM_CAMPAIGN), dense_from(other_prior(), seen))


def test_weights_alone_are_rescaled_likewise() -> None:
    state, _ = learnt()
    cheap = jax.jit(rescale_weights)(state, other_prior().scale)
    full = jax.jit(rescale)(state, a_prior()._replace(scale=other_prior().scale), ARM_CAMPAIGN)
    assert_same_state(cheap, full, **EXACT)


def test_rescaling_back_changes_nothing() -> None:
    state, _ = learnt()
    there = jax.jit(rescale)(state, other_prior(), ARM_CAMPAIGN)
    assert_same_state(jax.jit(rescale)(there, a_prior(), ARM_CAMPAIGN), state, **EXACT)


@pytest.mark.parametrize("kept", [1.0, 0.7, 0.0])
def test_forgetting_weighs_all_sites_alike(kept: float) -> None:
    state, seen = learnt()
    after = jax.jit(forget)(state, kept, ARM_CAMPAIGN)
    assert_is(after, dense_from(a_prior(), seen, kept))
    if kept == 0:
        assert_same_state(after, empty_state(), **EXACT)


def test_scales_of_weights_follow_the_formula() -> None:
    state, seen = learnt()
    dense = dense_from(a_prior(), seen)
    second = (dense.mean[:DIM] - np.asarray(a_prior().mean)) ** 2 + np.diag(dense.covariance)[:DIM]
    initial = a_prior()._replace(scale=jnp.asarray([0.7, 0.2, 0.2, 0.4, 0.4, 0.2]))
    expected = np.asarray(a_prior().scale).copy()
    for group in GROUPS:
        touched = [j for j in np.flatnonzero(group) if j != UNSEEN]
        before = np.asarray(initial.scale)[touched[0]]
        expected[group > 0] = np.sqrt((second[touched].sum() + 2 * before**2) / (len(touched) + 2))
    scale = jax.jit(learn_weight_scales)(state, initial, GROUPS)
    np.testing.assert_allclose(scale, expected, rtol=1e-9)


def test_scales_of_effects_follow_the_formula() -> None:
    state, seen = learnt()
    dense = dense_from(a_prior(), seen)
    second = dense.mean**2 + np.diag(dense.covariance)
    known_arms = DIM + N_CAMPAIGNS + np.arange(KNOWN_ARMS)
    known_campaigns = DIM + np.unique(ARM_CAMPAIGN[:KNOWN_ARMS])
    initial = a_prior()
    expected_arm = np.sqrt((second[known_arms].sum() + 5 * 0.25**2) / (KNOWN_ARMS + 5))
    expected_campaign = np.sqrt((second[known_campaigns].sum() + 5 * 0.6**2) / (len(known_campaigns) + 5))
    scales = jax.jit(learn_effect_scales)(state, initial, ARM_CAMPAIGN)
    np.testing.assert_allclose(scales.campaign, expected_campaign, rtol=1e-9)
    np.testing.assert_allclose(scales.arm, expected_arm, rtol=1e-9)


def test_without_data_every_scale_stays() -> None:
    same = jax.jit(learn_scales)(empty_state(), a_prior(), np.eye(DIM)[1:], ARM_CAMPAIGN)
    assert_same_state(same, empty_state(), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_an_arms_scale_stays_large_while_arms_have_seen_little() -> None:
    n = 64
    rows = Rows(jnp.ones((n, 1)), jnp.arange(n), jnp.zeros(n, int), jnp.full(n, 100.0), jnp.full(n, 2.0))
    campaign = jnp.zeros(n, int)
    prior = Prior(jnp.asarray([-3.9]), jnp.asarray([0.7]), jnp.asarray(0.6), jnp.asarray(0.25))

    def scale_after(times: float) -> float:
        counts = rows._replace(impressions=times * rows.impressions, clicks=times * rows.clicks)
        state, _ = jax.jit(refit, static_argnums=3)(prior, counts, campaign, 1)
        for _ in range(200):
            state = jax.jit(learn_scales)(state, prior, np.zeros((1, 1)), campaign)
        return float(state.prior.arm_scale)

    # All arms have the same rate, so the data speak for a small τ; at 100 impressions they may not yet.
    assert scale_after(1) == pytest.approx(0.2)
    assert scale_after(40) < 0.12


@pytest.mark.slow
def test_a_refit_ends_where_learning_the_scales_changes_nothing() -> None:
    rows = a_batch(np.random.default_rng(3))
    campaign, groups = jnp.asarray(ARM_CAMPAIGN), jnp.asarray(GROUPS)
    fit = jax.jit(refit, static_argnums=3)
    state, info = fit(a_prior(), rows, campaign, N_CAMPAIGNS, groups)
    again = jax.jit(learn_prior)(state, a_prior(), groups, campaign)
    for new, old in zip(again[1:], state.prior[1:], strict=True):
        np.testing.assert_allclose(new, old, rtol=0.02)
    # With the scales it ended with, the posterior is that of a plain refit.
    plain, _ = fit(state.prior, rows, campaign, N_CAMPAIGNS)
    assert_same_state(state, plain, rtol=1e-3, atol=1e-3)
    assert int(info.passes) < 50


@pytest.mark.slow
def test_true_scales_are_found() -> None:
    """One hundred campaigns of eight arms, 3,000 impressions each: τ, σ_b and two groups of weights."""
    n_campaigns, n_each, n_seeds, half = 100, 8, 4, 20
    n_arms = n_campaigns * n_each
    true = np.array([0.4, 0.35, 0.3, 0.1])  # τ, σ_b, first and second group
    groups = np.hstack([np.zeros((2, 1)), np.kron(np.eye(2), np.ones(half))])
    campaign = np.repeat(np.arange(n_campaigns), n_each)
    mean, scale = np.r_[-3.9, np.zeros(2 * half)], np.r_[0.7, np.full(2 * half, 0.2)]
    initial = Prior(*map(jnp.asarray, (mean, scale, 0.6, 0.25)))
    fit = partial(jax.jit(refit, static_argnums=3), initial)
    found = []
    for seed in range(n_seeds):
        random = np.random.default_rng(seed)
        features = np.hstack([np.ones((n_arms, 1)), random.normal(size=(n_arms, 2 * half))])
        weights = mean + np.r_[0.0, np.repeat(true[2:], half)] * random.normal(size=1 + 2 * half)
        logits = features @ weights + true[0] * random.normal(size=n_arms)
        logits += true[1] * random.normal(size=n_campaigns)[campaign]
        impressions = np.full(n_arms, 3000.0)
        clicks = random.binomial(impressions.astype(int), expit(logits)).astype(float)
        rows = Rows(*map(jnp.asarray, (features, np.arange(n_arms), campaign, impressions, clicks)))
        state, info = fit(rows, jnp.asarray(campaign), n_campaigns, jnp.asarray(groups))
        assert int(info.passes) < 50
        prior = state.prior
        found.append([prior.arm_scale, prior.campaign_scale, prior.scale[1], prior.scale[-1]])
    relative = np.mean(found, axis=0) / true
    # The sd of n values is known to 1/√(2n): 2.5 % for 800 arms, 7 % for 100 campaigns, 16 % for 20 weights;
    # over four seeds half of that, and three of those are allowed.
    assert np.all(np.abs(relative - 1) < 3 * np.array([0.025, 0.07, 0.16, 0.16]) / 2), relative
