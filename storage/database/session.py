"""Connections and transactions: what SQLite and PostgreSQL do differently in them is known here."""

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Literal, TypeVar, cast, final

import psycopg
import psycopg.sql
from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from storage.database.error_translation import has_broken, is_transient, translate
from storage.database.urls import shown
from storage.errors import DatabaseHeldError

T = TypeVar("T")

Durability = Literal["normal", "full", "relaxed"]

MAX_ATTEMPTS: Final = 5
FIRST_PAUSE_S: Final = 0.01  # doubled each time, with jitter: five attempts take less than half a second
CONNECT_TIMEOUT_S: Final = 10
# SQLite looks for a lock after 1, 2 and 5 ms, later each 0.1 s: among busy writers it finds none for seconds.
LOOK_AGAIN_S: Final = 0.01
CHECKPOINT_PAUSE_S: Final = 0.05
MAX_IDLE_S: Final = 5  # inside a transaction: less than a lease's 8 s, or a stopped process delays a takeover
MANY_ROWS: Final = 10_000  # they take some tenths of a second to prepare, on a busy host a second
MAX_LOCK_WAIT_S: Final = 3 * MAX_IDLE_S  # stopped processes are waited for, one that waits for another too
OTHER_PLANS: Final = ("bitmapscan", "seqscan", "sort")
SYNCHRONOUS_COMMIT_IS_OFF: Final = "current_setting('synchronous_commit') = 'off'"


@final
class Database:
    """One database, and the only way to it: a function run in one transaction.

    Args:
        url: From `database_url`.
        busy_timeout_s: How long SQLite waits for another writer, in seconds.
        durability: What a commit survives; see `Store.open`.
    """

    def __init__(self, url: URL, *, busy_timeout_s: float = 5.0, durability: Durability = "normal") -> None:
        self.display_url = shown(url)
        self.dialect = url.get_backend_name()
        self._busy_timeout_s = busy_timeout_s
        if self.dialect == "sqlite":
            self._engine = create_engine(url, connect_args={"timeout": busy_timeout_s})
            event.listen(self._engine, "connect", partial(_prepare_sqlite, durability))
            event.listen(self._engine, "begin", partial(_begin_sqlite, busy_timeout_s))
        else:
            query = {"connect_timeout": str(CONNECT_TIMEOUT_S), **url.query}
            self._engine = create_engine(url.set(query=query), pool_pre_ping=True)
            event.listen(self._engine, "connect", partial(_prepare_postgres, durability))
        self._for_reading = self._engine.execution_options(is_write=False)
        self._for_writing = self._engine.execution_options(is_write=True)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that writes nothing; on SQLite it never blocks a writer."""
        return self._run(work, is_write=False)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction and commit it.

        Args:
            work: What to do; it is run again when the server rolled it back because of another transaction,
                or the connection broke in the middle of it.

        Returns:
            What `work` returned, after the commit.

        Raises:
            StorageError: The database failed, or `work` raised it; nothing was written.
        """
        return self._run(work, is_write=True)

    def use_wal(self) -> None:
        """Turn a new SQLite file to write-ahead logging, which then stays with the file."""
        if self.dialect != "sqlite":
            return
        deadline = time.monotonic() + self._busy_timeout_s
        try:
            with self._engine.connect() as connection:
                cursor = connection.connection.cursor()  # the driver's own: a BEGIN would forbid the change
                while not _is_wal(cursor):
                    if time.monotonic() > deadline:
                        raise DatabaseHeldError(
                            f"{self.display_url} is held by another process; close it there, then try again"
                        )
                    time.sleep(next(_pauses(1)))
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise translate(error, self.display_url) from error

    def checkpoint(self) -> None:
        """Write SQLite's write-ahead log into its file and cut it; what a reader still needs stays.

        It is tried again while there are readers, without a lock: SQLite's own waiting for them would keep
        all writers out.
        """
        if self.dialect != "sqlite":
            return
        deadline = time.monotonic() + self._busy_timeout_s
        try:
            with self._engine.connect() as connection:
                cursor = connection.connection.cursor()
                with _waiting(cursor, 0, self._busy_timeout_s):
                    while _is_checkpoint_busy(cursor) and time.monotonic() < deadline:
                        time.sleep(CHECKPOINT_PAUSE_S)
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise translate(error, self.display_url) from error

    def connect_to_listen(self, channel: str) -> psycopg.Connection[Any]:
        """Return a PostgreSQL connection outside the pool that hears what is told on a channel."""
        proxy = self._engine.raw_connection()
        connection = cast("psycopg.Connection[Any]", proxy.driver_connection)
        proxy.detach()
        connection.autocommit = True
        connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
        return connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _run(self, work: Callable[[Connection], T], *, is_write: bool) -> T:
        engine = self._for_writing if is_write else self._for_reading
        pauses = _pauses(MAX_ATTEMPTS - 1)
        while True:
            is_done = False
            try:
                with engine.begin() as connection:
                    result = work(connection)
                    is_done = True
                return result
            except (SQLAlchemyError, sqlite3.Error) as error:
                # A connection that breaks at the commit does not tell whether it was made.
                is_undone = is_transient(error) or (has_broken(error) and not is_done)
                pause_s = next(pauses, None) if is_undone else None
                if pause_s is None:
                    raise translate(error, self.display_url) from error
                time.sleep(pause_s)


