"""What crosses the border between the learner and this package."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from storage.records import ContextCountRecord, CreativeStatus

StepKind = Literal["batch", "scales", "forget", "refit", "slots", "correction"]


@dataclass(frozen=True, slots=True)
class LearnRows:
    """Settled decisions as the learner sees them, in columns.

    An object for each of thousands would set off full runs of Python's garbage collector, 0.2 s each.

    Attributes:
        decision_ids: Which.
        campaign_ids: Of each.
        creative_ids: Of each.
        slots_versions: The version of the context schema that each was made with.
        clicks: 0 or 1.
        context: The place of each one's context in `contexts`.
        contexts: The contexts that occur, each once.
    """

    decision_ids: Sequence[str] = ()
    campaign_ids: Sequence[int] = ()
    creative_ids: Sequence[int] = ()
    slots_versions: Sequence[int] = ()
    clicks: Sequence[int] = ()
    context: Sequence[int] = ()
    contexts: Sequence[Mapping[str, Any]] = ()

    def __len__(self) -> int:
        return len(self.decision_ids)

    def first(self, n: int) -> "LearnRows":
        """Return the first `n` decisions."""
        return LearnRows(
            self.decision_ids[:n],
            self.campaign_ids[:n],
            self.creative_ids[:n],
            self.slots_versions[:n],
            self.clicks[:n],
            self.context[:n],
            self.contexts,
        )


class ArmStates(NamedTuple):
    """States of arms, in the order of their ids.

    Attributes:
        creative_ids: Which arms.
        u: First moments of φ, float64.
        q: Information; the prior's is not in it, as its scale may change.
        k: Linear terms.
        steps: As of which learning step each row is; ignored when written.
    """

    creative_ids: Int[np.ndarray, "arms"]
    u: Float[np.ndarray, "arms dim"]
    q: Float[np.ndarray, "arms"]
    k: Float[np.ndarray, "arms"]
    steps: Int[np.ndarray, "arms"] | None = None


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """The posterior of one arm as people read it; rates are fractions, `version` is a learning step.

    `value_remaining` is a fraction of the arm's own rate.
    """

    creative_id: int
    ctr: float
    ctr_low: float
    ctr_high: float
    p_best: float
    expected_loss: float
    value_remaining: float
    version: int


@dataclass(frozen=True, kw_only=True)
class NewFeatures:
    """The encoder and components that a refit was made with, and all that follows from them.

    Attributes:
        encoder_fingerprint: The encoder.
        components: The components, as the engine reads them.
        settings: The model's settings that belong to them.
        mean_contents: The mean content of each campaign that has creatives, as the engine reads it.
        creative_ids: All creatives of the model: those whose features were computed.
    """

    encoder_fingerprint: str
    components: bytes
    settings: Mapping[str, Any]
    mean_contents: Mapping[int, bytes]
    creative_ids: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """All that one learning step writes.

    Attributes:
        model_id: Whose posterior.
        lease: The number of the learner's lease.
        step: One more than the newest step.
        kind: What the step did.
        parameters: What replaying it needs besides its rows.
        logged_at: When.
        decision_ids: The settled decisions that it learns, none of them learnt before.
        context_counts: What to add to the counts of context levels.
        arm_states: The states of the arms that it touched.
        snapshot: The shared arrays as of this step, safetensors bytes.
        info: What the step reports about itself, for people; finite numbers.
        features: What holds from this step on in place of the features before; a snapshot must come with it.
    """

    model_id: int
    lease: int
    step: int
    kind: StepKind
    parameters: Mapping[str, Any]
    logged_at: datetime
    decision_ids: tuple[str, ...] = ()
    context_counts: tuple[ContextCountRecord, ...] = ()
    arm_states: ArmStates | None = None
    snapshot: bytes | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    features: NewFeatures | None = None


@dataclass(frozen=True, kw_only=True)
class LogRow:
    """One step of the learning log."""

    step: int
    kind: StepKind
    parameters: dict[str, Any]
    n_rows: int
    logged_at: datetime


@dataclass(frozen=True, kw_only=True)
class ForgetRow:
    """A step that kept only a part of what the data had taught before it, 0 to 1."""

    step: int
    decay: float
    logged_at: datetime


@dataclass(frozen=True, kw_only=True)
class InfoRow:
    """One step of the learning log with what it reported about itself."""

    step: int
    kind: StepKind
    n_rows: int
    logged_at: datetime
    info: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The shared arrays as of a learning step."""

    step: int
    state: bytes


@dataclass(frozen=True, kw_only=True)
class CountRow:
    """Learnt decisions that share creative, context schema and context.

    Attributes:
        creative_id: Our id.
        slots_version: The context schema's version.
        context: The context.
        impressions: How many they are.
        clicks: Of these.
        conversions: Of the clicks, those that led to one; None when not asked for.
    """

    creative_id: int
    slots_version: int
    context: dict[str, Any]
    impressions: int
    clicks: int
    conversions: int | None = None


@dataclass(frozen=True, kw_only=True)
class HistoryCountRecord:
    """Imported history of a creative in one context; {} is history of no known context.

    Attributes:
        creative_id: Our id.
        impressions: Its impressions.
        clicks: Of these.
        context: The context.
        slots_version: The context schema's version by which the context counts; ignored when written.
        imported_at: When; ignored when written.
    """

    creative_id: int
    impressions: int
    clicks: int
    context: Mapping[str, Any] = field(default_factory=dict)
    slots_version: int = 0
    imported_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """One arm with its counts and its posterior; rates and share are fractions.

    Attributes:
        creative_id: Our id.
        external_id: The user's id.
        status: Of the creative.
        impressions: Learnt decisions.
        clicks: Of these.
        conversions: Reported inside their window.
        value: Their sum.
        pending_impressions: Activated, not learnt yet.
        pending_clicks: Of these, settled with a click.
        history_impressions: Imported.
        history_clicks: Imported.
        ctr: Posterior mean; None until the first summary, as all that follow.
        ctr_low: Lower end of its interval.
        ctr_high: Upper end of its interval.
        p_best: Probability of being the best.
        expected_loss: Against the best, as a CTR.
        value_remaining: What a change of arms may still be worth, as a fraction of this arm's rate.
        share: Of the campaign's impressions in the last 24 h.
        version: The learning step of the summary.
        refreshed_at: When it was written.
    """

    creative_id: int
    external_id: str
    status: CreativeStatus
    impressions: int
    clicks: int
    conversions: int
    value: float
    pending_impressions: int
    pending_clicks: int
    history_impressions: int
    history_clicks: int
    ctr: float | None
    ctr_low: float | None
    ctr_high: float | None
    p_best: float | None
    expected_loss: float | None
    value_remaining: float | None
    share: float | None
    version: int | None
    refreshed_at: datetime | None
