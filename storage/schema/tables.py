"""The tables. No queries: those are in the topic files; the views are in views.py."""

from datetime import date, datetime
from typing import Annotated, Any

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from storage.schema.columns import Base, BigInt, IdText

Key = Annotated[int, mapped_column(BigInt, primary_key=True)]
Name = Annotated[str, mapped_column(primary_key=True)]
ModelKey = Annotated[int, mapped_column(ForeignKey("models.model_id"))]
ModelPart = Annotated[
    int, mapped_column(ForeignKey("models.model_id"), primary_key=True, autoincrement=False)
]
CampaignKey = Annotated[int, mapped_column(ForeignKey("campaigns.campaign_id"))]
CreativeKey = Annotated[int, mapped_column(ForeignKey("creatives.creative_id"))]
CreativePart = Annotated[
    int, mapped_column(ForeignKey("creatives.creative_id"), primary_key=True, autoincrement=False)
]
DecisionKey = Annotated[str, mapped_column(IdText, ForeignKey("decisions.decision_id"))]
Number = Annotated[int, mapped_column(BigInt, primary_key=True, autoincrement=False)]
Count = Annotated[int, mapped_column(server_default=text("0"))]
Total = Annotated[float, mapped_column(server_default=text("0"))]


def _check(condition: str, name: str) -> CheckConstraint:
    return CheckConstraint(text(condition), name=name)


def _partial_index(name: str, *columns: str, where: str) -> Index:
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


class Model(Base):
    """One posterior's settings."""

    __tablename__ = "models"

    model_id: Mapped[Key]
    name: Mapped[str] = mapped_column(unique=True)
    seed: Mapped[int]
    encoder_fingerprint: Mapped[str | None]
    components: Mapped[bytes | None]
    settings: Mapped[dict[str, Any]]


class ContextField(Base):
    """A context field that a model has seen, with a slot or without."""

    __tablename__ = "context_fields"
    __table_args__ = (_check("kind IN ('string', 'number', 'boolean')", "kind"),)

    model_id: Mapped[ModelPart]
    field: Mapped[Name]
    kind: Mapped[str]


class ContextSlot(Base):
    """One place of the context vector: a field, or one level of a string field."""

    __tablename__ = "context_slots"
    __table_args__ = (
        ForeignKeyConstraint(["model_id", "field"], ["context_fields.model_id", "context_fields.field"]),
        UniqueConstraint("model_id", "field", "level"),
        # A field has one slot without a level; NULLs are distinct in the constraint above.
        Index(
            "uq_context_slots_model_id_field",
            "model_id",
            "field",
            unique=True,
            sqlite_where=text("level IS NULL"),
            postgresql_where=text("level IS NULL"),
        ),
        _check("slot >= 0", "slot"),
        _check("(mean IS NULL) = (moments_version IS NULL)", "mean"),
        _check("(sd IS NULL) = (moments_version IS NULL)", "sd"),
        _check("sd > 0", "sd_positive"),
    )

    model_id: Mapped[ModelPart]
    slot: Mapped[Number]
    field: Mapped[str]
    level: Mapped[str | None]
    mean: Mapped[float | None]
    sd: Mapped[float | None]
    version: Mapped[int]
    moments_version: Mapped[int | None]


class ContextCount(Base):
    """How many learnt decisions had a level of a field; for numbers the sums that give the moments."""

    __tablename__ = "context_counts"
    __table_args__ = (
        ForeignKeyConstraint(["model_id", "field"], ["context_fields.model_id", "context_fields.field"]),
        _check("decisions >= 0", "decisions"),
    )

    model_id: Mapped[ModelPart]
    field: Mapped[Name]
    level: Mapped[str] = mapped_column(primary_key=True, server_default=text("''"))
    decisions: Mapped[Count]
    total: Mapped[Total]
    total_squares: Mapped[Total]


