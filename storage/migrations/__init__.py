"""The schema's history, for alembic; `storage.versions` runs it."""
