"""The posterior's shared arrays as stored bytes, and back; arms are rows of their own."""

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load, save

from bandit.posterior import Prior, State, eliminate, initial_state
from storage import ArmStates

SHARED = ("precision", "information")


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
    kept: np.ndarray,
    arm_campaign: np.ndarray,
    n_campaigns: int,
) -> State:
    """Return the posterior that a snapshot and the arms' states as of it stand for.

    Args:
        snapshot: From `snapshot_to_bytes`.
        arms: The states of all arms that have learnt.
        index: Their places in the arrays, [arms].
        kept: The part of each that was not forgotten between its own step and the snapshot's, [arms].
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
        cross[index], information[index] = kept[:, None] * arms.u, kept * arms.k
        precision[index] += kept * arms.q
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
