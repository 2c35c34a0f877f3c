"""Nothing breaks at the edges: each case is learnt several times over, at the model's real width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bandit.features.design import N_CONTENT, PriorScales, weight_prior
from bandit.posterior import Rows, State, initial_state, predict, refit, update
from tests.bandit.posterior.small import named_arrays

pytestmark = pytest.mark.usefixtures("double_precision")

BATCH, N_ARMS, N_CAMPAIGNS = 256, 10_000, 20

update_jit, predict_jit = jax.jit(update), jax.jit(predict)
FIRST = np.eye(BATCH)[0]
EACH = np.arange(BATCH)
ONE = np.zeros(BATCH, int)

# arm of each row, impressions, clicks
CASES = {
    "a million impressions without a click": (ONE, np.full(BATCH, 1e6 / BATCH), np.zeros(BATCH)),
    "the same in one row": (EACH, 1e6 * FIRST, np.zeros(BATCH)),
    "every impression clicked": (EACH, np.full(BATCH, 100.0), np.full(BATCH, 100.0)),
    "a first batch of 256 clicks on one creative": (ONE, np.ones(BATCH), np.ones(BATCH)),
    "a first batch of 256 clicks on 256": (EACH, np.ones(BATCH), np.ones(BATCH)),
    "a creative shown once": (EACH, FIRST, np.zeros(BATCH)),
    "a creative shown once and clicked": (EACH, FIRST, FIRST),
    "no impression": (EACH, np.zeros(BATCH), np.zeros(BATCH)),
}


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    random = np.random.default_rng(0)
    content = random.normal(size=(N_ARMS, N_CONTENT))
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    campaign_mean = content.reshape(-1, N_CAMPAIGNS, N_CONTENT).mean(axis=0)
    return np.hstack([np.ones((N_ARMS, 1)), content, campaign_mean[np.arange(N_ARMS) % N_CAMPAIGNS]])


@pytest.fixture(scope="module")
def empty(double_precision: None) -> State:
    prior = weight_prior(PriorScales(), with_context=False)
    return jax.jit(initial_state, static_argnums=(1, 2))(prior, N_ARMS, N_CAMPAIGNS)


def a_batch(features: np.ndarray, arm: np.ndarray, impressions: np.ndarray, clicks: np.ndarray) -> Rows:
    return Rows(*map(jnp.asarray, (features[arm], arm, arm % N_CAMPAIGNS, impressions, clicks)))


def assert_sound(state: State, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Hold everything finite and positive semi-definite; return the rows' means and covariance."""
    for name, leaf in named_arrays(state).items():
        assert np.isfinite(leaf).all(), name
    assert (np.asarray(state.arm_precision) > 0).all()
    assert (np.asarray(state.campaign_precision) > 0).all()
    assert (np.diag(state.factor) > 0).all()
    mean, covariance = map(np.asarray, predict_jit(state, rows.features, rows.arm, rows.campaign))
    values = np.linalg.eigvalsh(covariance)
    # Rows of one arm are one logit: rank one, with eigenvalues of 0 up to rounding.
    assert values[0] >= -1e-12 * values[-1]
    assert np.isfinite(mean).all()
    return mean, covariance


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_edge_cases_leave_a_sound_posterior(features: np.ndarray, empty: State, case: str) -> None:
    arm, impressions, clicks = CASES[case]
    rows = a_batch(features, arm, impressions, clicks)
    state = empty
    mean, _ = assert_sound(state, rows)
    sign = np.sign(clicks.sum() - 0.5 * impressions.sum())
    previous = mean[0]
    for _ in range(4):
        state, info = update_jit(state, rows)
        mean, covariance = assert_sound(state, rows)
        assert sign * mean[0] >= sign * previous, "more of the same moves on in the same direction"
        assert float(info.largest_step) < 1
        assert covariance[0, 0] < 1
        previous = mean[0]


def test_all_zero_embeddings_leave_the_weights_of_content_at_their_prior(
    features: np.ndarray, empty: State
) -> None:
    bare = features.copy()
    bare[:, 1:] = 0
    rows = a_batch(bare, EACH, np.full(BATCH, 50.0), np.ones(BATCH))
    state, _ = update_jit(empty, rows)
    assert_sound(state, rows)
    np.testing.assert_array_equal(state.weights[1:], 0)
    np.testing.assert_array_equal(state.precision[1:, 1:], empty.precision[1:, 1:])


@pytest.mark.slow
def test_ten_thousand_arms_are_learnt_one_batch_after_another(features: np.ndarray, empty: State) -> None:
    random = np.random.default_rng(1)
    order = random.permutation(N_ARMS)
    state = empty
    for start in range(0, N_ARMS, BATCH):
        arm = np.resize(order[start : start + BATCH], BATCH)
        state, _ = update_jit(
            state, a_batch(features, arm, np.full(BATCH, 100.0), random.binomial(100, 0.02, BATCH))
        )
    assert (np.asarray(state.arm_precision) > 16).all(), "an arm was not learnt"
    rows = a_batch(features, order[:BATCH], np.zeros(BATCH), np.zeros(BATCH))
    mean, _ = assert_sound(state, rows)
    assert np.log(0.02 / 0.98) == pytest.approx(mean.mean(), abs=0.1)


@pytest.mark.slow
def test_a_refit_settles_on_extreme_counts(features: np.ndarray) -> None:
    impressions = np.tile([1e6, 1e6, 1e6, 1.0], BATCH // 4)
    clicks = np.tile([0.0, 1e6, 1.5e4, 1.0], BATCH // 4)
    rows = a_batch(features, EACH, impressions, clicks)._replace(campaign=jnp.asarray(EACH % 5))
    prior = weight_prior(PriorScales(), with_context=False)
    # The archive's tests refit in this shape too: one program for all.
    state, info = jax.jit(refit, static_argnums=3)(prior, rows, jnp.arange(BATCH + 64) % 5, 5)
    mean, _ = assert_sound(state, rows)
    assert float(info.largest_step) < 1e-4
    assert (np.diff(mean[:4])[[0, 1]] * [1, -1] > 0).all(), "the order of the observed rates"
