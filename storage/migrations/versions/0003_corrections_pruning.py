"""Corrections of what was learnt, and what pruned counts must tell of the decisions that they stand for."""

import sqlalchemy as sa
from alembic import op

from storage.columns import BigInt

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    dialect = op.get_bind().dialect
    integer = BigInt.compile(dialect=dialect)
    time = "TIMESTAMP WITH TIME ZONE" if dialect.name == "postgresql" else "TEXT"
    # Written out for the same reason as in 0002: alembic would copy the table on SQLite.
    for table, column in (
        ("decisions", f"corrected_at {time} {_check('corrected_at', 'corrected_at IS NULL OR click = 0')}"),
        (
            "decisions",
            f"corrected_step {integer} "
            + _check(
                "corrected_step",
                "corrected_step IS NULL OR (corrected_at IS NOT NULL AND learnt_batch IS NOT NULL)",
            ),
        ),
        ("pruned_counts", "is_control BOOLEAN DEFAULT false NOT NULL"),
        ("pruned_counts", f"forgotten_step {integer} DEFAULT 0 NOT NULL"),
    ):
        op.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
    _create_partial_index(
        "ix_decisions_corrected",
        "decisions",
        "corrected_at",
        "corrected_at IS NOT NULL AND corrected_step IS NULL",
    )
    _create_partial_index("ix_outcomes_corrects", "outcomes", "corrects", "corrects IS NOT NULL")


def _check(name: str, is_so: str) -> str:
    return f"CONSTRAINT ck_decisions_{name} CHECK ({is_so})"


def _create_partial_index(name: str, table: str, column: str, where: str) -> None:
    op.create_index(
        name, table, [column], unique=False, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
    )
