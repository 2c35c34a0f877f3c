"""Following another process's learning: when a snapshot is quicker than the log, and what it changes."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float, Int

from bandit.learning.schedule import kept_since
from bandit.posterior import State
from storage import ArmStates, ForgetRow, LogRow

STEPS_AHEAD: Final = 8  # see docs/decisions.md for what a step and a snapshot cost


def steps_to_fold(log: Sequence[LogRow]) -> int:
    """Return how many steps from where we are are cheaper to fold than a snapshot is to read.

    A refit takes seconds, and whoever made it wrote a snapshot with it.
    """
    return 0 if any(row.kind == "refit" for row in log) else STEPS_AHEAD


def forgets_of(log: Sequence[LogRow]) -> list[ForgetRow]:
    """Return the steps of the log that forgot."""
    return [
        ForgetRow(step=row.step, kept=row.parameters["kept"], logged_at=row.logged_at)
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
    kept = np.full(len(columns[0]), np.prod([forgotten.kept for forgotten in forgets]))
    if len(index):
        for column, values in zip(columns, (stored.u, stored.q, stored.k), strict=True):
            column[index] = values
        kept[index] = kept_since(stored, forgets)
    return ArmStates(np.arange(len(kept)), *columns), kept
