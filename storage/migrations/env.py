"""What alembic runs: it gets an open connection, inside the transaction of `storage.maintenance.upgrade`."""

from alembic import context

import storage.schema.tables  # noqa: F401  fills the metadata
from storage.schema.columns import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=context.config.attributes["version_table"],
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
