"""The one loop: what it pays, what it lets a policy see, and when."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from bandit.policy.randomness import Uniforms
from bandit.policy.thompson import Choice
from simulations.loop import Step, Traffic, play, play_batch, play_total, steady
from simulations.policies.base import Counts, Outcomes, Policy, Request, certain, no_counts, uniform

pytestmark = pytest.mark.usefixtures("double_precision")

RATES = np.array([0.1, 0.3, 0.2, 0.0])
ELIGIBLE = np.array([True, True, True, False])
BATCH, N_BATCHES, N_ARMS = 50, 40, 4
N = BATCH * N_BATCHES


def shared_traffic(number: Array, key: Array, eligible: Array = ELIGIBLE) -> Traffic:
    """One request that all impressions share."""
    return Traffic(
        Request(jnp.zeros((1, N_ARMS, 0)), jnp.asarray(eligible)[None]), jnp.asarray(RATES)[None], BATCH
    )


def tiled_traffic(number: Array, key: Array) -> Traffic:
    """The same, a request each."""
    request = Request(jnp.zeros((BATCH, N_ARMS, 0)), jnp.tile(jnp.asarray(ELIGIBLE), (BATCH, 1)))
    return Traffic(request, jnp.tile(jnp.asarray(RATES), (BATCH, 1)), BATCH)


def changing_traffic(number: Array, key: Array) -> Traffic:
    """Requests whose rates differ; each arm's features are its rate and its index."""
    truth = jax.random.uniform(key, (BATCH, N_ARMS), float)
    index = jnp.broadcast_to(jnp.arange(N_ARMS, dtype=float), truth.shape)
    return Traffic(
        Request(jnp.stack([truth, index], axis=-1), jnp.tile(jnp.asarray(ELIGIBLE), (BATCH, 1))), truth, BATCH
    )


def always(arm: Array | int) -> Policy:
    def decide(state: Counts, request: Request, uniforms: Uniforms) -> Choice:
        return certain(jnp.eye(N_ARMS)[arm], request.eligible)

    return Policy("always", no_counts(N_ARMS), decide, Counts.plus)


@partial(jax.jit, static_argnums=(0, 1))
def played(policy_name: str, traffic_name: str, key: Array, eligible: Array = ELIGIBLE) -> tuple[Any, Step]:
    policy = {"uniform": uniform(N_ARMS), "turns": in_turns(), "best": sees_rates()}[policy_name]
    traffic = {
        "shared": partial(shared_traffic, eligible=eligible),
        "tiled": tiled_traffic,
        "changing": changing_traffic,
    }[traffic_name]
    return play(policy, steady(traffic), N_BATCHES, key)


class Seen(NamedTuple):
    """What a policy saw: batches learnt, and the last one."""

    batches: Array
    last: Outcomes


def in_turns() -> Policy:
    """Return a policy that moves to the next arm with every batch it learns, and keeps the last batch."""
    nothing = Outcomes(jnp.zeros((BATCH, 0)), jnp.zeros(BATCH, int), jnp.zeros(BATCH))

    def decide(state: Seen, request: Request, uniforms: Uniforms) -> Choice:
        return certain(jnp.arange(N_ARMS) == state.batches % 3, request.eligible)

    return Policy("turns", Seen(jnp.array(0), nothing), decide, lambda s, new: Seen(s.batches + 1, new))


def sees_rates() -> Policy:
    """Return a policy that shows the arm with the largest first feature, and keeps the last batch."""
    nothing = Outcomes(jnp.zeros((BATCH, 2)), jnp.zeros(BATCH, int), jnp.zeros(BATCH))

    def decide(state: Seen, request: Request, uniforms: Uniforms) -> Choice:
        return certain(request.features[:, 0], request.eligible)

    return Policy("best", Seen(jnp.array(0), nothing), decide, lambda s, new: Seen(s.batches + 1, new))


def test_one_arm_earns_its_rate_and_gets_clicks_at_that_rate() -> None:
    only = np.arange(N_ARMS) == 1
    counts, steps = played("uniform", "shared", jax.random.key(0), only)
    np.testing.assert_allclose(steps.earned, BATCH * 0.3)
    np.testing.assert_allclose(steps.best, BATCH * 0.3)
    np.testing.assert_allclose(steps.uniform, BATCH * 0.3)
    np.testing.assert_array_equal(counts.impressions, [0, N, 0, 0])
    np.testing.assert_array_equal(np.asarray(steps.shown).sum(axis=0), counts.impressions)
    assert abs(float(counts.clicks[1]) - 0.3 * N) < 5 * np.sqrt(N * 0.3 * 0.7)
    assert set(np.unique(counts.clicks % 1)) == {0}