class Campaign(Base):
    """The settings of a set of creatives that compete for the same impressions."""

    __tablename__ = "campaigns"
    __table_args__ = (
        _check("horizon_mode IN ('auto', 'fixed', 'none')", "horizon_mode"),
        _check("(horizon_mode = 'fixed') = (horizon IS NOT NULL)", "horizon"),
        _check("horizon >= 0", "horizon_positive"),
        _check("attribution_window_s >= 0", "attribution_window_s"),
        _check("conversion_window_s >= 0", "conversion_window_s"),
        _check("uniform_share BETWEEN 0 AND 1", "uniform_share"),
        _check("control_share BETWEEN 0 AND 1", "control_share"),
        _check("uniform_share + control_share <= 1", "uniform_share_control_share"),
        _check("ends_at > starts_at", "ends_at"),
        _check("status IN ('active', 'paused', 'ended')", "status"),
    )

    campaign_id: Mapped[Key]
    model_id: Mapped[ModelKey] = mapped_column(index=True)
    name: Mapped[str] = mapped_column(unique=True)
    objective: Mapped[str]
    horizon_mode: Mapped[str]
    horizon: Mapped[int | None]
    attribution_window_s: Mapped[float]
    conversion_window_s: Mapped[float]
    uniform_share: Mapped[float]
    control_share: Mapped[float]
    starts_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]
    status: Mapped[str] = mapped_column(server_default=text("'active'"))
    mean_content: Mapped[bytes | None]
    created_at: Mapped[datetime]
    # Counts changes of its settings and of its creatives' limits, so that other processes notice them.
    settings_version: Mapped[Count]


class Creative(Base):
    """One candidate ad. Rows stay when it is retired; ids are never used again."""

    __tablename__ = "creatives"
    __table_args__ = (
        UniqueConstraint("campaign_id", "external_id"),
        _check("status IN ('active', 'paused', 'retired')", "status"),
        _check("floor >= 0 AND floor <= cap", "floor"),
        _check("cap > 0 AND cap <= 1", "cap"),
        {"sqlite_autoincrement": True},
    )

    creative_id: Mapped[Key]
    campaign_id: Mapped[CampaignKey]
    external_id: Mapped[str]
    content: Mapped[dict[str, Any]]
    content_hash: Mapped[str]
    picture: Mapped[str | None]
    status: Mapped[str] = mapped_column(server_default=text("'active'"))
    created_at: Mapped[datetime]
    floor: Mapped[float] = mapped_column(server_default=text("0"))
    cap: Mapped[float] = mapped_column(server_default=text("1"))


class Embedding(Base):
    """The vector of one text under one encoder: little-endian float32, shared by all campaigns."""

    __tablename__ = "embeddings"

    encoder_fingerprint: Mapped[Name]
    text_hash: Mapped[Name]
    dim: Mapped[int]
    vector: Mapped[bytes]
    created_at: Mapped[datetime]


class CandidateSet(Base):
    """An ordered list of eligible creatives, stored once."""

    __tablename__ = "candidate_sets"

    candidate_set_id: Mapped[Key]
    hash: Mapped[str] = mapped_column(unique=True)
    creative_ids: Mapped[list[Any]]


