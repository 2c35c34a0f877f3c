"""The online update: an arrow information filter over mini-batches."""

from typing import NamedTuple

import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jax import Array
from jaxtyping import Float, Int

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
    """Learn one mini-batch.

    Args:
        state: the posterior before.
        rows: at most a few hundred rows; their order does not matter.

    Returns:
        The posterior after, and how the search for the sites went.
    """
    before = predict(state, rows.features, rows.arm, rows.campaign)
    sites, _, info = find_sites(before, rows.impressions, rows.clicks)
    return absorb(state, rows, sites), info


def absorb(state: State, rows: Rows, sites: Sites) -> State:
    """Add given sites to the information; exact.

        P += Σ W φφᵀ    h += Σ t φ    u_a += Σ W φ    q_a += Σ W    k_a += Σ t

    and the Schur sums change by the terms of touched arms and campaigns only.
    """
    weighted = sites.weight[:, None] * rows.features
    gram = weighted.T @ rows.features
    informed = sites.information @ rows.features
    n_arms, n_campaigns = state.arm_precision.shape[0], state.campaign_precision.shape[0]
    # Padding may name an arm beside a campaign that is not its own; past the end it counts for nothing.
    is_real = rows.impressions > 0
    row_arm = jnp.where(is_real, rows.arm, n_arms)
    row_campaign = jnp.where(is_real, rows.campaign, n_campaigns)
    # Distinct arms are at most as many as rows, and as arms with the place past the end.
    n_rows = row_arm.shape[0]
    arms = jnp.unique(row_arm, size=min(n_rows, n_arms + 1), fill_value=n_arms)
    first = jnp.searchsorted(arms, row_arm)
    arms_campaign = jnp.full_like(arms, n_campaigns).at[first].set(row_campaign.astype(arms.dtype))
    campaigns = jnp.unique(row_campaign, size=min(n_rows, n_campaigns + 1), fill_value=n_campaigns)

    added = state._replace(
        precision=state.precision + gram,
        information=state.information + informed,
        arm_cross=state.arm_cross.at[row_arm].add(weighted),
        arm_precision=state.arm_precision.at[row_arm].add(sites.weight),
        arm_information=state.arm_information.at[row_arm].add(sites.information),
    )
    old, new = arm_terms(state, arms), arm_terms(added, arms)
    into = arms_campaign
    added = added._replace(
        campaign_precision=added.campaign_precision.at[into].add(new.precision - old.precision, mode="drop"),
        campaign_cross=added.campaign_cross.at[into].add(new.cross - old.cross, mode="drop"),
        campaign_information=added.campaign_information.at[into].add(
            new.information - old.information, mode="drop"
        ),
    )
    old_campaigns, new_campaigns = campaign_terms(state, campaigns), campaign_terms(added, campaigns)
    return factored(
        added._replace(
            reduced_precision=state.reduced_precision
            + gram
            - (new.gram - old.gram)
            - (new_campaigns.gram - old_campaigns.gram),
            reduced_information=state.reduced_information
            + informed
            - (new.informed - old.informed)
            - (new_campaigns.informed - old_campaigns.informed),
        )
    )


class ArmTerms(NamedTuple):
    """What some arms put into the eliminated equations.

    Attributes:
        precision: s r, into c of the arm's campaign.
        cross: r u, into v.
        information: r k, into l.
        gram: Σ u uᵀ/q.
        informed: Σ u k/q.
    """

    precision: Float[Array, "arms"]
    cross: Float[Array, "arms dim"]
    information: Float[Array, "arms"]
    gram: Float[Array, "dim dim"]
    informed: Float[Array, "dim"]


def arm_terms(state: State, arms: Array) -> ArmTerms:
    """Return the terms of some arms; an index past the end counts for nothing."""
    prior = state.prior.arm_scale**-2
    q = state.arm_precision.at[arms].get(mode="fill", fill_value=1.0)
    u = state.arm_cross.at[arms].get(mode="fill", fill_value=0.0)
    k = state.arm_information.at[arms].get(mode="fill", fill_value=0.0)
    r = prior / q
    scaled = u / q[:, None]
    return ArmTerms((q - prior) * r, r[:, None] * u, r * k, scaled.T @ u, k @ scaled)


class CampaignTerms(NamedTuple):
    """What some campaigns put into the eliminated equations: Σ v vᵀ/c and Σ v l/c."""

    gram: Float[Array, "dim dim"]
    informed: Float[Array, "dim"]


def campaign_terms(state: State, campaigns: Array) -> CampaignTerms:
    """Return the terms of some campaigns; an index past the end counts for nothing."""
    c = state.campaign_precision.at[campaigns].get(mode="fill", fill_value=1.0)
    v = state.campaign_cross.at[campaigns].get(mode="fill", fill_value=0.0)
    information = state.campaign_information.at[campaigns].get(mode="fill", fill_value=0.0)
    scaled = v / c[:, None]
    return CampaignTerms(scaled.T @ v, information @ scaled)


def factored(state: State) -> State:
    """Return the state with factor and weights solved from its reduced equations."""
    factor = jnp.linalg.cholesky(state.reduced_precision)
    return state._replace(factor=factor, weights=jsl.cho_solve((factor, True), state.reduced_information))
