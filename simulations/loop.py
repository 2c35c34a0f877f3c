"""The one loop: a policy plays a world in batches; rewards are seen after the batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from bandit.policy.randomness import Uniforms
from simulations.calibration import Record, record_of
from simulations.policies.base import Outcomes, Policy, Request

# Propensities cost as much as all else of a choice, and nothing where they are not read: one in eight is.
COUNTED_EVERY = 8


class Traffic(NamedTuple):
    """One batch of impressions as the world makes it; only the loop reads the truth.

    Attributes:
        requests: one per impression, leaves [batch, …]; or a single one, [1, …], that all impressions share,
            so that a policy computes what does not depend on the impression once.
        truth: click rates, likewise.
        size: impressions in the batch.
        reported: rates at which policies are told of clicks, likewise; None for the truth.
    """

    requests: Request
    truth: Float[Array, "requests arms"]
    size: int
    reported: Float[Array, "requests arms"] | None = None


class Step(NamedTuple):
    """What one batch earned, in expected clicks.

    Attributes:
        earned: of the shown arms.
        best: of the best arm of each impression.
        uniform: of all eligible arms alike.
        shown: impressions of each arm.
        record: what the policy said of its choices; None when it expects no click rates. `play` gives the
            sum over its batches.
    """

    earned: Float[Array, ""]
    best: Float[Array, ""]
    uniform: Float[Array, ""]
    shown: Float[Array, "arms"]
    record: Record | None = None


def uniforms_of_key(key: Array, size: int) -> Uniforms:
    """Return the uniform numbers of the decisions of a batch, leaves [size]."""
    key_set, key_uniform = jax.random.split(key)
    uniform = jax.random.uniform(key_uniform, (len(Uniforms._fields) - 1, size), float)
    return Uniforms(jax.random.bits(key_set, (size,), jnp.uint32), *uniform)


def play_batch(policy: Policy, state: Any, traffic: Traffic, key: Array) -> tuple[Any, Step]:
    """Let a policy play one batch and learn from it.

    Args:
        policy: who plays.
        state: its state.
        traffic: the batch.
        key: randomness of this batch; the same key gives every policy the same uniform numbers.

    Returns:
        The policy's state after, and what the batch earned.
    """
    key_uniforms, key_clicks = jax.random.split(key)
    size, n_requests = traffic.size, traffic.truth.shape[0]
    uniforms = uniforms_of_key(key_uniforms, size)
    is_shared = n_requests == 1
    request = jax.tree.map(lambda leaf: leaf[0], traffic.requests) if is_shared else traffic.requests
    places = (None, None if is_shared else 0, 0)
    expected = None
    if policy.tell is None:
        choice = jax.vmap(policy.choose, in_axes=places)(state, request, uniforms)
    else:
        choice, expected = jax.vmap(policy.tell, in_axes=places)(state, request, uniforms)
    chosen = choice.chosen
    of_request = jnp.arange(size) if n_requests > 1 else jnp.zeros(size, int)
    rate = traffic.truth[of_request, chosen]
    told = rate if traffic.reported is None else traffic.reported[of_request, chosen]
    clicks = (jax.random.uniform(key_clicks, (size,)) < told).astype(rate.dtype)
    features = traffic.requests.features[of_request, chosen]
    eligible = traffic.requests.eligible
    known = jnp.where(eligible, traffic.truth, 0.0)
    per_request = size // n_requests
    step = Step(
        earned=rate.sum(),
        best=jnp.max(known, axis=1).sum() * per_request,
        uniform=(jnp.sum(known, axis=1) / eligible.sum(axis=1)).sum() * per_request,
        shown=jnp.zeros(traffic.truth.shape[1]).at[chosen].add(1.0),
    )
    if expected is not None:
        some = jnp.arange(0, size, COUNTED_EVERY)
        asked = request if is_shared else jax.tree.map(lambda leaf: leaf[some], request)
        again = jax.vmap(policy.choose, in_axes=places)(
            state, asked, jax.tree.map(lambda leaf: leaf[some], uniforms)
        )
        probability = again.propensities[jnp.arange(len(some)), chosen[some]]
        step = step._replace(record=record_of(expected, clicks, probability))
    return policy.learn(state, Outcomes(features, chosen, clicks)), step


class Scene(NamedTuple):
    """A world that remembers: what it has become is carried from batch to batch.

    Attributes:
        start: what it is before the first batch.
        traffic_at: (what it has become, batch number, key) -> the batch.
        advance: (what it has become, batch number, key, impressions of each arm in the batch) -> what it is
            at the next batch; the key is the one that `traffic_at` had.
    """

    start: Any
    traffic_at: Callable[[Any, Array, Array], Traffic]
    advance: Callable[[Any, Array, Array, Array], Any]


def steady(traffic_at: Callable[[Array, Array], Traffic]) -> Scene:
    """Return the scene of a world that remembers nothing: (batch number, key) -> the batch."""
    return Scene((), lambda _, number, key: traffic_at(number, key), lambda now, *_: now)


def truthful(scene: Scene) -> Scene:
    """Return the same world for `policies.oracle`: requests have the true click rates as their features."""

    def traffic_at(now: Any, number: Array, key: Array) -> Traffic:
        traffic = scene.traffic_at(now, number, key)
        return traffic._replace(requests=traffic.requests._replace(features=traffic.truth[..., None]))

    return scene._replace(traffic_at=traffic_at)


def play(
    policy: Policy, scene: Scene, n_batches: Array | int, key: Array, room: int | None = None
) -> tuple[Any, Step]:
    """Let a policy play a number of batches.

    Args:
        policy: who plays.
        scene: the world.
        n_batches: how many; it may be known only at run time if there is room.
        key: all randomness of this run.
        room: at least as many; None for as many.

    Returns:
        The policy's last state and every batch's `Step`, leaves [room, …], 0 after the last batch; the
        record is summed.
    """
    room = int(n_batches) if room is None else room

    def one(number: Array, state: Any, now: Any) -> tuple[Any, Any, Step]:
        key_traffic, key_play = jax.random.split(jax.random.fold_in(key, number))
        state, step = play_batch(policy, state, scene.traffic_at(now, number, key_traffic), key_play)
        return state, scene.advance(now, number, key_traffic, step.shown), step

    def body(number: Array, carry: tuple[Any, Any, Step]) -> tuple[Any, Any, Step]:
        state, now, steps = carry
        state, now, step = one(number, state, now)
        record = jax.tree.map(jnp.add, steps.record, step.record)
        leaves, new = steps._replace(record=None), step._replace(record=None)
        leaves = jax.tree.map(lambda all_, leaf: all_.at[number].set(leaf), leaves, new)
        return state, now, leaves._replace(record=record)

    *_, shape = jax.eval_shape(one, jnp.asarray(0), policy.start, scene.start)
    nothing = shape._replace(record=None)
    nothing = jax.tree.map(lambda leaf: jnp.zeros((room, *leaf.shape), leaf.dtype), nothing)
    nothing = nothing._replace(record=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shape.record))
    state, _, steps = jax.lax.fori_loop(0, n_batches, body, (policy.start, scene.start, nothing))
    return state, steps


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
