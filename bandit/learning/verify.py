"""The proof that the posterior is the fold over the log: it is read twice, by snapshot and from the prior."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bandit.jax_runtime import double_precision
from bandit.learning.replica import PosteriorReplica
from bandit.learning.schedule import MaintenanceSchedule
from bandit.learning.view import PosteriorView
from bandit.model.model import Model
from bandit.posterior import effects
from encoders import Encoder
from storage import Store


class Replay(NamedTuple):
    """Two posteriors of one database compared.

    Attributes:
        step: The learning step of the one that begins at the newest snapshot.
        replayed_step: The learning step of the one that begins at the prior; later when a learner runs.
        largest_difference: Of any weight, campaign effect or arm effect, in its posterior standard
            deviations. That of an effect is taken given the weights, which is smaller: the bound is strict.
    """

    step: int
    replayed_step: int
    largest_difference: float


def replay(
    store: Store, clock: Callable[[], datetime], *, encoder: Encoder | str | Path | None = None
) -> Replay:
    """Compare the posterior that the newest snapshot gives with a replay of the log from the prior.

    Args:
        store: A database that has a model; nothing is learnt and no posterior is written.
        clock: Gives the time, aware.
        encoder: As of `Engine.open`; asked only for texts that the database has no vector of.

    Returns:
        How far they are apart; below 1e-9 when the log and the snapshots are sound.
    """
    views = []
    for from_prior in (False, True):
        model = Model(store, clock, 0, encoder)
        views.append(PosteriorReplica(store, model, MaintenanceSchedule(model), from_prior=from_prior).view)
    resumed, replayed = views
    creatives = sorted(resumed.catalog.arm.keys() & replayed.catalog.arm.keys())
    with double_precision():
        (mean, deviation), (again, _) = (_believed(view, creatives) for view in views)
    # NumPy's maximum, for a NaN comes through it.
    return Replay(resumed.step, replayed.step, float(np.max(np.abs(mean - again) / deviation)))


def _believed(
    view: PosteriorView, creatives: Sequence[int]
) -> tuple[Float[np.ndarray, "unknowns"], Float[np.ndarray, "unknowns"]]:
    """Return means and deviations of the weights, then of each creative's campaign and of itself."""
    state, catalog = jax.device_get(view.state), view.catalog
    arms = np.array([catalog.arm[creative] for creative in creatives], np.int64)
    found = jax.device_get(effects(state, jnp.asarray(arms), jnp.asarray(catalog.arm_campaign[arms])))
    weight_sd = np.sqrt((np.linalg.inv(state.factor) ** 2).sum(axis=0))
    campaign_sd = state.campaign_precision[catalog.arm_campaign[arms]] ** -0.5
    arm_sd = state.arm_precision[arms] ** -0.5
    return (
        np.concatenate([state.weights, found.campaign, found.arm]),
        np.concatenate([weight_sd, campaign_sd, arm_sd]),
    )
