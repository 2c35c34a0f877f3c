"""Forgetting: a step of its own between updates, so that click rates may drift."""

import jax.numpy as jnp
from jax import Array

from bandit.posterior.schur import eliminate
from bandit.posterior.state import State


def forget(state: State, decay: Array | float, arm_campaign: Array) -> State:
    """Forget a part of what the data taught; what the prior says stays.

        P ← γP + (1 − γ) P_prior        and likewise h, u, q, k

    Args:
        state: the posterior.
        decay: γ, the part of all information from data that is decay, 0 to 1.
        arm_campaign: each arm's campaign, [arms].

    Returns:
        The posterior to which every site so far contributes γ of what it did.

    References:
        R. Kulhavý, M. B. Zarrop, "On a general concept of forgetting", International Journal of Control 58,
        1993: exponential forgetting toward an alternative distribution, here the prior.
    """
    prior_precision = state.prior.scale**-2
    prior_arm = state.prior.arm_scale**-2
    return eliminate(
        state._replace(
            precision=decay * state.precision + (1 - decay) * jnp.diag(prior_precision),
            information=decay * state.information + (1 - decay) * prior_precision * state.prior.mean,
            arm_cross=decay * state.arm_cross,
            arm_precision=decay * state.arm_precision + (1 - decay) * prior_arm,
            arm_information=decay * state.arm_information,
        ),
        arm_campaign,
    )
