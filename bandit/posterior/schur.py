"""Arms and campaigns eliminated from all of a state at once: what a refit and a restored snapshot need."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from bandit.posterior.chunks import over_chunks
from bandit.posterior.linalg import gram
from bandit.posterior.state import State
from bandit.posterior.update import factored


def eliminate(state: State, arm_campaign: Array) -> State:
    """Rebuild all that follows from the weights' and arms' information: Schur sums, factor and means.

        c_g = 1/σ_b² + Σ s r    v_g = Σ r u    l_g = Σ r k
        S⁻¹ = P − Σ u uᵀ/q − Σ v vᵀ/c    right-hand side = h − Σ u k/q − Σ v l/c

    Args:
        state: precision, information and the arms' three arrays count; the rest is replaced.
        arm_campaign: each arm's campaign, [arms].

    Returns:
        The state those stand for.
    """
    n_arms, n_campaigns = state.arm_precision.shape[0], state.campaign_precision.shape[0]
    blank = state._replace(
        campaign_precision=jnp.full_like(state.campaign_precision, state.prior.campaign_scale**-2),
        campaign_cross=jnp.zeros_like(state.campaign_cross),
        campaign_information=jnp.zeros_like(state.campaign_information),
        reduced_precision=state.precision,
        reduced_information=state.information,
    )
    shared = over_chunks(n_arms, lambda sums, arms: _less_arms(sums, state, arms, arm_campaign), _sums(blank))
    shared = over_chunks(n_campaigns, _less_campaigns, shared)
    return factored(state._replace(**shared._asdict()))


class _Sums(NamedTuple):
    """The fields of `State` that sums over arms and campaigns give."""

    campaign_precision: Float[Array, "campaigns"]
    campaign_cross: Float[Array, "campaigns dim"]
    campaign_information: Float[Array, "campaigns"]
    reduced_precision: Float[Array, "dim dim"]
    reduced_information: Float[Array, "dim"]


def _sums(state: State) -> _Sums:
    return _Sums(*(getattr(state, name) for name in _Sums._fields))


def _less_arms(sums: _Sums, state: State, arms: Array, arm_campaign: Array) -> _Sums:
    """Take some arms out; an index past the end counts for nothing."""
    prior = state.prior.arm_scale**-2
    q = state.arm_precision.at[arms].get(mode="fill", fill_value=1.0)
    u = state.arm_cross.at[arms].get(mode="fill", fill_value=0.0)
    k = state.arm_information.at[arms].get(mode="fill", fill_value=0.0)
    into = arm_campaign.at[arms].get(mode="fill", fill_value=sums.campaign_precision.shape[0])
    r = prior / q
    scaled = u / q[:, None]
    return _Sums(
        sums.campaign_precision.at[into].add((q - prior) * r, mode="drop"),
        sums.campaign_cross.at[into].add(r[:, None] * u, mode="drop"),
        sums.campaign_information.at[into].add(r * k, mode="drop"),
        sums.reduced_precision - gram(scaled, u),
        sums.reduced_information - k @ scaled,
    )


def _less_campaigns(sums: _Sums, campaigns: Array) -> _Sums:
    """Take some campaigns out; an index past the end counts for nothing."""
    c = sums.campaign_precision.at[campaigns].get(mode="fill", fill_value=1.0)
    v = sums.campaign_cross.at[campaigns].get(mode="fill", fill_value=0.0)
    information = sums.campaign_information.at[campaigns].get(mode="fill", fill_value=0.0)
    scaled = v / c[:, None]
    return sums._replace(
        reduced_precision=sums.reduced_precision - gram(scaled, v),
        reduced_information=sums.reduced_information - information @ scaled,
    )
