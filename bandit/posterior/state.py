"""The posterior's state: Gaussian information over weights, campaign effects and arm effects.

    logit p(click | x, a in g) = w·φ(x, a) + b_g + e_a
    w ~ N(μ₀, diag s²)    b_g ~ N(0, σ_b²)    e_a ~ N(0, τ²)

The joint precision is an arrow: arms touch only the weights and their own campaign's effect, so they are
eliminated exactly (Schur complements) and only the weights' matrix is ever factored.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from bandit.posterior.linalg import solve_rows


class Prior(NamedTuple):
    """What is believed before any data.

    Attributes:
        mean: prior mean of each weight, in logits, [dim].
        scale: prior standard deviation of each weight, [dim].
        campaign_scale: σ_b, standard deviation of a campaign's effect.
        arm_scale: τ, standard deviation of an arm's own effect.
    """

    mean: Float[Array, "dim"]
    scale: Float[Array, "dim"]
    campaign_scale: Float[Array, ""]
    arm_scale: Float[Array, ""]


class State(NamedTuple):
    """The posterior after some data; float64 throughout.

    Symbols of the equations in brackets. An arm or campaign without data holds its prior, so a new one
    needs no step of its own: any unused index of the arrays serves.

    Attributes:
        precision: [P] of the weights, before arms and campaigns are eliminated.
        information: [h] the same, precision times mean.
        arm_cross: [u] per arm, sum of W φ.
        arm_precision: [q] per arm, 1/τ² + sum of W.
        arm_information: [k] per arm, sum of site information.
        campaign_precision: [c] per campaign, after its arms are eliminated.
        campaign_cross: [v] likewise.
        campaign_information: [l] likewise.
        reduced_precision: [S⁻¹] precision of the weights after arms and campaigns are eliminated.
        reduced_information: the right-hand side that belongs to it.
        factor: lower Cholesky factor of S⁻¹.
        weights: [w] posterior mean of the weights.
        prior: what holds without data; learnt scales are in it.
    """

    precision: Float[Array, "dim dim"]
    information: Float[Array, "dim"]
    arm_cross: Float[Array, "arms dim"]
    arm_precision: Float[Array, "arms"]
    arm_information: Float[Array, "arms"]
    campaign_precision: Float[Array, "campaigns"]
    campaign_cross: Float[Array, "campaigns dim"]
    campaign_information: Float[Array, "campaigns"]
    reduced_precision: Float[Array, "dim dim"]
    reduced_information: Float[Array, "dim"]
    factor: Float[Array, "dim dim"]
    weights: Float[Array, "dim"]
    prior: Prior


class Gaussian(NamedTuple):
    """A joint normal over logits: mean [rows], covariance [rows, rows]."""

    mean: Float[Array, "rows"]
    covariance: Float[Array, "rows rows"]


def initial_state(prior: Prior, n_arms: int, n_campaigns: int) -> State:
    """Return the state that holds the prior alone.

    Args:
        prior: scales and means, float64.
        n_arms: capacity for arms.
        n_campaigns: capacity for campaigns.

    Returns:
        A state whose every logit has its prior distribution.
    """
    dim, dtype = prior.mean.shape[0], prior.mean.dtype
    precision = jnp.diag(prior.scale**-2)
    information = prior.scale**-2 * prior.mean
    return State(
        precision=precision,
        information=information,
        arm_cross=jnp.zeros((n_arms, dim)),
        arm_precision=jnp.full(n_arms, prior.arm_scale**-2, dtype),
        arm_information=jnp.zeros(n_arms),
        campaign_precision=jnp.full(n_campaigns, prior.campaign_scale**-2, dtype),
        campaign_cross=jnp.zeros((n_campaigns, dim)),
        campaign_information=jnp.zeros(n_campaigns),
        reduced_precision=precision,
        reduced_information=information,
        factor=jnp.diag(1 / prior.scale),
        weights=prior.mean,
        prior=prior,
    )


def grow(state: State, n_arms: int, n_campaigns: int) -> State:
    """Return the same posterior with room for more arms and campaigns, new ones at their prior."""
    more_arms = n_arms - state.arm_precision.shape[0]
    more_campaigns = n_campaigns - state.campaign_precision.shape[0]

    def extend(values: Array, more: int, fill: Array | float) -> Array:
        padding = [(0, more)] + [(0, 0)] * (values.ndim - 1)
        return jnp.pad(values, padding, constant_values=fill)

    return state._replace(
        arm_cross=extend(state.arm_cross, more_arms, 0.0),
        arm_precision=extend(state.arm_precision, more_arms, state.prior.arm_scale**-2),
        arm_information=extend(state.arm_information, more_arms, 0.0),
        campaign_precision=extend(state.campaign_precision, more_campaigns, state.prior.campaign_scale**-2),
        campaign_cross=extend(state.campaign_cross, more_campaigns, 0.0),
        campaign_information=extend(state.campaign_information, more_campaigns, 0.0),
    )


class Effects(NamedTuple):
    """Posterior means of campaign and arm effects for some rows, and the arrow's per-row terms."""

    campaign: Float[Array, "rows"]
    arm: Float[Array, "rows"]
    shrinkage: Float[Array, "rows"]
    offset: Float[Array, "rows dim"]


