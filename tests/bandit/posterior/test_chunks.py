"""A refit goes through long arrays in pieces: more arms and rows than one, held against a dense solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bandit.posterior import Rows, Sites, begin, predict_marginals
from bandit.posterior.chunks import CHUNK, over_chunks, taken
from bandit.posterior.refit import assemble
from tests.bandit.posterior.dense import add_sites, dense_prior, design, logits
from tests.bandit.posterior.small import DIM, a_prior

pytestmark = pytest.mark.usefixtures("double_precision")

N_ARMS, N_CAMPAIGNS, N_ROWS = CHUNK + 60, 7, 2 * CHUNK + 300


@pytest.mark.parametrize("n", [1, 5, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_every_place_is_visited_once(n: int) -> None:
    values = jnp.arange(n)

    def mark(seen: jax.Array, index: jax.Array) -> jax.Array:
        return seen.at[index].add(1 + taken(values, index), mode="drop")

    seen = jax.jit(lambda: over_chunks(n, mark, jnp.zeros(n, int)))()
    np.testing.assert_array_equal(seen, np.arange(n) + 1)


@pytest.fixture(scope="module")
def rows() -> Rows:
    random = np.random.default_rng(0)
    arm = random.integers(0, N_ARMS, N_ROWS)
    features = np.hstack([np.ones((N_ROWS, 1)), random.normal(size=(N_ROWS, DIM - 1))])
    impressions = random.integers(0, 50, N_ROWS).astype(float)
    return Rows(features, arm, arm % N_CAMPAIGNS, impressions, random.binomial(impressions.astype(int), 0.05))


@pytest.mark.slow
def test_many_arms_and_rows_are_the_dense_gaussian(rows: Rows, double_precision: None) -> None:
    random = np.random.default_rng(1)
    weight = rows.impressions * random.uniform(0.01, 0.1, N_ROWS)
    information = random.normal(size=N_ROWS) * np.sqrt(weight)
    sites = Sites(jnp.asarray(weight), jnp.asarray(information))
    arm_campaign = jnp.arange(N_ARMS) % N_CAMPAIGNS
    on_device = jax.tree.map(jnp.asarray, rows)
    state = jax.jit(assemble, static_argnums=4)(a_prior(), on_device, sites, arm_campaign, N_CAMPAIGNS)
    dense = add_sites(
        dense_prior(a_prior(), N_ARMS, N_CAMPAIGNS), design(rows, N_ARMS, N_CAMPAIGNS), weight, information
    )
    some = Rows(*(leaf[::41] for leaf in rows))
    mean, covariance = logits(dense, design(some, N_ARMS, N_CAMPAIGNS))
    found_mean, found_variance = jax.jit(predict_marginals)(state, some.features, some.arm, some.campaign)
    np.testing.assert_allclose(found_mean, mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found_variance, np.diag(covariance), rtol=1e-9, atol=1e-9)


def test_a_refit_begins_at_the_prior(rows: Rows, double_precision: None) -> None:
    fit = jax.jit(begin)(a_prior(), jax.tree.map(jnp.asarray, rows))
    mean, covariance = logits(
        dense_prior(a_prior(), 1, 1), design(Rows(rows.features[:9], *[np.zeros(9, int)] * 4), 1, 1)
    )
    np.testing.assert_allclose(fit.mean[:9], mean, rtol=1e-12)
    np.testing.assert_allclose(fit.variance[:9], np.minimum(np.diag(covariance), 1.0), rtol=1e-12)
