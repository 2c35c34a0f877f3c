"""The refit: the same equations on all counts at once, iterated to a fixed point.

A variational Gaussian fit whose gradient is averaged over each logit's uncertainty. It serves a warm start
from history, corrections, and a change of features.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from bandit.posterior.sites import LARGEST_STEP, Sites, site
from bandit.posterior.state import Prior, State, initial_state, predict_marginals
from bandit.posterior.update import Rows, factored

MAX_PASSES = 50
TOLERANCE = 1e-4  # logits


class RefitInfo(NamedTuple):
    """How the refit went.

    Attributes:
        passes: passes used.
        largest_step: the last pass's largest change of a logit.
    """

    passes: Int[Array, ""]
    largest_step: Float[Array, ""]


def assemble(prior: Prior, rows: Rows, sites: Sites, arm_campaign: Array, n_campaigns: int) -> State:
    """Build the posterior from all sites at once.

    Args:
        prior: what holds without data.
        rows: all rows.
        sites: their sites.
        arm_campaign: each arm's campaign, [arms]; an arm without rows may have any.
        n_campaigns: capacity for campaigns.

    Returns:
        The exact Gaussian given the sites; equal to absorbing them in any order.
    """
    n_arms = arm_campaign.shape[0]
    state = initial_state(prior, n_arms, n_campaigns)
    weighted = sites.weight[:, None] * rows.features
    state = state._replace(
        precision=state.precision + weighted.T @ rows.features,
        information=state.information + sites.information @ rows.features,
        arm_cross=state.arm_cross.at[rows.arm].add(weighted),
        arm_precision=state.arm_precision.at[rows.arm].add(sites.weight),
        arm_information=state.arm_information.at[rows.arm].add(sites.information),
    )
    return eliminate(state, arm_campaign)


def eliminate(state: State, arm_campaign: Array) -> State:
    """Rebuild all that follows from the weights' and arms' information: Schur sums, factor and means.

    Args:
        state: precision, information and the arms' three arrays count; the rest is replaced.
        arm_campaign: each arm's campaign, [arms].

    Returns:
        The state those stand for.
    """
    n_arms, n_campaigns = state.arm_precision.shape[0], state.campaign_precision.shape[0]
    arms = arm_terms(state, jnp.arange(n_arms))
    state = state._replace(
        campaign_precision=jnp.full_like(state.campaign_precision, state.prior.campaign_scale**-2)
        .at[arm_campaign]
        .add(arms.precision),
        campaign_cross=jnp.zeros_like(state.campaign_cross).at[arm_campaign].add(arms.cross),
        campaign_information=jnp.zeros_like(state.campaign_information)
        .at[arm_campaign]
        .add(arms.information),
    )
    campaigns = campaign_terms(state, jnp.arange(n_campaigns))
    precision = state.precision - arms.gram - campaigns.gram
    information = state.information - arms.informed - campaigns.informed
    factor, weights = factored(precision, information)
    return state._replace(
        reduced_precision=precision, reduced_information=information, factor=factor, weights=weights
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


def refit(prior: Prior, rows: Rows, arm_campaign: Array, n_campaigns: int) -> tuple[State, RefitInfo]:
    """Fit the posterior to all counts.

    Args:
        prior: what holds without data.
        rows: all rows; repeated (arm, φ) should come summed. Rows without impressions are padding.
        arm_campaign: each arm's campaign, [arms].
        n_campaigns: capacity for campaigns.

    Returns:
        The posterior at the fixed point, and how the search went.
    """

    def step(state: State, mean: Array) -> tuple[Array, Array, Array]:
        target, variance = predict_marginals(state, rows.features, rows.arm, rows.campaign)
        change = jnp.clip(target - mean, -LARGEST_STEP, LARGEST_STEP)
        return mean + change, variance, jnp.max(jnp.where(rows.impressions > 0, jnp.abs(change), 0.0))

    def fit(mean: Array, variance: Array) -> State:
        sites = site(mean, variance, rows.impressions, rows.clicks)
        return assemble(prior, rows, sites, arm_campaign, n_campaigns)

    def one_pass(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        mean, variance, passes, _ = carry
        mean, variance, moved = step(fit(mean, variance), mean)
        return mean, variance, passes + 1, moved

    def unsettled(carry: tuple[Array, Array, Array, Array]) -> Array:
        return (carry[3] >= TOLERANCE) & (carry[2] < MAX_PASSES)

    before = initial_state(prior, arm_campaign.shape[0], n_campaigns)
    mean, variance = predict_marginals(before, rows.features, rows.arm, rows.campaign)
    start = (mean, jnp.minimum(variance, 1.0), jnp.array(0), jnp.array(jnp.inf))
    mean, variance, passes, moved = jax.lax.while_loop(unsettled, one_pass, start)
    return fit(mean, variance), RefitInfo(passes, moved)
