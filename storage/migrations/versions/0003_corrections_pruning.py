"""Corrections of what was learnt, and what pruned counts must tell of the decisions that they stand for."""

import sqlalchemy as sa
from alembic import op

from storage.schema.columns import BigInt, CanonicalJson

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    dialect = op.get_bind().dialect
    integer = BigInt.compile(dialect=dialect)
    time = "TIMESTAMP WITH TIME ZONE" if dialect.name == "postgresql" else "TEXT"
    # Written out for the same reason as in 0002: alembic would copy the table on SQLite.
    for name, kind, is_so in (
        ("corrected_at", time, "corrected_at IS NULL OR click = 0"),
        (
            "corrected_step",
            integer,
            "corrected_step IS NULL OR (corrected_at IS NOT NULL AND learnt_batch IS NOT NULL)",
        ),
    ):
        check = f"CONSTRAINT ck_decisions_{name} CHECK ({is_so})"
        op.execute(f"ALTER TABLE decisions ADD COLUMN {name} {kind} {check}")
    _create_partial_index(
        "ix_decisions_corrected",
        "decisions",
        "corrected_at",
        "corrected_at IS NOT NULL AND corrected_step IS NULL",
    )
    _create_partial_index("ix_outcomes_corrects", "outcomes", "corrects", "corrects IS NOT NULL")
    _make_pruned_counts()


def _create_partial_index(name: str, table: str, column: str, where: str) -> None:
    op.create_index(
        name, table, [column], unique=False, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
    )


def _make_pruned_counts() -> None:
    """Make the table anew with its natural key; no version before this one wrote a row into it."""
    op.drop_table("pruned_counts")
    op.create_table(
        "pruned_counts",
        sa.Column("creative_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("slots_version", BigInt, autoincrement=False, nullable=False),
        sa.Column("forgotten_step", BigInt, autoincrement=False, nullable=False),
        sa.Column("is_control", sa.Boolean(), nullable=False),
        sa.Column("context_hash", sa.Text(), nullable=False),
        sa.Column("context", CanonicalJson(), nullable=False),
        sa.Column("impressions", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("clicks", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("conversions", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("value", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("clicks BETWEEN 0 AND impressions", name=op.f("ck_pruned_counts_clicks")),
        sa.ForeignKeyConstraint(
            ["creative_id"], ["creatives.creative_id"], name=op.f("fk_pruned_counts_creative_id_creatives")
        ),
        sa.PrimaryKeyConstraint(
            *("creative_id", "day", "slots_version", "forgotten_step", "is_control", "context_hash"),
            name=op.f("pk_pruned_counts"),
        ),
    )
