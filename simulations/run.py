"""The one loop: a policy plays a world in batches; rewards are seen after the batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from simulations.policies import Outcomes, Policy, Request


class Traffic(NamedTuple):
    """One batch of impressions as the world makes it; only the loop reads the truth."""

    requests: Request
    truth: Float[Array, "batch arms"]


class Step(NamedTuple):
    """What one batch earned, in expected clicks.

    Attributes:
        earned: of the shown arms.
        best: of the best arm of each impression.
        uniform: of all eligible arms alike.
        shown: impressions of each arm.
    """

    earned: Float[Array, ""]
    best: Float[Array, ""]
    uniform: Float[Array, ""]
    shown: Float[Array, "arms"]


def play_batch(policy: Policy, state: Any, traffic: Traffic, key: Array) -> tuple[Any, Step]:
    """Let a policy play one batch and learn from it.

    Args:
        policy: who plays.
        state: its state.
        traffic: the batch.
        key: randomness of this batch; the same key gives every policy the same luck.

    Returns:
        The policy's state after, and what the batch earned.
    """
    key_words, key_clicks = jax.random.split(key)
    size = traffic.truth.shape[0]
    words = jax.random.bits(key_words, (size, 3), jnp.uint32)
    chosen = jax.vmap(policy.choose, in_axes=(None, 0, 0))(state, traffic.requests, words).chosen
    rate = jnp.take_along_axis(traffic.truth, chosen[:, None], axis=1)[:, 0]
    clicks = (jax.random.uniform(key_clicks, (size,)) < rate).astype(rate.dtype)
    features = jnp.take_along_axis(traffic.requests.features, chosen[:, None, None], axis=1)[:, 0]
    eligible = traffic.requests.eligible
    step = Step(
        earned=rate.sum(),
        best=jnp.max(jnp.where(eligible, traffic.truth, 0.0), axis=1).sum(),
        uniform=(jnp.sum(jnp.where(eligible, traffic.truth, 0.0), axis=1) / eligible.sum(axis=1)).sum(),
        shown=jnp.zeros(traffic.truth.shape[1]).at[chosen].add(1.0),
    )
    return policy.learn(state, Outcomes(features, chosen, clicks)), step


def play(
    policy: Policy, traffic_at: Callable[[Array, Array], Traffic], n_batches: int, key: Array
) -> tuple[Any, Step]:
    """Let a policy play a number of batches.

    Args:
        policy: who plays.
        traffic_at: (batch number, key) -> the batch.
        n_batches: how many.
        key: all randomness of this run.

    Returns:
        The policy's last state and every batch's `Step`, leaves [batches, …].
    """

    def body(state: Any, number: Array) -> tuple[Any, Step]:
        key_traffic, key_play = jax.random.split(jax.random.fold_in(key, number))
        return play_batch(policy, state, traffic_at(number, key_traffic), key_play)

    return jax.lax.scan(body, policy.start, jnp.arange(n_batches))


def play_total(
    policy: Policy, traffic_at: Callable[[Array, Array], Traffic], n_batches: Array, key: Array
) -> tuple[Any, Step]:
    """Like `play`, for a number of batches known only at run time; returns the sums over batches."""

    def body(number: Array, carry: tuple[Any, Step]) -> tuple[Any, Step]:
        key_traffic, key_play = jax.random.split(jax.random.fold_in(key, number))
        state, step = play_batch(policy, carry[0], traffic_at(number, key_traffic), key_play)
        return state, jax.tree.map(jnp.add, carry[1], step)

    shapes = jax.eval_shape(lambda: traffic_at(jnp.asarray(0), key))
    zero = jnp.zeros(())
    none = Step(zero, zero, zero, jnp.zeros(shapes.truth.shape[1]))
    return jax.lax.fori_loop(0, n_batches, body, (policy.start, none))