class Decision(Base):
    """One impression: what was chosen, how probable that was, and what became of it."""

    __tablename__ = "decisions"
    __table_args__ = (
        _check("length(decision_id) BETWEEN 1 AND 64", "decision_id"),
        _check("propensity > 0 AND propensity <= 1", "propensity"),
        _check("list_propensity > 0 AND list_propensity <= 1", "list_propensity"),
        _check("place >= 0", "place"),
        _check("click IN (0, 1)", "click"),
        _check("(click IS NULL) = (settled_at IS NULL)", "settled"),
        _check("settled_at IS NULL OR activated_at IS NOT NULL", "activated"),
        _check("learnt_batch IS NULL OR settled_at IS NOT NULL", "learnt"),
        _check("corrected_at IS NULL OR click = 0", "corrected_at"),
        _check(
            "corrected_step IS NULL OR (corrected_at IS NOT NULL AND learnt_batch IS NOT NULL)",
            "corrected_step",
        ),
        _partial_index(
            "ix_decisions_due", "settles_at", where="settles_at IS NOT NULL AND settled_at IS NULL"
        ),
        _partial_index(
            "ix_decisions_unlearnt",
            "settled_at",
            "decision_id",
            where="settled_at IS NOT NULL AND learnt_batch IS NULL",
        ),
        _partial_index("ix_decisions_learnt", "learnt_batch", where="learnt_batch IS NOT NULL"),
        _partial_index(
            "ix_decisions_pending",
            "creative_id",
            "click",
            where="activated_at IS NOT NULL AND learnt_batch IS NULL",
        ),
        _partial_index(
            "ix_decisions_control", "campaign_id", "click", where="is_control AND learnt_batch IS NOT NULL"
        ),
        _partial_index(
            "ix_decisions_corrected",
            "corrected_at",
            where="corrected_at IS NOT NULL AND corrected_step IS NULL",
        ),
        # The share of the last day is counted inside this index.
        Index("ix_decisions_recent", "campaign_id", "activated_at", "creative_id"),
    )

    decision_id: Mapped[str] = mapped_column(IdText, primary_key=True)
    campaign_id: Mapped[CampaignKey]
    creative_id: Mapped[CreativeKey]
    candidate_set_id: Mapped[int] = mapped_column(ForeignKey("candidate_sets.candidate_set_id"))
    propensities: Mapped[list[Any]]
    propensity: Mapped[float]
    place: Mapped[int]
    request_id: Mapped[str | None]
    context: Mapped[dict[str, Any]]
    model_version: Mapped[int]
    slots_version: Mapped[int]
    horizon: Mapped[float | None]
    kappa: Mapped[float]
    point_set: Mapped[int]
    decided_at: Mapped[datetime]
    activated_at: Mapped[datetime | None]
    settles_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]
    click: Mapped[int | None]
    learnt_batch: Mapped[int | None]
    list_propensity: Mapped[float | None]
    is_control: Mapped[bool] = mapped_column(server_default=text("false"))
    # It settled with a click that was found invalid later: learnt as 1, counted as 0. Refits count it as 0
    # from the step on that took note of it.
    corrected_at: Mapped[datetime | None]
    corrected_step: Mapped[int | None]


class Outcome(Base):
    """One report about a decision, as it came; a correction is a new row."""

    __tablename__ = "outcomes"
    __table_args__ = (
        UniqueConstraint("decision_id", "kind", "key"),
        _check("kind IN ('click', 'conversion')", "kind"),
        _check("kind <> 'click' OR value IN (0, 1)", "value"),
        _partial_index("ix_outcomes_late", "received_at", where="late"),
        # Of few rows; without it the database would look at all rows for each one that is pruned.
        _partial_index("ix_outcomes_corrects", "corrects", where="corrects IS NOT NULL"),
    )

    outcome_id: Mapped[Key]
    decision_id: Mapped[DecisionKey]
    kind: Mapped[str]
    key: Mapped[str] = mapped_column(server_default=text("''"))
    value: Mapped[float]
    occurred_at: Mapped[datetime | None]
    received_at: Mapped[datetime]
    late: Mapped[bool]
    valid: Mapped[bool]
    corrects: Mapped[int | None] = mapped_column(ForeignKey("outcomes.outcome_id"))


class LearnStep(Base):
    """One step of the fold that makes the posterior, in order."""

    __tablename__ = "learn_log"
    __table_args__ = (
        _check("kind IN ('batch', 'scales', 'forget', 'refit', 'slots', 'correction')", "kind"),
        _check("n_rows >= 0", "n_rows"),
    )

    model_id: Mapped[ModelPart]
    step: Mapped[Number]
    kind: Mapped[str]
    parameters: Mapped[dict[str, Any]]
    n_rows: Mapped[int]
    logged_at: Mapped[datetime]