def effects(state: State, arm: Array, campaign: Array) -> Effects:
    """Return b_g and e_a of each row, r_a, and u_a/q_a + r_a v_g/c_g.

    r_a = 1/(τ² q_a)    b_g = (l_g − v_g·w)/c_g    e_a = (k_a − u_a·w − s_a b_g)/q_a    s_a = q_a − 1/τ²
    """
    q, u, k = state.arm_precision[arm], state.arm_cross[arm], state.arm_information[arm]
    c, v = state.campaign_precision[campaign], state.campaign_cross[campaign]
    prior = state.prior.arm_scale**-2
    r = prior / q
    b = (state.campaign_information[campaign] - v @ state.weights) / c
    e = (k - u @ state.weights - (q - prior) * b) / q
    return Effects(b, e, r, u / q[:, None] + (r / c)[:, None] * v)


def predict(state: State, features: Array, arm: Array, campaign: Array) -> Gaussian:
    """Return the joint posterior of the logits of some rows.

        m = φ·w + b + e        C = Z S Zᵀ + r rᵀ/c [same campaign] + diag(1/q) [same arm]

    Args:
        state: the posterior.
        features: design rows φ, [rows, dim].
        arm: index of each row's arm, [rows].
        campaign: index of each row's campaign, [rows].

    Returns:
        Mean [rows] and covariance [rows, rows] in logits; the covariance is positive semi-definite.
    """
    terms = effects(state, arm, campaign)
    half = solve_rows(state.factor, features - terms.offset)
    shared = terms.shrinkage[:, None] * terms.shrinkage[None, :] / state.campaign_precision[campaign][:, None]
    own = jnp.broadcast_to(1 / state.arm_precision[arm][:, None], shared.shape)
    covariance = half @ half.T
    covariance += jnp.where(campaign[:, None] == campaign[None, :], shared, 0.0)
    covariance += jnp.where(arm[:, None] == arm[None, :], own, 0.0)
    return Gaussian(features @ state.weights + terms.campaign + terms.arm, covariance)


def predict_marginals(state: State, features: Array, arm: Array, campaign: Array) -> tuple[Array, Array]:
    """Return mean and variance of each row's logit alone, [rows] each; for many rows."""
    terms = effects(state, arm, campaign)
    half = solve_rows(state.factor, features - terms.offset)
    variance = jnp.sum(half**2, axis=1)
    variance += terms.shrinkage**2 / state.campaign_precision[campaign] + 1 / state.arm_precision[arm]
    return features @ state.weights + terms.campaign + terms.arm, variance