def test_uniform_earns_the_mean_rate() -> None:
    counts, steps = played("uniform", "shared", jax.random.key(1))
    np.testing.assert_allclose(steps.uniform, BATCH * 0.2, err_msg="the mean of the eligible arms")
    np.testing.assert_allclose(steps.best, BATCH * 0.3)
    error = RATES[ELIGIBLE].std() * np.sqrt(N)
    assert abs(float(steps.earned.sum()) - 0.2 * N) < 5 * error
    shown = np.asarray(steps.shown).sum(axis=0)
    assert shown[3] == 0
    assert shown.sum() == N
    assert np.abs(shown[:3] - N / 3).max() < 5 * np.sqrt(N * 2 / 9)
    clicks = np.asarray(counts.clicks)
    assert (np.abs(clicks - shown * RATES) <= 5 * np.sqrt(shown * RATES * (1 - RATES))).all()


def test_a_shared_request_plays_like_one_request_each() -> None:
    shared, tiled = (played("uniform", traffic, jax.random.key(2)) for traffic in ("shared", "tiled"))
    jax.tree.map(np.testing.assert_array_equal, shared[0], tiled[0])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12), shared[1], tiled[1])


def test_clicks_are_seen_after_the_batch_only() -> None:
    seen, steps = played("turns", "shared", jax.random.key(3))
    arm_of_batch = np.asarray(steps.shown).argmax(axis=1)
    np.testing.assert_array_equal(np.asarray(steps.shown).max(axis=1), BATCH)
    np.testing.assert_array_equal(arm_of_batch, np.arange(N_BATCHES) % 3)
    assert int(seen.batches) == N_BATCHES
    np.testing.assert_array_equal(seen.last.chosen, (N_BATCHES - 1) % 3)


def test_every_impression_has_its_own_request() -> None:
    seen, steps = played("best", "changing", jax.random.key(4))
    # The fourth arm is not eligible, however high its rate: neither the policy nor the best may count on it.
    np.testing.assert_allclose(steps.earned, steps.best, rtol=1e-12)
    assert float(steps.uniform.sum()) == pytest.approx(N / 2, abs=5 * np.sqrt(N / 36))
    assert float(steps.best.sum()) == pytest.approx(N * 3 / 4, abs=5 * np.sqrt(N * 3 / 80))
    # What is learnt belongs to the arm that was shown: its index is the second feature.
    np.testing.assert_array_equal(seen.last.features[:, 1], seen.last.chosen)
    rate, clicks = np.asarray(seen.last.features[:, 0]), np.asarray(seen.last.clicks)
    assert set(np.unique(clicks)) <= {0.0, 1.0}
    assert abs(clicks.sum() - rate.sum()) < 5 * np.sqrt((rate * (1 - rate)).sum())


def test_totals_are_the_sums_of_the_steps() -> None:
    key = jax.random.key(5)
    state, steps = played("uniform", "shared", key)
    total_state, total = jax.jit(lambda n, key: play_total(uniform(N_ARMS), shared_traffic, n, key))(
        N_BATCHES, key
    )
    jax.tree.map(np.testing.assert_array_equal, state, total_state)
    assert steps.record is None, "uniform expects no click rates"
    for name, summed, each in zip(Step._fields[:-1], total[:-1], steps[:-1], strict=True):
        np.testing.assert_allclose(summed, np.asarray(each).sum(axis=0), rtol=1e-12, err_msg=name)


def test_uniform_numbers_are_the_keys_and_the_same_for_every_policy() -> None:
    first, again, other = (played("uniform", "shared", jax.random.key(seed))[0] for seed in (6, 6, 7))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (np.asarray(first.clicks) != np.asarray(other.clicks)).any()

    # An impression that would click at 20 % also clicks at 30 %.
    @jax.jit
    def clicks_of(arm: Array) -> Array:
        everything = Policy("all", None, always(arm).choose, lambda _, outcomes: outcomes.clicks)
        return play_batch(everything, None, shared_traffic(arm, key), key)[0]

    key = jax.random.key(8)
    many, few = np.asarray(clicks_of(1)), np.asarray(clicks_of(2))
    assert (many >= few).all()
    assert many.sum() > few.sum()
