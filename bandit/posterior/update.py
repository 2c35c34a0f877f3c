"""The online update: an arrow information filter over mini-batches."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from bandit.posterior.change import Change, OwnRows, apply
from bandit.posterior.linalg import cho_solve, cholesky, gram
from bandit.posterior.sites import SiteInfo, Sites, find_sites
from bandit.posterior.state import State, predict


class Rows(NamedTuple):
    """Outcomes to learn from; rows of one arm may repeat, rows with no impressions are padding.

    Attributes:
        features: design rows φ.
        arm: index of the arm.
        campaign: index of the arm's campaign.
        impressions: n, as float64.
        clicks: c, as float64.
    """

    features: Float[Array, "rows dim"]
    arm: Int[Array, "rows"]
    campaign: Int[Array, "rows"]
    impressions: Float[Array, "rows"]
    clicks: Float[Array, "rows"]


def update(state: State, rows: Rows) -> tuple[State, SiteInfo]:
    """Learn one mini-batch: `learn`, then `apply`.

    Args:
        state: the posterior before.
        rows: at most a few hundred rows; their order does not matter.

    Returns:
        The posterior after, and how the search for the sites went.
    """
    change, info = learn(state, rows)
    return apply(state, change), info


def learn(state: State, rows: Rows) -> tuple[Change, SiteInfo]:
    """Return what a mini-batch changes, and how the search for its sites went.

    Nothing in it is as long as the state, which may be large, and stays as it is.
    """
    before = predict(state, rows.features, rows.arm, rows.campaign)
    sites, _, info = find_sites(before, rows.impressions, rows.clicks)
    return added(state, rows, sites), info


def absorb(state: State, rows: Rows, sites: Sites) -> State:
    """Add given sites to the information; exact. `added`, then `apply`."""
    return apply(state, added(state, rows, sites))


def added(state: State, rows: Rows, sites: Sites) -> Change:
    """Return what given sites change; exact.

        P += Σ W φφᵀ    h += Σ t φ    u_a += Σ W φ    q_a += Σ W    k_a += Σ t

    With z = φ − u/q − r v/c before and z' after, and o = k/q + r l/c before, the eliminated equations follow:

        S⁻¹ += Σ W z z'ᵀ    right-hand side += Σ (t − W o) z'

    which is Σ W z zᵀ less what the batch's arms and campaigns take up. (Eliminate a row's arm, then its
    campaign, from (z·w + r β + ε − logit)² W: each elimination subtracts a weighted mean from z.)
    """
    weight, information = sites
    n_rows = rows.impressions.shape[0]
    n_arms, n_campaigns = state.arm_precision.shape[0], state.campaign_precision.shape[0]
    # Padding may name an arm beside a campaign that is not its own; past the end it counts for nothing.
    is_real = rows.impressions > 0
    row_arm = jnp.where(is_real, rows.arm, n_arms)
    row_campaign = jnp.where(is_real, rows.campaign, n_campaigns)
    # Distinct arms are at most as many as rows, and as arms with the place past the end.
    arms = jnp.unique(row_arm, size=min(n_rows, n_arms + 1), fill_value=n_arms)
    campaigns = jnp.unique(row_campaign, size=min(n_rows, n_campaigns + 1), fill_value=n_campaigns)
    own = jnp.searchsorted(arms, row_arm)
    shared = jnp.searchsorted(campaigns, row_campaign)
    arms_shared = jnp.zeros_like(arms).at[own].set(shared.astype(arms.dtype))

    prior = state.prior.arm_scale**-2
    q = state.arm_precision.at[arms].get(mode="fill", fill_value=1.0)
    u = state.arm_cross.at[arms].get(mode="fill", fill_value=0.0)
    k = state.arm_information.at[arms].get(mode="fill", fill_value=0.0)
    c = state.campaign_precision.at[campaigns].get(mode="fill", fill_value=1.0)
    v = state.campaign_cross.at[campaigns].get(mode="fill", fill_value=0.0)
    pull = state.campaign_information.at[campaigns].get(mode="fill", fill_value=0.0)
    r = prior / q
    z = rows.features - (u / q[:, None])[own] - r[own][:, None] * (v / c[:, None])[shared]
    o = (k / q)[own] + r[own] * (pull / c)[shared]

    weighted = weight[:, None] * rows.features
    new_q, new_u, new_k = q.at[own].add(weight), u.at[own].add(weighted), k.at[own].add(information)
    new_r = prior / new_q
    new_c = c.at[arms_shared].add((new_q - prior) * new_r - (q - prior) * r)
    new_v = v.at[arms_shared].add(new_r[:, None] * new_u - r[:, None] * u)
    new_pull = pull.at[arms_shared].add(new_r * new_k - r * k)
    new_z = rows.features - (new_u / new_q[:, None])[own]
    new_z -= new_r[own][:, None] * (new_v / new_c[:, None])[shared]

    reduced_precision = state.reduced_precision + gram(z, weight[:, None] * new_z)
    reduced_information = state.reduced_information + (information - weight * o) @ new_z
    factor, weights = _solved(reduced_precision, reduced_information)
    return Change(
        precision=state.precision + gram(weighted, rows.features),
        information=state.information + information @ rows.features,
        arms=arms,
        campaigns=campaigns,
        rows=OwnRows(new_u, new_q, new_k, new_c, new_v, new_pull),
        reduced_precision=reduced_precision,
        reduced_information=reduced_information,
        factor=factor,
        weights=weights,
    )


def factored(state: State) -> State:
    """Return the state with factor and weights solved from its reduced equations."""
    factor, weights = _solved(state.reduced_precision, state.reduced_information)
    return state._replace(factor=factor, weights=weights)


def _solved(precision: Array, information: Array) -> tuple[Array, Array]:
    factor = cholesky(precision)
    return factor, cho_solve(factor, information)
