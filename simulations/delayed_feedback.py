"""Feedback that comes late: a policy learns each batch some batches after it has played it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from bandit.policy.randomness import Uniforms
from bandit.policy.thompson import Choice
from simulations.policies.base import Outcomes, Policy, Request


class Waiting(NamedTuple):
    """A policy and what it does not know yet.

    Attributes:
        known: the policy's own state.
        pending: outcomes of the last batches, batch n at place n modulo their number, leaves [batches, …].
        played: batches played.
    """

    known: Any
    pending: Outcomes
    played: Float[Array, ""]


def known_as_of(known: Any, played: Array) -> Any:
    """Return the state as it is: what most policies choose from."""
    return known


def delayed(
    policy: Policy,
    wait: int,
    batch: int,
    n_features: int,
    as_of: Callable[[Any, Array], Any] = known_as_of,
) -> Policy:
    """Let a policy learn every batch after as many further batches were played.

    Args:
        policy: who plays.
        wait: batches; 0 returns the policy as it is.
        batch: impressions of each.
        n_features: width of the design rows.
        as_of: (state, impressions played) -> the state from which the policy chooses; for policies that
            count their traffic and not only what they have learnt.
    """
    if wait == 0:
        return policy
    nothing = Outcomes(
        jnp.zeros((wait, batch, n_features)), jnp.zeros((wait, batch), int), jnp.zeros((wait, batch))
    )

    def now(state: Waiting) -> Any:
        return as_of(state.known, state.played * batch)

    def decide(state: Waiting, request: Request, uniforms: Uniforms) -> Choice:
        return policy.choose(now(state), request, uniforms)

    def learn(state: Waiting, outcomes: Outcomes) -> Waiting:
        place = (state.played % wait).astype(int)
        oldest = jax.tree.map(lambda leaf: leaf[place], state.pending)
        known = jax.lax.cond(
            state.played >= wait, lambda known: policy.learn(known, oldest), lambda known: known, state.known
        )
        pending = jax.tree.map(lambda leaf, new: leaf.at[place].set(new), state.pending, outcomes)
        return Waiting(known, pending, state.played + 1)

    start = Waiting(policy.start, nothing, jnp.zeros(()))
    late = Policy(policy.name, start, decide, learn)
    if (tell := policy.tell) is None:
        return late
    return late._replace(tell=lambda state, *request: tell(now(state), *request))
