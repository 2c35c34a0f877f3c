"""What a refit must not depend on: cut and order of its rows, padding; and how it ties to online learning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bandit.posterior import Rows, State, predict, refit, update
from tests.bandit.posterior.small import (
    ARM_CAMPAIGN,
    BATCH,
    N_ARMS,
    N_CAMPAIGNS,
    a_batch,
    a_prior,
    assert_same_state,
    empty_state,
)

pytestmark = pytest.mark.usefixtures("double_precision")

HALF = BATCH // 2

refit_jit = jax.jit(refit, static_argnums=3)


def some_rows(scale: int = 1) -> Rows:
    """Return 12 rows and as many of padding; `scale` multiplies the counts."""
    rows = a_batch(np.random.default_rng(0), n_padding=HALF)
    return rows._replace(impressions=scale * rows.impressions, clicks=scale * rows.clicks)


def fit(rows: Rows) -> State:
    return refit_jit(a_prior(), rows, jnp.asarray(ARM_CAMPAIGN), N_CAMPAIGNS)[0]


def test_without_data_it_is_the_prior() -> None:
    rows = some_rows()._replace(impressions=jnp.zeros(BATCH), clicks=jnp.zeros(BATCH))
    state, info = refit_jit(a_prior(), rows, jnp.asarray(ARM_CAMPAIGN), N_CAMPAIGNS)
    assert_same_state(state, empty_state(), rtol=1e-14, atol=1e-14)
    assert int(info.passes) == 1


def test_order_of_rows_does_not_matter() -> None:
    order = np.random.default_rng(1).permutation(BATCH)
    assert_same_state(
        fit(some_rows()), fit(jax.tree.map(lambda leaf: leaf[order], some_rows())), rtol=1e-10, atol=1e-10
    )


def test_rows_may_be_summed_or_split() -> None:
    # Each row is cut in two unequal parts, the second in place of the padding.
    rows = some_rows()
    part = np.floor(np.asarray(rows.impressions[:HALF]) / 3)
    clicks = np.asarray(rows.clicks[:HALF])
    part_clicks = np.minimum(part, np.floor(clicks / 2))

    def doubled(leaf: jnp.ndarray) -> jnp.ndarray:
        return jnp.concatenate([leaf[:HALF], leaf[:HALF]])

    split = Rows(
        *map(doubled, rows[:3]),
        jnp.concatenate([rows.impressions[:HALF] - part, jnp.asarray(part)]),
        jnp.concatenate([rows.clicks[:HALF] - part_clicks, jnp.asarray(part_clicks)]),
    )
    assert_same_state(fit(rows), fit(split), rtol=1e-10, atol=1e-10)


def test_padding_counts_for_nothing() -> None:
    rows = some_rows()
    other = rows._replace(
        features=rows.features.at[HALF:].set(7.0),
        arm=rows.arm.at[HALF:].set(N_ARMS - 1),
        campaign=rows.campaign.at[HALF:].set(0),
    )
    assert_same_state(fit(rows), fit(other), rtol=1e-13, atol=1e-13)


def test_one_batch_online_is_the_refit_within_the_tolerance() -> None:
    rows = some_rows()
    online, _ = jax.jit(update)(empty_state(), rows)
    joint = jax.jit(predict)
    first = joint(online, rows.features, rows.arm, rows.campaign)
    second = joint(fit(rows), rows.features, rows.arm, rows.campaign)
    # Online stops at a step of 0.02 logits, and each step is a small part of the one before.
    np.testing.assert_allclose(first.mean, second.mean, atol=0.02)
    np.testing.assert_allclose(first.covariance, second.covariance, atol=0.005)


def test_much_data_ends_at_the_observed_rate() -> None:
    rows = some_rows(scale=10_000)
    state = fit(rows)
    arm = int(rows.arm[0])
    alone = np.flatnonzero(np.asarray(rows.arm[:HALF]) == arm)
    mean = np.asarray(jax.jit(predict)(state, rows.features, rows.arm, rows.campaign).mean)
    p = 1 / (1 + np.exp(-mean[alone]))
    expected = np.asarray(rows.impressions)[alone] @ p
    # The rows of one arm share its own effect, which fits their clicks in total.
    assert expected == pytest.approx(float(np.asarray(rows.clicks)[alone].sum()), rel=1e-3)