class Posterior(Base):
    """A snapshot of the shared arrays as of a learning step: safetensors bytes."""

    __tablename__ = "posteriors"

    model_id: Mapped[ModelPart]
    step: Mapped[Number]
    snapshot: Mapped[bytes]
    created_at: Mapped[datetime]


class ArmState(Base):
    """What data taught about one arm as of a learning step; u is little-endian float64."""

    __tablename__ = "arm_states"
    __table_args__ = (Index("ix_arm_states_model_id_step", "model_id", "step"),)

    creative_id: Mapped[CreativePart]
    model_id: Mapped[ModelKey]
    step: Mapped[int]
    u: Mapped[bytes]
    q: Mapped[float]
    k: Mapped[float]


class ArmStatistics(Base):
    """What people read of a creative: learnt counts, and the posterior as of a version."""

    __tablename__ = "arm_statistics"
    __table_args__ = (_check("clicks BETWEEN 0 AND impressions", "clicks"),)

    creative_id: Mapped[CreativePart]
    impressions: Mapped[Count]
    clicks: Mapped[Count]
    conversions: Mapped[Count]
    value: Mapped[Total]
    pending_impressions: Mapped[Count]
    pending_clicks: Mapped[Count]
    ctr: Mapped[float | None]
    ctr_low: Mapped[float | None]
    ctr_high: Mapped[float | None]
    p_best: Mapped[float | None]
    expected_loss: Mapped[float | None]
    share: Mapped[float | None]
    version: Mapped[int | None]
    refreshed_at: Mapped[datetime | None]
    value_remaining: Mapped[float | None]


class HistoryCount(Base):
    """What one import told of a creative in one context: it feeds refits and is shown apart."""

    __tablename__ = "history_counts"
    __table_args__ = (_check("clicks BETWEEN 0 AND impressions", "clicks"),)

    creative_id: Mapped[CreativePart]
    import_id: Mapped[Name]
    # Of the context's canonical text: a context may be longer than PostgreSQL lets a key be.
    context_hash: Mapped[Name]
    context: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    slots_version: Mapped[Count]
    impressions: Mapped[int]
    clicks: Mapped[int]
    imported_at: Mapped[datetime]


class HistoryImport(Base):
    """One import of history, so that repeating it after a failure does not count twice."""

    __tablename__ = "history_imports"

    model_id: Mapped[ModelPart]
    import_id: Mapped[Name]
    impressions: Mapped[int]
    clicks: Mapped[int]
    imported_at: Mapped[datetime]


class PrunedCount(Base):
    """Counts of learnt decisions whose rows were pruned, by day of the impression (UTC) and context."""

    __tablename__ = "pruned_counts"
    __table_args__ = (_check("clicks BETWEEN 0 AND impressions", "clicks"),)

    creative_id: Mapped[CreativePart]
    day: Mapped[date] = mapped_column(primary_key=True)
    slots_version: Mapped[Number]
    # The last step that forgot something before these were learnt; 0 before the first: a refit weighs by it.
    forgotten_step: Mapped[Number]
    is_control: Mapped[bool] = mapped_column(primary_key=True)
    # Of the context's canonical text, as in history_counts.
    context_hash: Mapped[Name]
    context: Mapped[dict[str, Any]]
    impressions: Mapped[Count]
    clicks: Mapped[Count]
    conversions: Mapped[Count]
    value: Mapped[Total]


class ModelLog(Base):
    """What a learning step reported about itself."""

    __tablename__ = "model_log"
    __table_args__ = (ForeignKeyConstraint(["model_id", "step"], ["learn_log.model_id", "learn_log.step"]),)

    model_id: Mapped[ModelPart]
    step: Mapped[Number]
    info: Mapped[dict[str, Any]]


class Lease(Base):
    """Who learns a model, by the database's clock; the number fences off an earlier holder."""

    __tablename__ = "leases"

    model_id: Mapped[ModelPart]
    number: Mapped[int]
    owner: Mapped[str]
    expires_at: Mapped[datetime]