def allow_idling(connection: Connection, *, rows: int | None = None) -> None:
    """Let this transaction rest between its statements as long as it likes.

    Args:
        connection: Inside a transaction.
        rows: How many are prepared inside it: only for many. None is for one that locks nothing.
    """
    if connection.dialect.name == "postgresql" and (rows is None or rows > MANY_ROWS):
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")


def prefer_indexes(connection: Connection) -> None:
    """Take what this transaction asks for through an index, and in its order, where there is one.

    PostgreSQL plans by how many rows it believes to wait, which is too few whenever there is a backlog: it
    would read and sort all of it for each part that is taken.
    """
    if connection.dialect.name == "postgresql":
        others = ", ".join(f"set_config('enable_{other}', 'off', true)" for other in OTHER_PLANS)
        connection.exec_driver_sql(f"SELECT {others}")


def _pauses(count: int) -> Iterator[float]:
    """Yield growing pauses with jitter, so that two that collided do not collide again."""
    for attempt in range(count):
        yield FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311  nothing secret


def _is_wal(cursor: DBAPICursor) -> bool:
    """Try the change once: unlike a transaction it does not wait for locks by itself."""
    try:
        return bool(cursor.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",))
    except sqlite3.OperationalError as error:
        if _is_busy(error):
            return False
        raise


def _is_checkpoint_busy(cursor: DBAPICursor) -> bool:
    """Try a checkpoint once; return whether a reader or a writer kept it from cutting the log."""
    (is_busy, _, _) = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return bool(is_busy)


def _prepare_sqlite(durability: Durability, connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # The driver's own BEGIN is deferred and comes too late; _begin_sqlite gives it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    # In a write-ahead log NORMAL keeps commits in the system's memory until a checkpoint; FULL flushes each.
    cursor.execute(f"PRAGMA synchronous={'FULL' if durability == 'full' else 'NORMAL'}")
    cursor.close()


def _prepare_postgres(durability: Durability, connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # What the server asks for beyond "on", such as to wait for its replicas, stays.
    wanted, unless = ("off", "true") if durability == "relaxed" else ("on", SYNCHRONOUS_COMMIT_IS_OFF)
    cursor = connection.cursor()
    cursor.execute(f"SELECT set_config('synchronous_commit', '{wanted}', false) WHERE {unless}")
    cursor.execute(
        f"SELECT set_config('idle_in_transaction_session_timeout', '{MAX_IDLE_S}s', false), "
        f"set_config('lock_timeout', '{MAX_LOCK_WAIT_S}s', false)"
    )
    cursor.close()
    connection.commit()


def _begin_sqlite(busy_timeout_s: float, connection: Connection) -> None:
    cursor = connection.connection.cursor()
    if not connection.get_execution_options().get("is_write", False):
        cursor.execute("BEGIN")
        return
    # A deferred transaction that turns to writing fails at once when another one wrote meanwhile.
    tries = max(round(busy_timeout_s / LOOK_AGAIN_S), 1)  # not a deadline: a stopped process goes on to wait
    with _waiting(cursor, LOOK_AGAIN_S, busy_timeout_s):
        for left in reversed(range(tries)):
            try:
                cursor.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or not left:
                    raise
            else:
                return


@contextmanager
def _waiting(cursor: DBAPICursor, seconds: float, otherwise_s: float) -> Iterator[None]:
    """Let SQLite wait for a lock as long as given, and in other statements as long as otherwise."""
    cursor.execute(f"PRAGMA busy_timeout={round(1000 * seconds)}")
    try:
        yield
    finally:
        cursor.execute(f"PRAGMA busy_timeout={round(1000 * otherwise_s)}")


def _is_busy(error: sqlite3.Error) -> bool:
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
