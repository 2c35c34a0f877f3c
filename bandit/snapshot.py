"""The posterior's shared arrays as stored bytes, and back; arms are rows of their own."""

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load, save

from bandit.posterior import State, eliminate
from storage import ArmStates

SHARED = ("precision", "information", "campaign_scale", "arm_scale")


def snapshot_to_bytes(state: State) -> bytes:
    """Return the arrays that all arms share, as safetensors bytes; under 1 MB."""
    stored: bytes = save({name: np.asarray(getattr(state, name)) for name in SHARED})
    return stored


def restored(
    blank: State, snapshot: bytes, arms: ArmStates, index: np.ndarray, arm_campaign: np.ndarray
) -> State:
    """Return the posterior that a snapshot and the arms' states as of it stand for.

    Args:
        blank: The prior, with the capacity that is wanted.
        snapshot: From `snapshot_to_bytes`.
        arms: The states of all arms that have learnt.
        index: Their places in the arrays, [arms].
        arm_campaign: The campaign's index of every place, [capacity].

    Returns:
        The state; equal to the one that was stored, to rounding.
    """
    shared = {name: jnp.asarray(array) for name, array in load(snapshot).items()}
    scale = shared["arm_scale"]
    state = blank._replace(**shared, arm_precision=jnp.full_like(blank.arm_precision, scale**-2))
    if len(index):
        state = state._replace(
            arm_cross=state.arm_cross.at[index].set(arms.u),
            arm_precision=state.arm_precision.at[index].set(arms.q),
            arm_information=state.arm_information.at[index].set(arms.k),
        )
    return _eliminate(state, jnp.asarray(arm_campaign))


_eliminate = jax.jit(eliminate)
