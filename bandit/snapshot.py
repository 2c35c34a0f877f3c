"""The posterior's shared arrays as stored bytes, and back; arms are rows of their own."""

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load, save

from bandit.posterior import Prior, State, eliminate
from storage import ArmStates

SHARED = ("precision", "information")


def snapshot_to_bytes(state: State) -> bytes:
    """Return the arrays that all arms share, the prior's with them, as safetensors bytes; under 1 MB."""
    shared = {name: getattr(state, name) for name in SHARED}
    prior = {f"prior_{name}": array for name, array in state.prior._asdict().items()}
    stored: bytes = save({name: np.asarray(array) for name, array in (shared | prior).items()})
    return stored


def arm_states(state: State, creative_ids: np.ndarray, index: np.ndarray) -> ArmStates:
    """Return what data alone taught about some arms: without the prior, whose scale may change later.

    Args:
        state: The posterior.
        creative_ids: Which arms, [arms].
        index: Their places in the arrays, [arms].
    """
    return ArmStates(
        creative_ids=creative_ids,
        u=np.asarray(state.arm_cross)[index],
        q=np.asarray(state.arm_precision)[index] - float(state.prior.arm_scale) ** -2,
        k=np.asarray(state.arm_information)[index],
    )


def restored(
    blank: State,
    snapshot: bytes,
    arms: ArmStates,
    index: np.ndarray,
    kept: np.ndarray,
    arm_campaign: np.ndarray,
) -> State:
    """Return the posterior that a snapshot and the arms' states as of it stand for.

    Args:
        blank: The prior, with the capacity that is wanted.
        snapshot: From `snapshot_to_bytes`.
        arms: The states of all arms that have learnt.
        index: Their places in the arrays, [arms].
        kept: The part of each that was not forgotten between its own step and the snapshot's, [arms].
        arm_campaign: The campaign's index of every place, [capacity].

    Returns:
        The state; equal to the one that was stored, to rounding.
    """
    stored = {name: jnp.asarray(array) for name, array in load(snapshot).items()}
    prior = Prior(*(stored[f"prior_{name}"] for name in Prior._fields))
    state = blank._replace(
        **{name: stored[name] for name in SHARED},
        arm_precision=jnp.full_like(blank.arm_precision, prior.arm_scale**-2),
        prior=prior,
    )
    if len(index):
        state = state._replace(
            arm_cross=state.arm_cross.at[index].set(kept[:, None] * arms.u),
            arm_precision=state.arm_precision.at[index].add(kept * arms.q),
            arm_information=state.arm_information.at[index].set(kept * arms.k),
        )
    return _eliminate(state, jnp.asarray(arm_campaign))


_eliminate = jax.jit(eliminate)
