"""Which schema a database has, and how it gets the newest one."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

import storage.schema.tables  # noqa: F401  fills the metadata
from storage.database.session import Database
from storage.database.urls import database_url, sqlite_path
from storage.errors import (
    DatabaseNotFoundError,
    DatabasePathError,
    DatabaseReadOnlyError,
    ForeignDatabaseError,
    SchemaNewerError,
    SchemaOlderError,
)
from storage.schema.columns import Base
from storage.schema.views import create_views, drop_views

# Not alembic's usual name: our tables may share a PostgreSQL schema with those of a host program.
VERSION_TABLE: Final = "creative_bandit_version"
HAS_EFFECTIVE_IDS: Final = os.access in os.supports_effective_ids
UPGRADE_LOCK: Final = 0x6372_6561_7469  # any number, as long as all our processes use the same

State = Literal["missing", "empty", "current", "older", "newer", "foreign"]


@dataclass(frozen=True, kw_only=True)
class SchemaStatus:
    """What stands at a place.

    Attributes:
        display_url: The database, without its password.
        state: missing (no file), empty (no table of ours), current, older, newer, or foreign (not ours).
        revision: The stamp found there.
        head: The stamp that this version writes.
    """

    display_url: str
    state: State
    revision: str | None
    head: str


def schema_status(url: str | os.PathLike[str], *, busy_timeout_s: float = 5.0) -> SchemaStatus:
    """Look which schema a database has, without changing anything.

    Args:
        url: A path of an SQLite file, or a URL.
        busy_timeout_s: How long SQLite waits for a lock, in seconds.

    Returns:
        The state and both stamps.

    Raises:
        StorageError: The place cannot be read.
    """
    target = database_url(url)
    database = Database(target, busy_timeout_s=busy_timeout_s)
    try:
        path = sqlite_path(target)
        if path is not None and not path.exists():
            return SchemaStatus(
                display_url=database.display_url, state="missing", revision=None, head=head_revision()
            )
        _check_path(path, database.display_url)
        return database.read(lambda connection: _status(connection, database.display_url))
    finally:
        database.close()


def upgrade(url: str | os.PathLike[str], *, busy_timeout_s: float = 5.0) -> SchemaStatus:
    """Bring an existing database of ours to the newest schema, in one transaction.

    Args:
        url: A path of an SQLite file, or a URL.
        busy_timeout_s: How long SQLite waits for a lock, in seconds.

    Returns:
        What was there before.

    Raises:
        DatabaseNotFoundError: There is no database of ours.
        SchemaNewerError: It is newer than this version.
        StorageError: The place cannot be opened or written.
    """
    target = database_url(url)
    database = Database(target, busy_timeout_s=busy_timeout_s)
    try:
        return prepare(database, sqlite_path(target), create=False, migrate=True)
    finally:
        database.close()


def prepare(database: Database, path: Path | None, *, create: bool, migrate: bool) -> SchemaStatus:
    """Make sure that the database has the newest schema.

    Args:
        database: The open database.
        path: Its file, for SQLite.
        create: Whether a new one may be made.
        migrate: Whether an older one may be changed.

    Returns:
        What was there before.

    Raises:
        StorageError: One of the errors that `Store.open` lists.
    """
    display_url = database.display_url
    if path is not None and not path.exists() and not create:
        raise DatabaseNotFoundError(
            f"there is no database at {display_url}; check the path, or let it be created"
        )
    _check_path(path, display_url)
    status = (
        SchemaStatus(display_url=display_url, state="missing", revision=None, head=head_revision())
        if path is not None and not path.exists()
        else database.read(lambda connection: _status(connection, display_url))
    )
    _refuse(status, create=create, migrate=migrate)
    if status.state == "current":
        return status
    if status.state in ("missing", "empty"):
        database.use_wal()
    return database.write(
        lambda connection: _migrate(connection, display_url, create=create, migrate=migrate)
    )


@cache
def head_revision() -> str:
    """Return the stamp of the newest schema that this version knows."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None, "the package ships at least one migration"  # noqa: S101  narrows the type
    return head


@cache
def _known_revisions() -> frozenset[str]:
    scripts = ScriptDirectory.from_config(_config())
    return frozenset(script.revision for script in scripts.walk_revisions())


def _migrate(connection: Connection, display_url: str, *, create: bool, migrate: bool) -> SchemaStatus:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
    # Another process may have done it while this one waited.
    status = _status(connection, display_url)
    _refuse(status, create=create, migrate=migrate)
    if status.state != "current":
        drop_views(connection)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        create_views(connection)
    return status


def _status(connection: Connection, display_url: str) -> SchemaStatus:
    tables = set(inspect(connection).get_table_names())
    head = head_revision()
    if VERSION_TABLE not in tables:
        # A PostgreSQL schema is often shared; an SQLite file with other tables is somebody else's.
        theirs = tables if connection.dialect.name == "sqlite" else tables & set(Base.metadata.tables)
        return SchemaStatus(
            display_url=display_url, state="foreign" if theirs else "empty", revision=None, head=head
        )
    migration = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    revision = migration.get_current_revision()
    is_older = revision is None or revision in _known_revisions()
    state: State = "current" if revision == head else "older" if is_older else "newer"
    return SchemaStatus(display_url=display_url, state=state, revision=revision, head=head)


def _refuse(status: SchemaStatus, *, create: bool, migrate: bool) -> None:
    display_url, revision, head = status.display_url, status.revision, status.head
    if status.state == "foreign":
        raise ForeignDatabaseError(
            f"{display_url} holds tables that creative-bandit did not make; "
            "give another place, or an empty database"
        )
    if status.state == "newer":
        raise SchemaNewerError(
            f"{display_url} was made by a newer creative-bandit: its schema is {revision}, this version "
            f"knows up to {head}; install the newer version"
        )
    if status.state == "older" and not migrate:
        raise SchemaOlderError(
            f"{display_url} has the older schema {revision}, this version needs {head}; "
            f"make a copy, then run: creative-bandit storage upgrade {display_url}"
        )
    if status.state == "empty" and not create:
        raise DatabaseNotFoundError(
            f"there is no creative-bandit database at {display_url}: it has no tables; check the place, "
            "or let it be created"
        )


def _check_path(path: Path | None, display_url: str) -> None:
    """Check what SQLite itself would only say with "unable to open database file"."""
    if path is None:
        return
    if path.is_dir():
        raise DatabasePathError(
            f"{display_url} is a folder; give the path of a file, such as {path / 'ads.db'}"
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise DatabasePathError(f"the folder {folder} of {display_url} does not exist; create it first")
    for part in (path, folder):  # write-ahead logging keeps two more files beside the database
        if part.exists() and not os.access(part, os.W_OK, effective_ids=HAS_EFFECTIVE_IDS):
            raise DatabaseReadOnlyError(
                f"{display_url}: {part} is read-only; give this user the right to write it"
            )


def _config() -> Config:
    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).parents[1] / "migrations").replace("%", "%%")
    )
    config.set_main_option("path_separator", "os")
    config.attributes["version_table"] = VERSION_TABLE
    return config
