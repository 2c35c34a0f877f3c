"""Simulation-based calibration: truths drawn from the prior fall anywhere in their posteriors, equally often.

The posterior is Gaussian: the rank of a truth among infinitely many draws is its probability integral.

References:
    S. Talts, M. Betancourt, D. Simpson, A. Vehtari, A. Gelman, "Validating Bayesian inference algorithms with
    simulation-based calibration", 2018.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from scipy.stats import chisquare

from bandit.posterior import Prior, Rows, decompose, initial_state, refit, update
from tests.bandit.posterior.small import ARM_CAMPAIGN, DIM, KNOWN_ARMS, N_ARMS, N_CAMPAIGNS, a_prior

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("double_precision")]

REPLICATES, BINS = 200, 10
N_BATCHES, BATCH, IMPRESSIONS = 12, 24, 25
QUANTITIES = ("intercept", "a weight", "campaign", "arm", "new arm")


class Truth(NamedTuple):
    """What one replicate drew from the prior."""

    weights: Array
    campaign: Array
    arm: Array


def drawn(key: Array, prior: Prior) -> tuple[Truth, Rows]:
    """Draw a truth from the prior, and batches of outcomes from the truth."""
    keys = jax.random.split(key, 6)
    truth = Truth(
        prior.mean + prior.scale * jax.random.normal(keys[0], (DIM,)),
        prior.campaign_scale * jax.random.normal(keys[1], (N_CAMPAIGNS,)),
        prior.arm_scale * jax.random.normal(keys[2], (N_ARMS,)),
    )
    shape = (N_BATCHES, BATCH)
    arm = jax.random.randint(keys[3], shape, 0, KNOWN_ARMS)
    campaign = jnp.asarray(ARM_CAMPAIGN)[arm]
    features = jax.random.normal(keys[4], (*shape, DIM)).at[..., 0].set(1.0)
    logits = features @ truth.weights + truth.campaign[campaign] + truth.arm[arm]
    clicks = jax.random.binomial(keys[5], IMPRESSIONS, jax.nn.sigmoid(logits))
    return truth, Rows(features, arm, campaign, jnp.full(shape, float(IMPRESSIONS)), clicks)


@partial(jax.jit, static_argnames="is_online")
def places(keys: Array, prior: Prior, *, is_online: bool) -> Array:
    """Return where each truth lies in its posterior, from 0 to 1: [replicates, quantities]."""

    def one(key: Array) -> Array:
        truth, rows = drawn(key, prior)
        if is_online:
            start = initial_state(prior, N_ARMS, N_CAMPAIGNS)
            state, _ = jax.lax.scan(update, start, rows)
        else:
            flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows)
            state, _ = refit(prior, flat, jnp.asarray(ARM_CAMPAIGN), N_CAMPAIGNS)
        seen, new = jnp.asarray(3), jnp.asarray(N_ARMS - 1)
        units = jnp.eye(DIM)[:2]
        campaign = jnp.asarray(ARM_CAMPAIGN)
        known = decompose(state, units, jnp.zeros(DIM), seen, campaign[seen])
        blank = decompose(state, units, jnp.zeros(DIM), new, campaign[new])
        truths = jnp.stack(
            [*truth.weights[:2], truth.campaign[campaign[seen]], truth.arm[seen], truth.arm[new]]
        )
        mean = jnp.append(known.mean, blank.mean[-1])
        return jax.scipy.stats.norm.cdf((truths - mean) / jnp.append(known.sd, blank.sd[-1]))

    return jax.vmap(one)(keys)


@pytest.mark.parametrize("is_online", [True, False], ids=["online", "refit"])
def test_truths_lie_anywhere_in_their_posteriors(is_online: bool) -> None:
    keys = jax.random.split(jax.random.key(11), REPLICATES)
    found = np.asarray(places(keys, a_prior(), is_online=is_online))
    p_values = {}
    for name, column in zip(QUANTITIES, found.T, strict=True):
        counts, _ = np.histogram(column, bins=BINS, range=(0, 1))
        p_values[name] = chisquare(counts).pvalue
    assert all(p > 0.01 for p in p_values.values()), p_values
    # The same as one figure: z-scores of unit variance, within three standard errors.
    z = jax.scipy.stats.norm.ppf(np.clip(found, 1e-9, 1 - 1e-9))
    np.testing.assert_allclose(np.std(z, axis=0), 1.0, atol=3 / np.sqrt(2 * REPLICATES))


def test_a_posterior_that_is_too_sure_is_found_out() -> None:
    keys = jax.random.split(jax.random.key(11), REPLICATES)
    prior = a_prior()
    found = np.asarray(places(keys, prior, is_online=False))
    z = jax.scipy.stats.norm.ppf(np.clip(found, 1e-9, 1 - 1e-9))
    counts, _ = np.histogram(jax.scipy.stats.norm.cdf(1.5 * z[:, 3]), bins=BINS, range=(0, 1))
    assert chisquare(counts).pvalue < 0.01
