"""The one place where a database's error becomes one of ours."""

import sqlite3
from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from storage.errors import (
    DatabaseDamagedError,
    DatabaseFailedError,
    DatabaseHeldError,
    DatabasePathError,
    DatabaseReadOnlyError,
    InvalidValueError,
    NotADatabaseError,
    ServerUnreachableError,
    StorageError,
)

# After these PostgreSQL has rolled the transaction back, and asks for it again.
TRANSIENT_SQLSTATES: Final = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "25P03",  # idle_in_transaction_session_timeout: our process was stopped inside it, and goes on
    }
)

# SQLite's primary result codes (the low byte of the extended ones).
SQLITE_ERRORS: Final[dict[int, tuple[type[StorageError], str]]] = {
    sqlite3.SQLITE_BUSY: (
        DatabaseHeldError,
        "{url} is held by another process; close it there, or wait longer with busy_timeout_s",
    ),
    sqlite3.SQLITE_LOCKED: (
        DatabaseHeldError,
        "{url} is held by another connection; close it there, or wait longer with busy_timeout_s",
    ),
    sqlite3.SQLITE_READONLY: (
        DatabaseReadOnlyError,
        "{url} is read-only for us; give this user the right to write the file and its folder",
    ),
    sqlite3.SQLITE_PERM: (
        DatabaseReadOnlyError,
        "{url} may not be opened by this user; change its rights",
    ),
    sqlite3.SQLITE_NOTADB: (
        NotADatabaseError,
        "{url} is not an SQLite database; give another file, or a new name to start a new one",
    ),
    sqlite3.SQLITE_CORRUPT: (
        DatabaseDamagedError,
        "{url} is damaged; restore a backup, or try the sqlite3 command .recover",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        DatabasePathError,
        "{url} cannot be opened; check that its folder exists and may be written",
    ),
    sqlite3.SQLITE_FULL: (
        DatabaseFailedError,
        "{url}: the disk is full; free some space, then try again",
    ),
    sqlite3.SQLITE_IOERR: (
        DatabaseFailedError,
        "{url}: the disk cannot be read or written; check it",
    ),
}
POSTGRES_ERRORS: Final[tuple[tuple[type[psycopg.Error], type[StorageError], str], ...]] = (
    (
        psycopg.errors.DiskFull,
        DatabaseFailedError,
        "{url}: the server's disk is full; free some space there, then try again",
    ),
    (
        psycopg.errors.LockNotAvailable,
        DatabaseHeldError,
        "{url}: rows are held by another session; see pg_stat_activity for whose",
    ),
    (
        psycopg.errors.ReadOnlySqlTransaction,
        DatabaseReadOnlyError,
        "{url} takes no writes; connect to the primary server",
    ),
    (
        psycopg.errors.InsufficientPrivilege,
        DatabaseReadOnlyError,
        "{url}: this user may not do that; ask for the right to read and write our tables",
    ),
)


def is_transient(error: Exception) -> bool:
    """Whether the same transaction, tried again, can succeed: the server undid it to let others go on."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    return isinstance(cause, psycopg.Error) and cause.sqlstate in TRANSIENT_SQLSTATES


def has_broken(error: Exception) -> bool:
    """Whether the connection broke while it was used; one that cannot be made is no such error."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def translate(error: SQLAlchemyError | sqlite3.Error | psycopg.Error, url: str) -> StorageError:
    """Return our error for one that SQLAlchemy, or a driver, raised.

    Args:
        error: What was caught.
        url: The database, as people may see it (no password).

    Returns:
        The error to raise; it says what to do. The caller chains the original.
    """
    cause = error.orig if isinstance(error, StatementError) else error
    if isinstance(cause, StorageError):  # a column type refused a value
        return cause
    if isinstance(cause, sqlite3.Error):
        return _translate_sqlite(cause, url)
    if isinstance(cause, psycopg.Error):
        return _translate_postgres(cause, url, is_lost=getattr(error, "connection_invalidated", False))
    if isinstance(cause, OverflowError | UnicodeError):
        return InvalidValueError(
            f"{url}: a value does not fit its column: {cause}; whole numbers have 64 bits"
        )
    if isinstance(error, PoolTimeoutError):
        return DatabaseHeldError(f"{url}: all connections are in use; use fewer threads ({error})")
    return DatabaseFailedError(f"{url}: {error}")


def _translate_sqlite(cause: sqlite3.Error, url: str) -> StorageError:
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_CONSTRAINT:
        return InvalidValueError(f"{url} refuses a row: {cause}; nothing was written")
    if code in SQLITE_ERRORS:
        kind, message = SQLITE_ERRORS[code]
        return kind(message.format(url=url) + f" ({cause})")
    return DatabaseFailedError(f"{url}: {cause}; see the chained error for the statement")


def _translate_postgres(cause: psycopg.Error, url: str, *, is_lost: bool) -> StorageError:
    for their_kind, kind, message in POSTGRES_ERRORS:
        if isinstance(cause, their_kind):
            return kind(message.format(url=url) + f" ({_one_line(cause)})")
    if isinstance(cause, psycopg.errors.IntegrityError | psycopg.errors.DataError):
        return InvalidValueError(f"{url} refuses a row: {_one_line(cause)}; nothing was written")
    # No SQLSTATE: the connection failed before the server said anything; 08: it broke.
    if is_lost or cause.sqlstate is None or cause.sqlstate.startswith(("08", "28", "3D", "57P")):
        return ServerUnreachableError(
            f"{url} does not answer or refuses us: {_one_line(cause)}; "
            "check that the server runs, the database's name, the user and the password"
        )
    return DatabaseFailedError(f"{url}: {_one_line(cause)}; see the chained error for the statement")


def _one_line(cause: psycopg.Error) -> str:
    return " ".join(str(cause).split())
