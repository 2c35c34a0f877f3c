"""What a batch changes is computed apart from making the change: nothing is lost in between."""

import jax
import numpy as np
import pytest

from bandit.posterior import apply, learn, update, with_shared
from tests.bandit.posterior.small import (
    ARM_CAMPAIGN,
    BATCH,
    KNOWN_ARMS,
    N_ARMS,
    N_CAMPAIGNS,
    a_batch,
    a_prior,
    assert_same_state,
    empty_state,
    initial_state_jit,
    named_arrays,
)

pytestmark = pytest.mark.usefixtures("double_precision")

learn_jit, update_jit = jax.jit(learn), jax.jit(update)
apply_in_place = jax.jit(apply, donate_argnums=0)


def test_learning_leaves_the_state_and_a_change_makes_it_in_place() -> None:
    state = update_jit(empty_state(), a_batch(np.random.default_rng(0)))[0]
    rows = a_batch(np.random.default_rng(1))
    before = {name: array.copy() for name, array in named_arrays(state).items()}
    expected, _ = update_jit(state, rows)
    change, _ = learn_jit(state, rows)
    for name, array in named_arrays(state).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    cross = state.arm_cross
    after = apply_in_place(state, change)
    assert cross.is_deleted()
    assert_same_state(after, expected, rtol=1e-13, atol=1e-13)


def test_a_change_is_as_long_as_its_batch() -> None:
    state = initial_state_jit(a_prior(), 5000, 3000)
    change, _ = learn_jit(state, a_batch(np.random.default_rng(0)))
    assert max(max(leaf.shape, default=0) for leaf in jax.tree.leaves(change)) == BATCH


def test_a_change_names_the_arms_and_campaigns_it_touches_once() -> None:
    rows = a_batch(np.random.default_rng(0))
    change, _ = learn_jit(empty_state(), rows)
    real = np.asarray(rows.impressions) > 0
    arms = np.asarray(rows.arm)[real]
    assert [i for i in change.arms.tolist() if i < N_ARMS] == sorted(set(arms.tolist()))
    campaigns = [i for i in change.campaigns.tolist() if i < N_CAMPAIGNS]
    assert campaigns == sorted(set(ARM_CAMPAIGN[arms].tolist()))


def test_what_all_arms_share_may_go_ahead_of_the_arms() -> None:
    state = empty_state()
    change, _ = learn_jit(state, a_batch(np.random.default_rng(0), n_arms=KNOWN_ARMS))
    ahead, after = named_arrays(with_shared(state, change)), named_arrays(apply(state, change))
    for name, array in ahead.items():
        is_per_arm = name.startswith(("arm_", "campaign_"))
        np.testing.assert_array_equal(array, named_arrays(state)[name] if is_per_arm else after[name], name)
