"""Compiled programs of the learner: contents and contexts in, posterior or summary out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from bandit.features.content_tables import ContentTables, design
from bandit.features.design import group_mask, scale_groups
from bandit.posterior import (
    Change,
    Parts,
    Prior,
    Rows,
    SiteInfo,
    State,
    Summary,
    decompose,
    forget,
    learn,
    learn_effect_scales,
    learn_weight_scales,
    own_rows,
    place,
    rescale,
    rescale_weights,
    summarise,
    with_shared,
)


class CountedRows(NamedTuple):
    """Outcomes before their features are made; rows without impressions are padding.

    Attributes:
        context: Context vectors.
        arm: Indices of the arms.
        campaign: Indices of their campaigns.
        impressions: n.
        clicks: c.
    """

    context: Float[Array, "rows 16"]
    arm: Int[Array, "rows"]
    campaign: Int[Array, "rows"]
    impressions: Float[Array, "rows"]
    clicks: Float[Array, "rows"]


@jax.jit
def learn_batch(state: State, tables: ContentTables, rows: CountedRows) -> tuple[Change, SiteInfo]:
    """Return what one mini-batch changes; see `posterior.learn`."""
    features = designed(tables, rows)
    return learn(state, Rows(features, rows.arm, rows.campaign, rows.impressions, rows.clicks))


def apply_change(state: State, change: Change) -> State:
    """Make a change in place; see `posterior.apply`. The state given is gone: nobody may read it again."""
    return with_shared(state, change, _place(own_rows(state), change))


_place = jax.jit(place, donate_argnums=0)


@jax.jit
def arm_rows(state: State, arms: Array) -> tuple[Array, Array, Array]:
    """Return u, q and k of some arms."""
    return state.arm_cross[arms], state.arm_precision[arms], state.arm_information[arms]


@jax.jit
def learn_weight_prior(state: State, initial: Prior) -> Array:
    """Return the learnt scale of each weight; see `posterior.learn_weight_scales`."""
    return learn_weight_scales(state, initial, jnp.asarray(scale_groups()))


learn_effect_prior = jax.jit(learn_effect_scales)
set_prior = jax.jit(rescale)
set_weight_scales = jax.jit(rescale_weights)
fade = jax.jit(forget)


@jax.jit
def summarise_campaign(
    state: State,
    tables: ContentTables,
    contexts: Array,
    weights: Array,
    arm: Array,
    campaign: Array,
    eligible: Array,
    seed: Array,
) -> Summary:
    """Summarise one campaign's arms over some contexts; see `posterior.summarise`."""
    features = jax.vmap(lambda context: design(tables, context, arm, campaign))(contexts)
    return summarise(state, features, weights, arm, campaign, eligible, jax.random.key(seed))


@jax.jit
def explain_arm(state: State, tables: ContentTables, context: Array, arm: Array, campaign: Array) -> Parts:
    """Split the logit of one arm in one context; see `posterior.decompose`.

    Returns:
        Base rate, context, content, interaction, campaign and the arm's own effect.
    """
    features = design(tables, context, arm[None], campaign)[0]
    weighted = jnp.stack(
        [features * group_mask(name) for name in ("intercept", "context", "content", "interaction")]
    )
    return decompose(state, weighted, features * group_mask("campaign_mean"), arm, campaign)


def designed(tables: ContentTables, rows: CountedRows) -> Array:
    """Return the rows' features φ, [rows, 209]."""

    def one(context: Array, arm: Array, campaign: Array) -> Array:
        return design(tables, context, arm[None], campaign)[0]

    return jax.vmap(one)(rows.context, rows.arm, rows.campaign)
