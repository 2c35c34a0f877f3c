"""The refit: the same equations on all counts at once, iterated to a fixed point.

A variational Gaussian fit whose gradient is averaged over each logit's uncertainty. It serves a warm start
from history, corrections, and a change of features.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from bandit.posterior.chunks import over_chunks, taken
from bandit.posterior.empirical_bayes import learn_prior
from bandit.posterior.linalg import gram
from bandit.posterior.schur import eliminate
from bandit.posterior.sites import LARGEST_STEP, Sites, site
from bandit.posterior.state import Prior, State, initial_state, predict_marginals

MAX_PASSES = 50
TOLERANCE = 1e-4  # logits
# Passes before steps are halved: where the context tells clicks apart almost completely, whole ones swing
# around the fixed point for ever, by 0.02 logits.
WHOLE_STEPS = 30
SCALE_TOLERANCE = 0.01  # of a scale, a pass; then the scales stay and the logits settle

Counts = Any  # `Rows`, or whatever else has arm, campaign, impressions and clicks, and that `design` knows
Design = Callable[[Counts], Array]


class Fit(NamedTuple):
    """How far a refit has come: all that one pass hands to the next.

    Attributes:
        mean: mean of each row's logit.
        variance: its variance.
        prior: the prior, with the scales as they have been learnt so far.
        is_learning: whether the scales are still moving.
        passes: passes used.
        largest_step: the last pass's largest change of a logit.
    """

    mean: Float[Array, "rows"]
    variance: Float[Array, "rows"]
    prior: Prior
    is_learning: Bool[Array, ""]
    passes: Int[Array, ""]
    largest_step: Float[Array, ""]


class RefitInfo(NamedTuple):
    """How the refit went.

    Attributes:
        passes: passes used.
        largest_step: the last pass's largest change of a logit.
    """

    passes: Int[Array, ""]
    largest_step: Float[Array, ""]


def given(rows: Counts) -> Array:
    """Return the features that rows bring with them."""
    return rows.features


def refit(
    prior: Prior,
    rows: Counts,
    arm_campaign: Array,
    n_campaigns: int,
    groups: Array | None = None,
    design: Design = given,
) -> tuple[State, RefitInfo]:
    """Fit the posterior to all counts: `begin`, then `fitted`, `moved` and `rescaled` until nothing moves.

    Args:
        prior: what holds without data, before any learning of scales.
        rows: all rows; repeated (arm, φ) should come summed. Rows without impressions are padding.
        arm_campaign: each arm's campaign, [arms].
        n_campaigns: capacity for campaigns.
        groups: which weights share a scale that is learnt, [groups, dim]; None keeps all scales.
        design: makes φ of a piece of the rows, [piece, dim].

    Returns:
        The posterior at the fixed point, and how the search went.
    """

    def work(fit: Fit) -> Fit:
        state = fitted(rows, fit, arm_campaign, n_campaigns, design)
        fit = moved(state, rows, fit, design)
        return fit if groups is None else rescaled(state, fit, prior, groups, arm_campaign)

    start = begin(prior, rows, design, learns_scales=groups is not None)
    fit = jax.lax.while_loop(is_unsettled, work, start)
    state = fitted(rows, fit, arm_campaign, n_campaigns, design)
    return state, RefitInfo(fit.passes, fit.largest_step)


def begin(prior: Prior, rows: Counts, design: Design = given, *, learns_scales: bool = False) -> Fit:
    """Return the rows' logits under the prior, their variances at most 1."""

    def add(mean_and_variance: tuple[Array, Array], index: Array) -> tuple[Array, Array]:
        mean, variance = mean_and_variance
        features = design(taken(rows, index))
        spread = (features**2) @ prior.scale**2 + prior.campaign_scale**2 + prior.arm_scale**2
        return (
            mean.at[index].set(features @ prior.mean, mode="drop"),
            variance.at[index].set(jnp.minimum(spread, 1.0), mode="drop"),
        )

    blank = jnp.zeros_like(rows.impressions)
    mean, variance = over_chunks(blank.shape[0], add, (blank, blank))
    # With a type of its own: a weak one would make the second pass another program.
    return Fit(mean, variance, prior, jnp.array(learns_scales), jnp.array(0), jnp.array(jnp.inf, float))


