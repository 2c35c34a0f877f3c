"""Steps of learning that need no data: the prior's scales are learnt, and what was learnt is forgotten."""

import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Float

from bandit.features.design import GROUPS, PriorScales, group_mask, weight_prior
from bandit.learning.kernels import learn_effect_prior, learn_weight_prior, set_prior, set_weight_scales
from bandit.model.model import Model
from bandit.posterior import Prior, State
from storage import ArmStates, ForgetRow

SCALES_EVERY: Final = 20  # steps of the log; so it is the same step wherever learning was stopped and resumed
FIRST_REFIT: Final = 512  # decisions learnt
LAST_REFIT: Final = (
    65_536  # beyond it a refit takes seconds, and an early error is small beside what is known
)
FORGET_EVERY: Final = timedelta(hours=1)
ALIKE: Final = 0.98  # weights of outcomes of one age in a refit; it bounds the number of queries
FEW_ARMS: Final = 4096  # up to which the effects' scales are learnt each time; it eliminates all arms anew
EFFECTS_EVERY_S: Final = 3600.0  # how often with more
LEARNT = (*GROUPS[1:], "campaign", "arm")  # all of `PriorScales` but what the intercept has


def scales_of(prior: Prior) -> dict[str, float]:
    """Return the scales that are learnt, by the names of `PriorScales`."""
    scale = np.asarray(prior.scale)
    groups = {name: float(scale[group_mask(name) > 0][0]) for name in GROUPS[1:]}
    return {**groups, "campaign": float(prior.campaign_scale), "arm": float(prior.arm_scale)}


def fixed_scales(parameters: Mapping[str, Any]) -> Mapping[str, float] | None:
    """Return the scales that a refit of the log kept, beside the initial ones; None when it learnt them."""
    # Refits of older logs that learnt none went back to those of the beginning.
    return None if parameters.get("learns_scales", False) else parameters.get("scales", {})


def decay_since(arms: ArmStates, forgets: Sequence[ForgetRow]) -> Float[np.ndarray, "arms"]:
    """Return the part of each arm's state that was not forgotten by steps after its own."""
    assert arms.steps is not None  # noqa: S101  stored states have them
    decay = np.ones(len(arms.creative_ids))
    for forgotten in forgets:
        decay *= np.where(arms.steps < forgotten.step, forgotten.decay, 1.0)
    return decay


def is_refit_due(learnt: Any, at_refit: Any) -> Any:
    """Whether what was learnt has doubled since the last refit, for integers and for arrays of them.

    A batch's sites are never looked at again, and an early one was made when little was known: see
    docs/experiments.md for what that costs.

    Args:
        learnt: Decisions learnt.
        at_refit: Of these, those that the newest refit saw.
    """
    return (learnt >= FIRST_REFIT) & (learnt >= 2 * at_refit) & (2 * at_refit <= LAST_REFIT)


class Stretch(NamedTuple):
    """Steps of the log, after one and up to another, of whose outcomes a part has been kept since."""

    after_step: int
    up_to_step: int
    decay: float


def stretches(forgets: Sequence[ForgetRow], up_to_step: int) -> list[Stretch]:
    """Cut the log where something was forgotten; neighbours that differ by less than 2 % stay together.

    Example:
        >>> from datetime import UTC, datetime
        >>> halved = ForgetRow(step=7, decay=0.5, logged_at=datetime(2026, 1, 1, tzinfo=UTC))
        >>> stretches([halved], 9)
        [Stretch(after_step=7, up_to_step=9, decay=1.0), Stretch(after_step=0, up_to_step=7, decay=0.5)]
    """
    found, end, decay = [], up_to_step, 1.0
    since = 1.0  # what was kept since the cut before
    for forgotten in reversed(forgets):
        since *= forgotten.decay
        if since <= ALIKE:
            found.append(Stretch(forgotten.step, end, decay))
            end, decay, since = forgotten.step, decay * since, 1.0
    return [*found, Stretch(0, end, decay)]


def decay_after(at: datetime | None, forgets: Sequence[ForgetRow]) -> float:
    """Return the part of what was known at a time that was not forgotten since."""
    return math.prod(forgotten.decay for forgotten in forgets if at is None or forgotten.logged_at > at)


class MaintenanceSchedule:
    """Knows when such a step is due, what it does, and how it is done again from the log.

    Args:
        model: Has the settings.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._effects_at = -math.inf

    def prior(self, scales: Mapping[str, Any] | None = None) -> Prior:
        """Return the prior before any data, or with other scales; called in double precision."""
        return weight_prior(PriorScales(**{**self._model.settings.scales._asdict(), **(scales or {})}))

    def is_scales_due(self, step: int) -> bool:
        """Whether the step of this number learns the scales."""
        return self._model.settings.learns_scales and step % SCALES_EVERY == 0

    def learnt_scales(self, state: State, arm_campaign: np.ndarray) -> dict[str, float]:
        """Return the scales after one step of learning them: the parameters of a step of the log."""
        initial = self.prior()
        learnt = state.prior._replace(scale=learn_weight_prior(state, initial))
        now = time.monotonic()
        if len(arm_campaign) <= FEW_ARMS or now - self._effects_at >= EFFECTS_EVERY_S:
            effects = learn_effect_prior(state, initial, arm_campaign)
            learnt = learnt._replace(campaign_scale=effects.campaign, arm_scale=effects.arm)
            self._effects_at = now
        return scales_of(learnt)

    def rescaled(self, state: State, scales: Mapping[str, Any], arm_campaign: np.ndarray) -> State:
        """Return the posterior with other scales, as if the prior had been so from the start."""
        prior = self.prior(scales)
        before = scales_of(state.prior)
        if (scales["campaign"], scales["arm"]) == (before["campaign"], before["arm"]):
            return set_weight_scales(state, prior.scale)
        return set_prior(state, prior, arm_campaign)

    def decay(self, now: datetime, forgot_at: datetime | None) -> float | None:
        """Return γ, the part of what the data taught that is kept now; None when no forgetting is due.

        Args:
            now: The time.
            forgot_at: When the last step of forgetting was logged.
        """
        settings = self._model.settings
        half_life, since = settings.half_life_days, settings.forgets_since
        if half_life is None or since is None:
            return None
        elapsed = now - max(since, forgot_at or since)
        if elapsed < FORGET_EVERY:
            return None
        return float(0.5 ** (elapsed / timedelta(days=half_life)))
