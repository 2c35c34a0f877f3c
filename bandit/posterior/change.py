"""What a mini-batch changes, apart from making the change: it can be stored before the posterior follows."""

from typing import NamedTuple

from jax import Array
from jaxtyping import Float, Int

from bandit.posterior.state import State


class OwnRows(NamedTuple):
    """The arrays of `State` that have a row for each arm or campaign, or new values of some of their rows."""

    arm_cross: Float[Array, "arms dim"]
    arm_precision: Float[Array, "arms"]
    arm_information: Float[Array, "arms"]
    campaign_precision: Float[Array, "campaigns"]
    campaign_cross: Float[Array, "campaigns dim"]
    campaign_information: Float[Array, "campaigns"]


class Change(NamedTuple):
    """The new values of what a mini-batch changes; its size is that of the batch, not of the state.

    Attributes:
        arms: the arms it touches, in order; an index past the end belongs nowhere.
        campaigns: their campaigns, likewise.
        rows: the rows of these arms and campaigns.

    The others are those of `State`.
    """

    precision: Float[Array, "dim dim"]
    information: Float[Array, "dim"]
    arms: Int[Array, "touched"]
    campaigns: Int[Array, "touched_campaigns"]
    rows: OwnRows
    reduced_precision: Float[Array, "dim dim"]
    reduced_information: Float[Array, "dim"]
    factor: Float[Array, "dim dim"]
    weights: Float[Array, "dim"]


def apply(state: State, change: Change) -> State:
    """Return the state with a change made."""
    return with_shared(state, change, place(own_rows(state), change))


def own_rows(state: State) -> OwnRows:
    """Return what a state has for each arm and campaign."""
    return OwnRows(*(getattr(state, name) for name in OwnRows._fields))


def place(rows: OwnRows, change: Change) -> OwnRows:
    """Put a change's rows where they belong; with `rows` donated, in time and memory of the change alone."""
    arms, campaigns, new = change.arms, change.campaigns, change.rows
    return OwnRows(
        rows.arm_cross.at[arms].set(new.arm_cross, mode="drop"),
        rows.arm_precision.at[arms].set(new.arm_precision, mode="drop"),
        rows.arm_information.at[arms].set(new.arm_information, mode="drop"),
        rows.campaign_precision.at[campaigns].set(new.campaign_precision, mode="drop"),
        rows.campaign_cross.at[campaigns].set(new.campaign_cross, mode="drop"),
        rows.campaign_information.at[campaigns].set(new.campaign_information, mode="drop"),
    )


def with_shared(state: State, change: Change, rows: OwnRows | None = None) -> State:
    """Return the state with what all arms share as it is after a change.

    Args:
        state: the posterior before.
        change: a batch's.
        rows: what each arm and campaign has after it; None leaves that as it is before.
    """
    rows = own_rows(state) if rows is None else rows
    return State(
        precision=change.precision,
        information=change.information,
        arm_cross=rows.arm_cross,
        arm_precision=rows.arm_precision,
        arm_information=rows.arm_information,
        campaign_precision=rows.campaign_precision,
        campaign_cross=rows.campaign_cross,
        campaign_information=rows.campaign_information,
        reduced_precision=change.reduced_precision,
        reduced_information=change.reduced_information,
        factor=change.factor,
        weights=change.weights,
        prior=state.prior,
    )
