"""Transactions: what is retried, what is undone, and how a database's errors are told."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import psycopg
import pytest
from sqlalchemy import Connection, select, text

import storage
from storage import DatabaseHeldError, ServerUnreachableError, Store
from storage.database.dialect import database_clock
from storage.database.session import MANY_ROWS, Database, allow_idling
from storage.database.urls import database_url
from storage.schema.columns import canonical_json
from tests.storage.conftest import NOW, World
from tests.storage.sql import execute, fetch


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """An open database with our tables."""
    Store.open(url).close()
    opened = Database(database_url(url))
    yield opened
    opened.close()


@pytest.mark.postgres
def test_a_deadlock_is_tried_again(postgres_url: str) -> None:
    """Two transactions lock two rows crosswise; the server undoes one, which then succeeds."""
    execute(
        postgres_url,
        "CREATE TABLE pairs (id integer PRIMARY KEY, n integer)",
        "INSERT INTO pairs VALUES (1, 0), (2, 0)",
    )
    database = Database(database_url(postgres_url))
    barrier = threading.Barrier(2)
    attempts = [0, 0]

    def add(order: tuple[int, int], who: int) -> None:
        def work(connection: Connection) -> None:
            attempts[who] += 1
            connection.execute(text(f"UPDATE pairs SET n = n + 1 WHERE id = {order[0]}"))
            if attempts[who] == 1:
                barrier.wait()
            connection.execute(text(f"UPDATE pairs SET n = n + 1 WHERE id = {order[1]}"))

        database.write(work)

    threads = [threading.Thread(target=add, args=(order, who)) for who, order in enumerate([(1, 2), (2, 1)])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database.close()
    assert sorted(attempts) == [1, 2]
    assert fetch(postgres_url, "SELECT id, n FROM pairs ORDER BY id") == [(1, 2), (2, 2)]


@pytest.mark.postgres
def test_a_connection_cut_before_the_commit_is_made_again(postgres_url: str) -> None:
    execute(postgres_url, "CREATE TABLE pairs (id integer PRIMARY KEY, n integer)")
    database = Database(database_url(postgres_url))
    backends: list[int] = []

    def work(connection: Connection) -> None:
        connection.execute(text("INSERT INTO pairs VALUES (1, 0)"))
        backends.append(int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one()))
        if len(backends) == 1:
            execute(postgres_url, f"SELECT pg_terminate_backend({backends[0]}, 10000)")
        connection.execute(text("UPDATE pairs SET n = n + 1"))

    database.write(work)
    assert len(set(backends)) == 2
    assert fetch(postgres_url, "SELECT id, n FROM pairs") == [(1, 1)]

    def cut_at_the_end(connection: Connection) -> None:
        backend = connection.execute(text("UPDATE pairs SET n = 7 RETURNING pg_backend_pid()")).scalar_one()
        execute(postgres_url, f"SELECT pg_terminate_backend({backend}, 10000)")

    with pytest.raises(ServerUnreachableError):  # whether the commit was made the caller must ask
        database.write(cut_at_the_end)
    assert fetch(postgres_url, "SELECT id, n FROM pairs") == [(1, 1)]
    database.close()


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("setting", "value"), [("idle_in_transaction_session_timeout", "5s"), ("lock_timeout", "15s")]
)
def test_how_long_a_session_may_keep_others_waiting(postgres_url: str, setting: str, value: str) -> None:
    database = Database(database_url(postgres_url))
    assert database.read(lambda c: c.exec_driver_sql(f"SHOW {setting}").scalar()) == value

    def show(connection: Connection, rows: int | None) -> object:
        allow_idling(connection, rows=rows)
        return connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar()

    shown = [database.write(lambda c, rows=rows: show(c, rows)) for rows in (MANY_ROWS, MANY_ROWS + 1, None)]
    assert shown == ["5s", "0", "0"]
    database.close()


@pytest.mark.postgres
def test_rows_that_another_session_keeps_are_told(postgres_url: str) -> None:
    execute(
        postgres_url,
        "CREATE TABLE pairs (id integer PRIMARY KEY, n integer)",
        "INSERT INTO pairs VALUES (1, 0)",
    )
    database = Database(database_url(postgres_url))

    def update_soon(connection: Connection) -> None:
        connection.execute(text("SET LOCAL lock_timeout = '100ms'"))  # 15 s are too long for a test
        connection.execute(text("UPDATE pairs SET n = 1"))

    with psycopg.connect(postgres_url) as forgotten:
        forgotten.execute("UPDATE pairs SET n = 2")
        with pytest.raises(DatabaseHeldError, match="rows are held by another session; see pg_stat_activity"):
            database.write(update_soon)
        forgotten.rollback()
    database.write(update_soon)
    assert fetch(postgres_url, "SELECT id, n FROM pairs") == [(1, 1)]
    database.close()


def test_an_error_undoes_the_transaction(database: Database, url: str) -> None:
    def work(connection: Connection) -> None:
        connection.execute(
            text("INSERT INTO models (name, seed, encoder_fingerprint, settings) VALUES ('m', 1, 'e', '{}')")
        )
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        database.write(work)
    assert fetch(url, "SELECT count(*) FROM models") == [(0,)]


def test_a_statement_that_fails_is_chained(database: Database) -> None:
    with pytest.raises(storage.DatabaseFailedError, match="nowhere") as caught:
        database.read(lambda connection: connection.execute(text("SELECT * FROM nowhere")))
    assert caught.value.__cause__ is not None


@pytest.mark.postgres
def test_a_server_that_takes_no_writes(postgres_url: str) -> None:
    Store.open(postgres_url).close()
    name = database_url(postgres_url).database
    execute(postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with (
        Store.open(postgres_url) as store,
        pytest.raises(storage.DatabaseReadOnlyError, match="takes no writes; connect to the primary"),
    ):
        store.models.get_or_create(seed=1, encoder_fingerprint="e", settings={})


@pytest.mark.postgres
def test_a_lost_connection_is_told_and_the_next_one_works(postgres_url: str) -> None:
    database = Database(database_url(postgres_url))

    def work(connection: Connection) -> None:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar()
        execute(postgres_url, f"SELECT pg_terminate_backend({pid})")
        connection.execute(text("SELECT 1"))

    with pytest.raises(storage.ServerUnreachableError, match="terminating connection"):
        database.write(work)
    assert database.read(lambda connection: connection.execute(text("SELECT 1")).scalar()) == 1
    database.close()


def test_times_keep_their_microseconds_and_become_utc(world: World) -> None:
    moment = datetime(2026, 3, 1, 0, 30, 0, 7, tzinfo=timezone(timedelta(hours=2)))
    world.record("d1", decided_at=moment)
    stored = world.store.decisions.get(["d1"])["d1"].decided_at
    assert (stored, stored.tzinfo) == (moment, UTC)


def test_times_sort_as_text_on_sqlite(sqlite_world: World, migrated_sqlite_url: str) -> None:
    moments = [NOW, NOW + timedelta(microseconds=1), NOW + timedelta(seconds=1), NOW - timedelta(days=400)]
    for number, moment in enumerate(moments):
        sqlite_world.record(f"d{number}", decided_at=moment)
    rows = fetch(migrated_sqlite_url, "SELECT decision_id, decided_at FROM decisions ORDER BY decided_at")
    assert [name for name, _ in rows] == ["d3", "d0", "d1", "d2"]
    assert rows[2][1] == "2026-03-01T12:00:00.000001Z"


def test_the_database_has_a_clock(database: Database) -> None:
    query = select(database_clock().label("now"), database_clock(8.5).label("later"))
    now, later = database.read(lambda connection: connection.execute(query).one())
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=5)
    assert timedelta(seconds=8.4) < later - now < timedelta(seconds=8.6)


@pytest.mark.parametrize(
    ("value", "named"),
    [({"a": float("nan")}, "nan"), ({"a": object()}, "object"), ({"a\0": 1}, "NUL"), ({"a": b"x"}, "b'x'")],
)
def test_what_has_no_json_is_refused(value: dict[str, object], named: str) -> None:
    with pytest.raises(storage.InvalidValueError, match="the thing") as caught:
        canonical_json(value, what="the thing")
    assert named in str(caught.value)
