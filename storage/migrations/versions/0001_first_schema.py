"""The first schema."""

import sqlalchemy as sa
from alembic import op

from storage.schema.columns import BigInt, CanonicalJson, IdText, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "candidate_sets",
        sa.Column("candidate_set_id", BigInt, nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("creative_ids", CanonicalJson(), nullable=False),
        sa.PrimaryKeyConstraint("candidate_set_id", name=op.f("pk_candidate_sets")),
        sa.UniqueConstraint("hash", name=op.f("uq_candidate_sets_hash")),
    )
    op.create_table(
        "embeddings",
        sa.Column("encoder_fingerprint", sa.Text(), nullable=False),
        sa.Column("text_hash", sa.Text(), nullable=False),
        sa.Column("dim", BigInt, nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("encoder_fingerprint", "text_hash", name=op.f("pk_embeddings")),
    )
    op.create_table(
        "models",
        sa.Column("model_id", BigInt, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seed", BigInt, nullable=False),
        sa.Column("encoder_fingerprint", sa.Text(), nullable=True),
        sa.Column("components", sa.LargeBinary(), nullable=True),
        sa.Column("settings", CanonicalJson(), nullable=False),
        sa.PrimaryKeyConstraint("model_id", name=op.f("pk_models")),
        sa.UniqueConstraint("name", name=op.f("uq_models_name")),
    )
    op.create_table(
        "campaigns",
        sa.Column("campaign_id", BigInt, nullable=False),
        sa.Column("model_id", BigInt, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("objective", sa.Text(), nullable=False),
        sa.Column("horizon_mode", sa.Text(), nullable=False),
        sa.Column("horizon", BigInt, nullable=True),
        sa.Column("attribution_window_s", sa.Double(), nullable=False),
        sa.Column("conversion_window_s", sa.Double(), nullable=False),
        sa.Column("uniform_share", sa.Double(), nullable=False),
        sa.Column("control_share", sa.Double(), nullable=False),
        sa.Column("starts_at", UtcDateTime(), nullable=True),
        sa.Column("ends_at", UtcDateTime(), nullable=True),
        sa.Column("status", sa.Text(), server_default=sa.text("'active'"), nullable=False),
        sa.Column("mean_content", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint(
            "(horizon_mode = 'fixed') = (horizon IS NOT NULL)", name=op.f("ck_campaigns_horizon")
        ),
        sa.CheckConstraint(
            "horizon_mode IN ('auto', 'fixed', 'none')", name=op.f("ck_campaigns_horizon_mode")
        ),
        sa.CheckConstraint("status IN ('active', 'paused', 'ended')", name=op.f("ck_campaigns_status")),
        sa.CheckConstraint("attribution_window_s >= 0", name=op.f("ck_campaigns_attribution_window_s")),
        sa.CheckConstraint("control_share BETWEEN 0 AND 1", name=op.f("ck_campaigns_control_share")),
        sa.CheckConstraint("conversion_window_s >= 0", name=op.f("ck_campaigns_conversion_window_s")),
        sa.CheckConstraint("ends_at > starts_at", name=op.f("ck_campaigns_ends_at")),
        sa.CheckConstraint("horizon >= 0", name=op.f("ck_campaigns_horizon_positive")),
        sa.CheckConstraint("uniform_share BETWEEN 0 AND 1", name=op.f("ck_campaigns_uniform_share")),
        sa.ForeignKeyConstraint(["model_id"], ["models.model_id"], name=op.f("fk_campaigns_model_id_models")),
        sa.PrimaryKeyConstraint("campaign_id", name=op.f("pk_campaigns")),
        sa.UniqueConstraint("name", name=op.f("uq_campaigns_name")),
    )
    op.create_index(op.f("ix_campaigns_model_id"), "campaigns", ["model_id"], unique=False)
    op.create_table(
        "context_fields",
        sa.Column("model_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('string', 'number', 'boolean')", name=op.f("ck_context_fields_kind")),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.model_id"], name=op.f("fk_context_fields_model_id_models")
        ),
        sa.PrimaryKeyConstraint("model_id", "field", name=op.f("pk_context_fields")),
    )
    op.create_table(
        "learn_log",
        sa.Column("model_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("step", BigInt, autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("parameters", CanonicalJson(), nullable=False),
        sa.Column("n_rows", BigInt, nullable=False),
        sa.Column("logged_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('batch', 'scales', 'forget', 'refit', 'slots', 'correction')",
            name=op.f("ck_learn_log_kind"),
        ),
        sa.CheckConstraint("n_rows >= 0", name=op.f("ck_learn_log_n_rows")),
        sa.ForeignKeyConstraint(["model_id"], ["models.model_id"], name=op.f("fk_learn_log_model_id_models")),
        sa.PrimaryKeyConstraint("model_id", "step", name=op.f("pk_learn_log")),
    )
    op.create_table(
        "leases",
        sa.Column("model_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("number", BigInt, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.model_id"], name=op.f("fk_leases_model_id_models")),
        sa.PrimaryKeyConstraint("model_id", name=op.f("pk_leases")),
    )
    op.create_table(
        "posteriors",
        sa.Column("model_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("step", BigInt, autoincrement=False, nullable=False),
        sa.Column("snapshot", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.model_id"], name=op.f("fk_posteriors_model_id_models")
        ),
        sa.PrimaryKeyConstraint("model_id", "step", name=op.f("pk_posteriors")),
    )
    op.create_table(
        "context_counts",
        sa.Column("model_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("decisions", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("total", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("total_squares", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("decisions >= 0", name=op.f("ck_context_counts_decisions")),
        sa.ForeignKeyConstraint(
            ["model_id", "field"],
            ["context_fields.model_id", "context_fields.field"],
            name=op.f("fk_context_counts_model_id_field_context_fields"),
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.model_id"], name=op.f("fk_context_counts_model_id_models")
        ),
        sa.PrimaryKeyConstraint("model_id", "field", "level", name=op.f("pk_context_counts")),
    )
    op.create_table(
        "context_slots",
        sa.Column("model_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("slot", BigInt, autoincrement=False, nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=True),
        sa.Column("mean", sa.Double(), nullable=True),
        sa.Column("sd", sa.Double(), nullable=True),
        sa.Column("version", BigInt, nullable=False),
        sa.Column("moments_version", BigInt, nullable=True),
        sa.CheckConstraint("(mean IS NULL) = (moments_version IS NULL)", name=op.f("ck_context_slots_mean")),
        sa.CheckConstraint("(sd IS NULL) = (moments_version IS NULL)", name=op.f("ck_context_slots_sd")),
        sa.CheckConstraint("sd > 0", name=op.f("ck_context_slots_sd_positive")),
        sa.CheckConstraint("slot >= 0", name=op.f("ck_context_slots_slot")),
        sa.ForeignKeyConstraint(
            ["model_id", "field"],
            ["context_fields.model_id", "context_fields.field"],
            name=op.f("fk_context_slots_model_id_field_context_fields"),
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.model_id"], name=op.f("fk_context_slots_model_id_models")
        ),
        sa.PrimaryKeyConstraint("model_id", "slot", name=op.f("pk_context_slots")),
        sa.UniqueConstraint("model_id", "field", "level", name=op.f("uq_context_slots_model_id_field_level")),
    )
    op.create_index(
        "uq_context_slots_model_id_field",
        "context_slots",
        ["model_id", "field"],
        unique=True,
        sqlite_where=sa.text("level IS NULL"),
        postgresql_where=sa.text("level IS NULL"),
    )
    op.create_table(
        "creatives",
        sa.Column("creative_id", BigInt, nullable=False),
        sa.Column("campaign_id", BigInt, nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("content", CanonicalJson(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("picture", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), server_default=sa.text("'active'"), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("status IN ('active', 'paused', 'retired')", name=op.f("ck_creatives_status")),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.campaign_id"], name=op.f("fk_creatives_campaign_id_campaigns")
        ),
        sa.PrimaryKeyConstraint("creative_id", name=op.f("pk_creatives")),
        sa.UniqueConstraint("campaign_id", "external_id", name=op.f("uq_creatives_campaign_id_external_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "model_log",
        sa.Column("model_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("step", BigInt, autoincrement=False, nullable=False),
        sa.Column("info", CanonicalJson(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id", "step"],
            ["learn_log.model_id", "learn_log.step"],
            name=op.f("fk_model_log_model_id_step_learn_log"),
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.model_id"], name=op.f("fk_model_log_model_id_models")),
        sa.PrimaryKeyConstraint("model_id", "step", name=op.f("pk_model_log")),
    )
    op.create_table(
        "arm_states",
        sa.Column("creative_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("model_id", BigInt, nullable=False),
        sa.Column("step", BigInt, nullable=False),
        sa.Column("u", sa.LargeBinary(), nullable=False),
        sa.Column("q", sa.Double(), nullable=False),
        sa.Column("k", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["creative_id"], ["creatives.creative_id"], name=op.f("fk_arm_states_creative_id_creatives")
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.model_id"], name=op.f("fk_arm_states_model_id_models")
        ),
        sa.PrimaryKeyConstraint("creative_id", name=op.f("pk_arm_states")),
    )
    op.create_index("ix_arm_states_model_id_step", "arm_states", ["model_id", "step"], unique=False)
    op.create_table(
        "arm_statistics",
        sa.Column("creative_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("impressions", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("clicks", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("conversions", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("value", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("pending_impressions", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("pending_clicks", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("ctr", sa.Double(), nullable=True),
        sa.Column("ctr_low", sa.Double(), nullable=True),
        sa.Column("ctr_high", sa.Double(), nullable=True),
        sa.Column("p_best", sa.Double(), nullable=True),
        sa.Column("expected_loss", sa.Double(), nullable=True),
        sa.Column("share", sa.Double(), nullable=True),
        sa.Column("version", BigInt, nullable=True),
        sa.Column("refreshed_at", UtcDateTime(), nullable=True),
        sa.CheckConstraint("clicks BETWEEN 0 AND impressions", name=op.f("ck_arm_statistics_clicks")),
        sa.ForeignKeyConstraint(
            ["creative_id"], ["creatives.creative_id"], name=op.f("fk_arm_statistics_creative_id_creatives")
        ),
        sa.PrimaryKeyConstraint("creative_id", name=op.f("pk_arm_statistics")),
    )
    op.create_table(
        "decisions",
        sa.Column("decision_id", IdText, nullable=False),
        sa.Column("campaign_id", BigInt, nullable=False),
        sa.Column("creative_id", BigInt, nullable=False),
        sa.Column("candidate_set_id", BigInt, nullable=False),
        sa.Column("propensities", CanonicalJson(), nullable=False),
        sa.Column("propensity", sa.Double(), nullable=False),
        sa.Column("place", BigInt, nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("context", CanonicalJson(), nullable=False),
        sa.Column("model_version", BigInt, nullable=False),
        sa.Column("slots_version", BigInt, nullable=False),
        sa.Column("horizon", sa.Double(), nullable=True),
        sa.Column("kappa", sa.Double(), nullable=False),
        sa.Column("point_set", BigInt, nullable=False),
        sa.Column("decided_at", UtcDateTime(), nullable=False),
        sa.Column("activated_at", UtcDateTime(), nullable=True),
        sa.Column("settles_at", UtcDateTime(), nullable=True),
        sa.Column("closed_at", UtcDateTime(), nullable=True),
        sa.Column("settled_at", UtcDateTime(), nullable=True),
        sa.Column("click", BigInt, nullable=True),
        sa.Column("learnt_batch", BigInt, nullable=True),
        sa.CheckConstraint("(click IS NULL) = (settled_at IS NULL)", name=op.f("ck_decisions_settled")),
        sa.CheckConstraint("click IN (0, 1)", name=op.f("ck_decisions_click")),
        sa.CheckConstraint(
            "learnt_batch IS NULL OR settled_at IS NOT NULL", name=op.f("ck_decisions_learnt")
        ),
        sa.CheckConstraint("length(decision_id) BETWEEN 1 AND 64", name=op.f("ck_decisions_decision_id")),
        sa.CheckConstraint("place >= 0", name=op.f("ck_decisions_place")),
        sa.CheckConstraint("propensity > 0 AND propensity <= 1", name=op.f("ck_decisions_propensity")),
        sa.CheckConstraint(
            "settled_at IS NULL OR activated_at IS NOT NULL", name=op.f("ck_decisions_activated")
        ),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.campaign_id"], name=op.f("fk_decisions_campaign_id_campaigns")
        ),
        sa.ForeignKeyConstraint(
            ["candidate_set_id"],
            ["candidate_sets.candidate_set_id"],
            name=op.f("fk_decisions_candidate_set_id_candidate_sets"),
        ),
        sa.ForeignKeyConstraint(
            ["creative_id"], ["creatives.creative_id"], name=op.f("fk_decisions_creative_id_creatives")
        ),
        sa.PrimaryKeyConstraint("decision_id", name=op.f("pk_decisions")),
    )
    op.create_index(
        "ix_decisions_due",
        "decisions",
        ["settles_at"],
        unique=False,
        sqlite_where=sa.text("settles_at IS NOT NULL AND settled_at IS NULL"),
        postgresql_where=sa.text("settles_at IS NOT NULL AND settled_at IS NULL"),
    )
    op.create_index(
        "ix_decisions_learnt",
        "decisions",
        ["learnt_batch"],
        unique=False,
        sqlite_where=sa.text("learnt_batch IS NOT NULL"),
        postgresql_where=sa.text("learnt_batch IS NOT NULL"),
    )
    op.create_index(
        "ix_decisions_pending",
        "decisions",
        ["creative_id", "click"],
        unique=False,
        sqlite_where=sa.text("activated_at IS NOT NULL AND learnt_batch IS NULL"),
        postgresql_where=sa.text("activated_at IS NOT NULL AND learnt_batch IS NULL"),
    )
    op.create_index(
        "ix_decisions_recent", "decisions", ["campaign_id", "activated_at", "creative_id"], unique=False
    )
    op.create_index(
        "ix_decisions_unlearnt",
        "decisions",
        ["settled_at", "decision_id"],
        unique=False,
        sqlite_where=sa.text("settled_at IS NOT NULL AND learnt_batch IS NULL"),
        postgresql_where=sa.text("settled_at IS NOT NULL AND learnt_batch IS NULL"),
    )
    op.create_table(
        "history_counts",
        sa.Column("creative_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("impressions", BigInt, nullable=False),
        sa.Column("clicks", BigInt, nullable=False),
        sa.Column("imported_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("clicks BETWEEN 0 AND impressions", name=op.f("ck_history_counts_clicks")),
        sa.ForeignKeyConstraint(
            ["creative_id"], ["creatives.creative_id"], name=op.f("fk_history_counts_creative_id_creatives")
        ),
        sa.PrimaryKeyConstraint("creative_id", name=op.f("pk_history_counts")),
    )
    op.create_table(
        "pruned_counts",
        sa.Column("pruned_count_id", BigInt, nullable=False),
        sa.Column("creative_id", BigInt, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("slots_version", BigInt, nullable=False),
        sa.Column("context", CanonicalJson(), nullable=False),
        sa.Column("impressions", BigInt, nullable=False),
        sa.Column("clicks", BigInt, nullable=False),
        sa.Column("conversions", BigInt, nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.CheckConstraint("clicks BETWEEN 0 AND impressions", name=op.f("ck_pruned_counts_clicks")),
        sa.ForeignKeyConstraint(
            ["creative_id"], ["creatives.creative_id"], name=op.f("fk_pruned_counts_creative_id_creatives")
        ),
        sa.PrimaryKeyConstraint("pruned_count_id", name=op.f("pk_pruned_counts")),
    )
    op.create_index("ix_pruned_counts_creative_id_day", "pruned_counts", ["creative_id", "day"], unique=False)
    op.create_table(
        "outcomes",
        sa.Column("outcome_id", BigInt, nullable=False),
        sa.Column("decision_id", IdText, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("occurred_at", UtcDateTime(), nullable=True),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("valid", sa.Boolean(), nullable=False),
        sa.Column("corrects", BigInt, nullable=True),
        sa.CheckConstraint("kind <> 'click' OR value IN (0, 1)", name=op.f("ck_outcomes_value")),
        sa.CheckConstraint("kind IN ('click', 'conversion')", name=op.f("ck_outcomes_kind")),
        sa.ForeignKeyConstraint(
            ["corrects"], ["outcomes.outcome_id"], name=op.f("fk_outcomes_corrects_outcomes")
        ),
        sa.ForeignKeyConstraint(
            ["decision_id"], ["decisions.decision_id"], name=op.f("fk_outcomes_decision_id_decisions")
        ),
        sa.PrimaryKeyConstraint("outcome_id", name=op.f("pk_outcomes")),
        sa.UniqueConstraint("decision_id", "kind", "key", name=op.f("uq_outcomes_decision_id_kind_key")),
    )
    op.create_index(
        "ix_outcomes_late",
        "outcomes",
        ["received_at"],
        unique=False,
        sqlite_where=sa.text("late"),
        postgresql_where=sa.text("late"),
    )
