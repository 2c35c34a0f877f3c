"""The posterior's shared arrays as stored bytes, and back; arms are rows of their own.

Whoever follows another process's learning reads one where that is quicker than the log.
"""

from collections.abc import Sequence
from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import load, save

from bandit.learning.schedule import decay_since
from bandit.posterior import Prior, State, eliminate, initial_state
from storage import ArmStates, ForgetRow, LogRow

SHARED = ("precision", "information")
STEPS_AHEAD: Final = 8  # see docs/experiments.md for what a step and a snapshot cost


def snapshot_to_bytes(state: State) -> bytes:
    """Return the arrays that all arms share, the prior's with them, as safetensors bytes; under 1 MB."""
    shared = {name: getattr(state, name) for name in SHARED}
    prior = {f"prior_{name}": array for name, array in state.prior._asdict().items()}
    stored: bytes = save({name: np.asarray(array) for name, array in (shared | prior).items()})
    return stored


def restored(
    snapshot: bytes,
    arms: ArmStates,
    index: np.ndarray,
    decay: np.ndarray,
    arm_campaign: np.ndarray,
    n_campaigns: int,
) -> State:
    """Return the posterior that a snapshot and the arms' states as of it stand for.

    Args:
        snapshot: From `snapshot_to_bytes`.
        arms: The states of all arms that have learnt.
        index: Their places in the arrays, [arms].
        decay: The part of each that was not forgotten between its own step and the snapshot's, [arms].
        arm_campaign: The campaign's index of every place, [capacity].
        n_campaigns: The capacity for campaigns.

    Returns:
        The state; equal to the one that was stored, to rounding.
    """
    stored = {name: jnp.asarray(array) for name, array in load(snapshot).items()}
    prior = Prior(*(stored[f"prior_{name}"] for name in Prior._fields))
    n_arms = len(arm_campaign)
    cross, information = np.zeros((n_arms, len(stored["information"]))), np.zeros(n_arms)
    precision = np.full(n_arms, float(prior.arm_scale) ** -2)
    if len(index):
        cross[index], information[index] = decay[:, None] * arms.u, decay * arms.k
        precision[index] += decay * arms.q
    # One place for arms, for the big array is made here once.
    state = initial_state(prior, 1, n_campaigns)._replace(
        precision=stored["precision"],
        information=stored["information"],
        arm_cross=jnp.asarray(cross),
        arm_precision=jnp.asarray(precision),
        arm_information=jnp.asarray(information),
    )
    return _eliminate(state, jnp.asarray(arm_campaign))


_eliminate = jax.jit(eliminate)


def steps_to_fold(log: Sequence[LogRow]) -> int:
    """Return how many steps from where we are are cheaper to fold in than a snapshot is to read.

    A refit takes seconds, and whoever made it wrote a snapshot with it.
    """
    return 0 if any(row.kind == "refit" for row in log) else STEPS_AHEAD


def forgets_of(log: Sequence[LogRow]) -> list[ForgetRow]:
    """Return the steps of the log that forgot."""
    return [
        ForgetRow(step=row.step, decay=row.parameters["kept"], logged_at=row.logged_at)
        for row in log
        if row.kind == "forget"
    ]


def all_arms(
    state: State, stored: ArmStates, index: Int[np.ndarray, "stored"], forgets: Sequence[ForgetRow]
) -> tuple[ArmStates, Float[np.ndarray, "arms"]]:
    """Return the states of all arms as of a snapshot: those that changed as stored, the others as they are.

    Args:
        state: The posterior at an earlier step, with places for all arms; call it in double precision.
        stored: The states of the arms that learnt since, as of the snapshot.
        index: Their places in the posterior's arrays.
        forgets: The steps between the two that forgot.

    Returns:
        The states in the order of the arrays, and the part of each that was not forgotten after it.
    """
    prior = float(state.prior.arm_scale) ** -2
    columns = [
        np.array(state.arm_cross),
        np.array(state.arm_precision) - prior,
        np.array(state.arm_information),
    ]
    decay = np.full(len(columns[0]), np.prod([forgotten.decay for forgotten in forgets]))
    if len(index):
        for column, values in zip(columns, (stored.u, stored.q, stored.k), strict=True):
            column[index] = values
        decay[index] = decay_since(stored, forgets)
    return ArmStates(np.arange(len(decay)), *columns), decay
