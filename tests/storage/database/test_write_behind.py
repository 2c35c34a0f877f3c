"""Commits after the answer: nothing is lost in silence."""

import sqlite3
import threading
from collections.abc import Sequence

import pytest

import storage
from storage.database.write_behind import WriteBehindQueue
from tests.bandit.inspect import database_of, waiting_of
from tests.storage.conftest import World, make_world
from tests.storage.sql import fetch


def test_a_failure_is_told_at_the_next_call_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    stored: list[str] = []
    failures = [storage.ServerUnreachableError("gone")]

    def commit(rows: Sequence[str]) -> None:
        if failures:
            raise failures.pop()
        stored.extend(rows)

    backlog: WriteBehindQueue[str] = WriteBehindQueue(commit, str)
    backlog.add(["a"])
    with pytest.raises(storage.ServerUnreachableError, match="gone"):
        backlog.wait_for(["a"])
    backlog.wait_for(["a"])
    assert stored == ["a"]
    assert "1 decisions are not stored yet" in caplog.text
    backlog.close()


def test_a_row_that_is_refused_harms_no_other_and_is_told() -> None:
    stored: list[str] = []

    def commit(rows: Sequence[str]) -> None:
        if "bad" in rows:
            raise storage.InvalidValueError("refused")
        stored.extend(rows)

    backlog: WriteBehindQueue[str] = WriteBehindQueue(commit, str)
    backlog.add(["a", "bad", "b"])
    with pytest.raises(storage.BacklogLostError, match="'bad'"):
        backlog.close()
    assert stored == ["a", "b"]


def test_what_cannot_be_stored_at_the_end_is_counted() -> None:
    def commit(rows: Sequence[str]) -> None:
        raise storage.ServerUnreachableError("gone")

    backlog: WriteBehindQueue[str] = WriteBehindQueue(commit, str)
    backlog.add(["a", "b"])
    with pytest.raises(storage.BacklogLostError, match="2 decisions"):
        backlog.close()


def test_a_full_queue_makes_its_caller_wait() -> None:
    stored: list[str] = []
    may_commit, is_taken = threading.Event(), threading.Event()

    def commit(rows: Sequence[str]) -> None:
        assert may_commit.wait(10)
        stored.extend(rows)

    def add_one_more() -> None:
        backlog.add(["c"])
        is_taken.set()

    backlog: WriteBehindQueue[str] = WriteBehindQueue(commit, str, most=2)
    backlog.add(["a", "b"])
    caller = threading.Thread(target=add_one_more)
    caller.start()
    assert not is_taken.wait(0.1)
    may_commit.set()
    assert is_taken.wait(10)
    caller.join()
    backlog.close()
    assert stored == ["a", "b", "c"]


def test_a_call_of_many_rows_does_not_overfill_the_queue() -> None:
    may_commit = threading.Event()
    backlog: WriteBehindQueue[str] = WriteBehindQueue(lambda rows: may_commit.wait(10), str, most=3)
    backlog.add(["a", "b"])
    caller = threading.Thread(target=backlog.add, args=(["c", "d"],))
    caller.start()
    caller.join(0.1)
    assert waiting_of(backlog) == ["a", "b"]
    may_commit.set()
    caller.join(10)
    backlog.add(list("efghi"))  # more than may wait: alone
    backlog.close()
    assert not waiting_of(backlog)


@pytest.mark.parametrize(("durability", "level"), [("normal", 1), ("full", 2), ("relaxed", 1)])
def test_what_sqlite_flushes(migrated_sqlite_url: str, durability: storage.Durability, level: int) -> None:
    with storage.Store.open(migrated_sqlite_url, durability=durability) as store:
        read = database_of(store).read
        assert read(lambda c: c.exec_driver_sql("PRAGMA synchronous").scalar()) == level


@pytest.mark.postgres
@pytest.mark.parametrize(("durability", "level"), [("normal", "on"), ("full", "on"), ("relaxed", "off")])
def test_what_postgres_waits_for(postgres_url: str, durability: storage.Durability, level: str) -> None:
    with storage.Store.open(postgres_url, durability=durability) as store:
        read = database_of(store).read
        assert read(lambda c: c.exec_driver_sql("SHOW synchronous_commit").scalar()) == level


def test_a_held_database_is_waited_for(migrated_sqlite_url: str) -> None:
    path = migrated_sqlite_url.removeprefix("sqlite:///")
    with storage.Store.open(migrated_sqlite_url, busy_timeout_s=0.05, durability="relaxed") as store:
        world: World = make_world(store, attribution_window_s=0.0)
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        store.decisions.record_later([world.decision("d1")])
        with pytest.raises(storage.DatabaseHeldError):
            store.decisions.get(["d1"])
        holder.execute("ROLLBACK")
        holder.close()
        assert set(store.decisions.get(["d1"])) == {"d1"}
    assert fetch(migrated_sqlite_url, "SELECT decision_id FROM decisions") == [("d1",)]
