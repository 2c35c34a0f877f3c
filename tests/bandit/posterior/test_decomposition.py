"""A logit's parts are what a dense solve over all unknowns says of them, and they sum to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bandit.posterior import absorb, averaged_rate, decompose, find_sites, predict, predict_marginals
from tests.bandit.posterior.dense import add_sites, dense_prior, design, logits
from tests.bandit.posterior.dense import averaged_rate as averaged_rate_in_numpy
from tests.bandit.posterior.small import ARM_CAMPAIGN, DIM, N_ARMS, N_CAMPAIGNS, a_batch, a_prior, empty_state

pytestmark = pytest.mark.usefixtures("double_precision")

EXACT = {"rtol": 1e-9, "atol": 1e-9}
find_sites_jit, predict_jit, absorb_jit, decompose_jit = map(
    jax.jit, (find_sites, predict, absorb, decompose)
)


@pytest.mark.parametrize("arm", [0, 3, 11, 13, 15], ids="arm {}".format)
def test_parts_equal_the_dense_solve(arm: int) -> None:
    random = np.random.default_rng(3)
    state, dense = empty_state(), dense_prior(a_prior(), N_ARMS, N_CAMPAIGNS)
    for _ in range(3):
        rows = a_batch(random)
        before = predict_jit(state, rows.features, rows.arm, rows.campaign)
        sites, _, _ = find_sites_jit(before, rows.impressions, rows.clicks)
        state = absorb_jit(state, rows, sites)
        dense = add_sites(dense, design(rows, N_ARMS, N_CAMPAIGNS), *map(np.asarray, sites))
    features = random.normal(size=(3, DIM)) * np.repeat(np.eye(3), 2, axis=1)
    campaign = int(ARM_CAMPAIGN[arm])
    parts = decompose_jit(
        state,
        jnp.asarray(features[:2]),
        jnp.asarray(features[2]),
        jnp.asarray(arm),
        jnp.asarray(campaign),
    )
    contrasts = np.zeros((4, DIM + N_CAMPAIGNS + N_ARMS))
    contrasts[:3, :DIM] = features
    contrasts[2, DIM + campaign] = 1
    contrasts[3, DIM + N_CAMPAIGNS + arm] = 1
    mean, covariance = logits(dense, contrasts)
    np.testing.assert_allclose(parts.mean, mean, **EXACT)
    np.testing.assert_allclose(parts.sd, np.sqrt(np.diag(covariance)), **EXACT)
    np.testing.assert_allclose(parts.logit_mean, mean.sum(), **EXACT)
    np.testing.assert_allclose(parts.logit_variance, covariance.sum(), **EXACT)
    total = features.sum(axis=0)
    known = predict_marginals(state, jnp.asarray(total)[None], jnp.asarray([arm]), jnp.asarray([campaign]))
    np.testing.assert_allclose([parts.logit_mean, parts.logit_variance], np.ravel(known), **EXACT)


def test_a_batch_is_told_what_was_expected_of_it() -> None:
    rows = a_batch(np.random.default_rng(5))
    before = predict_jit(empty_state(), rows.features, rows.arm, rows.campaign)
    _, _, info = find_sites_jit(before, rows.impressions, rows.clicks)
    mean, covariance = logits(dense_prior(a_prior(), N_ARMS, N_CAMPAIGNS), design(rows, N_ARMS, N_CAMPAIGNS))
    rates = averaged_rate_in_numpy(mean, np.minimum(np.diag(covariance), 1.0))
    impressions, clicks = np.asarray(rows.impressions), np.asarray(rows.clicks)
    np.testing.assert_allclose(info.expected_clicks, impressions @ rates, rtol=1e-9)
    evidence = clicks @ np.log(rates) + (impressions - clicks) @ np.log(1 - rates)
    np.testing.assert_allclose(info.log_evidence, evidence, rtol=1e-9)


def test_an_impossible_surprise_is_still_a_number() -> None:
    before = predict_jit(empty_state(), *_one_row(1e4))
    _, _, info = find_sites_jit(before, jnp.ones(1), jnp.zeros(1))
    assert np.isfinite(info.log_evidence)


def _one_row(size: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    return jnp.full((1, DIM), size), jnp.zeros(1, int), jnp.zeros(1, int)


def test_the_averaged_rate_lies_between_the_plug_in_and_a_half() -> None:
    rate = averaged_rate(jnp.asarray(-4.0), jnp.asarray(0.5))
    assert float(jax.nn.sigmoid(-4.0)) < float(rate) < 0.5