def is_unsettled(fit: Fit) -> Array:
    """Whether another pass is wanted."""
    return (fit.is_learning | (fit.largest_step >= TOLERANCE)) & (fit.passes < MAX_PASSES)


def moved(state: State, rows: Counts, fit: Fit, design: Design = given) -> Fit:
    """Return the rows' logits under the posterior that their sites gave."""

    def move(so_far: Fit, index: Array) -> Fit:
        piece, mean = taken((rows, fit.mean), index)
        target, variance = predict_marginals(state, design(piece), piece.arm, piece.campaign)
        after, step = stepped(mean, target, fit.passes)
        moved = jnp.max(jnp.where(piece.impressions > 0, step, 0.0))
        return so_far._replace(
            mean=so_far.mean.at[index].set(after, mode="drop"),
            variance=so_far.variance.at[index].set(variance, mode="drop"),
            largest_step=jnp.maximum(so_far.largest_step, moved),
        )

    blank = jnp.zeros_like(fit.mean)
    start = fit._replace(mean=blank, variance=blank, passes=fit.passes + 1, largest_step=jnp.array(0.0))
    return over_chunks(blank.shape[0], move, start)


def stepped(mean: Array, target: Array, passes: Array) -> tuple[Array, Array]:
    """Return the logits after a pass toward their targets, and each step's length before it is halved."""
    step = jnp.clip(target - mean, -LARGEST_STEP, LARGEST_STEP)
    return mean + step * jnp.where(passes < WHOLE_STEPS, 1.0, 0.5), jnp.abs(step)


def rescaled(state: State, fit: Fit, initial: Prior, groups: Array, arm_campaign: Array) -> Fit:
    """Return the fit with its scales learnt by one step from the posterior, while they move.

    Args:
        state: the posterior that the fit gave.
        fit: the fit.
        initial: the prior before any learning of scales.
        groups: which weights share a scale, [groups, dim].
        arm_campaign: each arm's campaign, [arms].
    """

    def learn(fit: Fit) -> Fit:
        prior = learn_prior(state, initial, groups, arm_campaign)
        ratios = jax.tree.map(lambda new, old: jnp.max(jnp.abs(jnp.log(new / old))), prior[1:], fit.prior[1:])
        largest = jnp.max(jnp.stack(ratios))
        return fit._replace(prior=prior, is_learning=largest >= SCALE_TOLERANCE)

    return jax.lax.cond(fit.is_learning, learn, lambda fit: fit, fit)


def fitted(rows: Counts, fit: Fit, arm_campaign: Array, n_campaigns: int, design: Design = given) -> State:
    """Return the posterior given the sites and the prior of a fit."""
    sites = site(fit.mean, fit.variance, rows.impressions, rows.clicks)
    return assemble(fit.prior, rows, sites, arm_campaign, n_campaigns, design)


def assemble(
    prior: Prior, rows: Counts, sites: Sites, arm_campaign: Array, n_campaigns: int, design: Design = given
) -> State:
    """Build the posterior from all sites at once.

    Args:
        prior: what holds without data.
        rows: all rows.
        sites: their sites.
        arm_campaign: each arm's campaign, [arms]; an arm without rows may have any.
        n_campaigns: capacity for campaigns.
        design: makes φ of a piece of the rows.

    Returns:
        The exact Gaussian given the sites; equal to absorbing them in any order.
    """

    def add(state: State, index: Array) -> State:
        piece, (weight, information) = taken((rows, sites), index)
        features = design(piece)
        weighted = weight[:, None] * features
        return state._replace(
            precision=state.precision + gram(weighted, features),
            information=state.information + information @ features,
            arm_cross=state.arm_cross.at[piece.arm].add(weighted),
            arm_precision=state.arm_precision.at[piece.arm].add(weight),
            arm_information=state.arm_information.at[piece.arm].add(information),
        )

    blank = initial_state(prior, arm_campaign.shape[0], n_campaigns)
    return eliminate(over_chunks(rows.impressions.shape[0], add, blank), arm_campaign)
