"""The schema's history, for alembic; `storage.maintenance.upgrade` runs it."""
