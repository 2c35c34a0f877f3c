"""Late feedback: what a policy knows, and when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from numpy.testing import assert_allclose, assert_array_equal

from bandit.policy.randomness import Uniforms
from bandit.policy.thompson import Choice
from simulations.delayed_feedback import delayed
from simulations.loop import Traffic, play, steady
from simulations.policies.base import Outcomes, Policy, Request, certain

pytestmark = pytest.mark.usefixtures("double_precision")

N_ARMS, BATCH, N_BATCHES = 9, 4, 8


def reading() -> Policy:
    """Return a policy that shows the arm of the last batch that it learnt, arm 0 before."""

    def decide(state: Array, request: Request, uniforms: Uniforms) -> Choice:
        return certain(jnp.arange(N_ARMS) == state, request.eligible)

    def learn(state: Array, outcomes: Outcomes) -> Array:
        return outcomes.features[0, 0].astype(int) + 1

    return Policy("reading", jnp.asarray(0), decide, learn)


def numbered(number: Array, key: Array) -> Traffic:
    """A batch whose only feature is its number."""
    features = jnp.broadcast_to(number.astype(float), (BATCH, N_ARMS, 1))
    request = Request(features, jnp.ones((BATCH, N_ARMS), bool))
    return Traffic(request, jnp.zeros((BATCH, N_ARMS)), BATCH)


@pytest.mark.parametrize("wait", [0, 1, 3])
def test_each_batch_is_learnt_once_in_its_order_and_after_the_wait(wait: int) -> None:
    policy = delayed(reading(), wait, BATCH, 1)
    _, steps = jax.jit(lambda key: play(policy, steady(numbered), N_BATCHES, key))(jax.random.key(0))
    # While batch n is played, n - 1 - wait is the last one learnt, and its successor's number is shown.
    wanted = np.maximum(np.arange(N_BATCHES) - wait, 0)
    assert_array_equal(np.asarray(steps.shown).argmax(axis=1), wanted)
    assert_allclose(np.asarray(steps.shown).max(axis=1), BATCH)


def test_a_policy_may_count_its_traffic_before_it_knows_what_came_of_it() -> None:
    policy = delayed(reading(), 3, 1, 1, as_of=lambda known, played: played.astype(int))
    _, steps = jax.jit(lambda key: play(policy, steady(one), N_BATCHES, key))(jax.random.key(0))
    assert_array_equal(np.asarray(steps.shown).argmax(axis=1), np.arange(N_BATCHES))


def one(number: Array, key: Array) -> Traffic:
    traffic = numbered(number, key)
    return Traffic(jax.tree.map(lambda leaf: leaf[:1], traffic.requests), traffic.truth[:1], 1)
