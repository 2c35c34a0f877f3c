"""The refit of a large model, by blocks of computing between which others compute."""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bandit.features.content_tables import ContentTables
from bandit.features.design import scale_groups
from bandit.jax_runtime import YIELD_S, double_precision
from bandit.learning.kernels import CountedRows, designed
from bandit.posterior import Fit, Prior, RefitInfo, State, begin, fitted, is_unsettled, moved, rescaled


def fit_counts(
    prior: Prior,
    tables: ContentTables,
    rows: CountedRows,
    arm_campaign: np.ndarray,
    n_campaigns: int,
    learns_scales: bool,
) -> tuple[State, RefitInfo]:
    """Fit the posterior to all counts; see `posterior.refit`, which is the same in one program.

    Called outside a block of double precision, which it opens for half a pass at a time, so that selection
    goes on meanwhile.

    Args:
        prior: what holds without data.
        tables: contents.
        rows: all counts, arrays on the device or not.
        arm_campaign: each arm's campaign, [arms].
        n_campaigns: capacity for campaigns.
        learns_scales: whether the prior's scales are learnt.

    Returns:
        The posterior at the fixed point, and how the search went.
    """
    with double_precision():
        rows, arm_campaign = jax.device_put((rows, arm_campaign))
        fit = jax.block_until_ready(_begun(prior, tables, rows, learns_scales))
    while True:
        time.sleep(YIELD_S)
        with double_precision():
            state = jax.block_until_ready(_fitted(tables, rows, fit, arm_campaign, n_campaigns))
            if not _is_unsettled(fit):
                return state, RefitInfo(fit.passes, fit.largest_step)
        time.sleep(YIELD_S)
        with double_precision():
            fit = jax.block_until_ready(_moved(state, tables, rows, fit, prior, arm_campaign))
            del state  # before the next one is made: each may be hundreds of megabytes


_is_unsettled = jax.jit(is_unsettled)


@partial(jax.jit, static_argnames="learns_scales")
def _begun(prior: Prior, tables: ContentTables, rows: CountedRows, learns_scales: bool) -> Fit:
    return begin(prior, rows, partial(designed, tables), learns_scales=learns_scales)


@partial(jax.jit, static_argnames="n_campaigns")
def _fitted(
    tables: ContentTables, rows: CountedRows, fit: Fit, arm_campaign: Array, n_campaigns: int
) -> State:
    return fitted(rows, fit, arm_campaign, n_campaigns, partial(designed, tables))


@jax.jit
def _moved(
    state: State, tables: ContentTables, rows: CountedRows, fit: Fit, initial: Prior, arm_campaign: Array
) -> Fit:
    fit = moved(state, rows, fit, partial(designed, tables))
    return rescaled(state, fit, initial, jnp.asarray(scale_groups()), arm_campaign)
