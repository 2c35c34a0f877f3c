"""What crosses the border of this package: plain records. The learner's: learning_records.py.

A stored decision is a tuple: a frozen dataclass of as many fields takes several times as long to make.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

ContextKind = Literal["string", "number", "boolean"]
CampaignStatus = Literal["active", "paused", "ended"]
CreativeStatus = Literal["active", "paused", "retired"]
OutcomeKind = Literal["click", "conversion"]
OutcomeStatus = Literal["recorded", "repeated", "late"]
Horizon = int | Literal["auto"] | None
Context = Mapping[str, str | float | bool]


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """One posterior's settings."""

    model_id: int
    name: str
    seed: int
    encoder_fingerprint: str | None
    components: bytes | None
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ContextSlotRecord:
    """One place of the context vector.

    Attributes:
        slot: Its index, from 0.
        field: The context field.
        level: The level of a string field; None for its "other" slot, a number or a boolean.
        mean: Of a number; None until known.
        sd: Of a number; None until known.
        version: The schema version that gave the slot.
        moments_version: The schema version that set the moments.
    """

    slot: int
    field: str
    level: str | None
    mean: float | None
    sd: float | None
    version: int
    moments_version: int | None


@dataclass(frozen=True, kw_only=True)
class ContextRecord:
    """A model's context schema.

    Attributes:
        fields: All fields seen, with their kinds; a field without a slot is stored but not modelled.
        slots: In the order of their indices.
        version: The newest version; the schema at version v is the rows with a version of at most v.
    """

    fields: dict[str, ContextKind]
    slots: tuple[ContextSlotRecord, ...]
    version: int


@dataclass(frozen=True, kw_only=True)
class ContextCountRecord:
    """Learnt decisions with one level of a field (level "" for numbers), and for numbers their sums."""

    field: str
    level: str
    decisions: int
    total: float = 0.0
    total_squares: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CampaignRecord:
    """The settings of a campaign; shares are fractions, windows seconds."""

    campaign_id: int
    model_id: int
    name: str
    objective: str
    horizon: Horizon
    attribution_window_s: float
    conversion_window_s: float
    uniform_share: float
    control_share: float
    starts_at: datetime | None
    ends_at: datetime | None
    status: CampaignStatus
    mean_content: bytes | None
    created_at: datetime
    settings_version: int = 0


@dataclass(frozen=True, kw_only=True)
class NewCreative:
    """A creative to be added; floor and cap are the least and most of the traffic, fractions."""

    external_id: str
    content: Mapping[str, Any]
    content_hash: str
    picture: str | None = None
    floor: float = 0.0
    cap: float = 1.0
    status: CreativeStatus = "active"


@dataclass(frozen=True, kw_only=True)
class CreativeRecord:
    """A creative as stored."""

    creative_id: int
    campaign_id: int
    external_id: str
    content: dict[str, Any]
    content_hash: str
    picture: str | None
    status: CreativeStatus
    created_at: datetime
    floor: float = 0.0
    cap: float = 1.0


@dataclass(frozen=True, kw_only=True)
class NewDecision:
    """One impression as the engine decided it.

    Attributes:
        decision_id: 1 to 64 printable ASCII characters.
        campaign_id: The campaign.
        creative_id: The chosen one, one of the candidates.
        candidate_creative_ids: The eligible creatives, in the engine's order.
        propensities: The probability of each candidate, in the same order.
        propensity: The probability with which the chosen one was drawn.
        context: What was known of the request.
        model_version: The learning step at which the posterior stood.
        slots_version: The version of the context schema.
        horizon: H of the draw; None for plain Thompson sampling.
        kappa: κ of the draw.
        point_set: Which set of normal points.
        decided_at: When.
        activated_at: When it was shown; None when that is reported later.
        place: Its place in its list, from 0.
        request_id: What the decisions of one request share.
        list_propensity: The probability of the whole list that this place belongs to; None without a list.
        is_control: Whether it was drawn from all candidates alike, to compare the engine with.
    """

    decision_id: str
    campaign_id: int
    creative_id: int
    candidate_creative_ids: tuple[int, ...]
    propensities: tuple[float, ...]
    propensity: float
    context: Context
    model_version: int
    slots_version: int
    horizon: float | None
    kappa: float
    point_set: int
    decided_at: datetime
    activated_at: datetime | None
    place: int = 0
    request_id: str | None = None
    list_propensity: float | None = None
    is_control: bool = False


class DecisionRecord(NamedTuple):
    """A decision as stored: the fields of NewDecision, and what became of it.

    Attributes:
        settles_at: When its attribution window ends; None with window 0, or not activated.
        closed_at: When a report was final.
        settled_at: When its click became final.
        click: 0 or 1 once settled.
        learnt_batch: The learning step that took it.
    """

    decision_id: str
    campaign_id: int
    creative_id: int
    candidate_creative_ids: tuple[int, ...]
    propensities: tuple[float, ...]
    propensity: float
    context: dict[str, Any]
    model_version: int
    slots_version: int
    horizon: float | None
    kappa: float
    point_set: int
    decided_at: datetime
    activated_at: datetime | None
    place: int
    request_id: str | None
    list_propensity: float | None
    is_control: bool
    settles_at: datetime | None
    closed_at: datetime | None
    settled_at: datetime | None
    click: int | None
    learnt_batch: int | None


@dataclass(frozen=True, kw_only=True)
class NewOutcome:
    """One report about a decision.

    Attributes:
        decision_id: Which.
        kind: click or conversion.
        value: A click's is 0 or 1; a conversion's any finite amount.
        key: Tells several reports of one kind apart, such as an order number.
        occurred_at: When it happened; None means when it was received.
        final: No further click report is to count.
        valid: False takes back the report of the same kind and key.
    """

    decision_id: str
    kind: OutcomeKind
    value: float
    key: str = ""
    occurred_at: datetime | None = None
    final: bool = False
    valid: bool = True


@dataclass(frozen=True, kw_only=True)
class OutcomeRecord:
    """What became of a report: recorded, repeated (nothing changed) or late (kept, not learnt).

    Attributes:
        decision_id: Which decision.
        status: See above.
        has_settled: Whether this very report settled the decision.
    """

    decision_id: str
    status: OutcomeStatus
    has_settled: bool


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that `check` found wrong: which check, where, and what."""

    check: str
    subject: str
    message: str
