"""What people read of the posterior: click rates, intervals, what a change may be worth; from joint draws."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from bandit.posterior.linalg import solve_upper
from bandit.posterior.state import State

N_DRAWS = 1000  # places the end of a 95 % interval within a tenth of a standard deviation


class Summary(NamedTuple):
    """Per arm, [arms] each; rates are fractions.

    Attributes:
        ctr: posterior mean.
        low: 2.5 % quantile.
        high: 97.5 % quantile.
        p_best: share of draws in which it is the best eligible arm.
        expected_loss: mean of (best eligible arm's rate − its own), at least 0 for eligible arms.
        value_remaining: 95 % quantile of (best eligible arm's rate − its own) / its own, likewise: what a
            change of arms may still be worth. An experiment can end when that of the best arm is small.

    References:
        S. L. Scott, "Multi-armed bandit experiments in the online service economy", Applied Stochastic
        Models in Business and Industry, 2015, section 3.
    """

    ctr: Float[Array, "arms"]
    low: Float[Array, "arms"]
    high: Float[Array, "arms"]
    p_best: Float[Array, "arms"]
    expected_loss: Float[Array, "arms"]
    value_remaining: Float[Array, "arms"]


def summarise(
    state: State, features: Array, weight: Array, arm: Array, campaign: Array, eligible: Array, key: Array
) -> Summary:
    """Summarise one campaign's arms over some contexts.

    The joint posterior is drawn from the top down: w ~ N(w̄, S), then b | w ~ N((l − v·w)/c, 1/c), then
    e | w, b ~ N((k − u·w − s b)/q, 1/q). A draw's click rate of an arm is its mean over the contexts.

    Args:
        state: the posterior.
        features: φ of every context and arm, [contexts, arms, dim].
        weight: how much each context counts, [contexts]; sums to 1.
        arm: indices of the arms, [arms].
        campaign: index of the campaign, scalar.
        eligible: which arms compete, [arms]; at least one.
        key: randomness.

    Returns:
        The summary of each arm.
    """
    key_w, key_b, key_e = jax.random.split(key, 3)
    dim, n_arms = state.weights.shape[0], arm.shape[0]
    normal = jax.random.normal(key_w, (dim, N_DRAWS), float)
    w = state.weights[:, None] + solve_upper(state.factor, normal)
    c, q = state.campaign_precision[campaign], state.arm_precision[arm][:, None]
    b = (state.campaign_information[campaign] - state.campaign_cross[campaign] @ w) / c
    b += jax.random.normal(key_b, (N_DRAWS,), float) / jnp.sqrt(c)
    pull = state.arm_information[arm][:, None] - state.arm_cross[arm] @ w
    e = (pull - (q - state.prior.arm_scale**-2) * b[None, :]) / q
    e += jax.random.normal(key_e, (n_arms, N_DRAWS), float) / jnp.sqrt(q)

    def add_context(total: Array, context: tuple[Array, Array]) -> tuple[Array, None]:
        rows, share = context
        return total + share * jax.nn.sigmoid(rows @ w + b[None, :] + e), None

    rates, _ = jax.lax.scan(add_context, jnp.zeros((n_arms, N_DRAWS)), (features, weight))
    competing = jnp.where(eligible[:, None], rates, -jnp.inf)
    best = jnp.max(competing, axis=0)
    low, high = jnp.quantile(rates, jnp.array([0.025, 0.975]), axis=1)
    return Summary(
        ctr=rates.mean(axis=1),
        low=low,
        high=high,
        p_best=jnp.mean(competing == best[None, :], axis=1, dtype=float),
        expected_loss=jnp.mean(best[None, :] - rates, axis=1),
        value_remaining=jnp.quantile((best[None, :] - rates) / rates, 0.95, axis=1),
    )
