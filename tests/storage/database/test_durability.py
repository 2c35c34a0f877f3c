"""What each durability promises of a process that is killed (SIGKILL), on both databases."""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import psycopg
import pytest

from storage import Durability, NewOutcome, StorageError, Store
from storage.database.urls import database_url, sqlite_path
from storage.database.write_behind import MOST_WAITING
from tests.bandit.engines import wait_for
from tests.processes.forked import start
from tests.storage.conftest import NOW, World, make_world
from tests.storage.sql import fetch

N_THREADS = 4
FEWEST = 100  # answers before the kill
PATIENCE_S = 60.0


def record(world: World, notes: Path, thread: int, *, is_relaxed: bool, reports: bool) -> None:
    """Record decisions and report about every third, one after the other; note each that was answered."""
    # One write of a few bytes to a file opened for appending is there whole, or not at all.
    file = os.open(notes, os.O_WRONLY | os.O_APPEND)
    decisions = world.store.decisions
    for number in range(100_000):
        new = world.decision(f"{thread}-{number:05}")
        try:
            (decisions.record_later if is_relaxed else decisions.record)([new])
            os.write(file, f"decided {new.decision_id}\n".encode())
            if reports and number % 3 == 0:
                click = NewOutcome(decision_id=new.decision_id, kind="click", value=1.0)
                world.store.outcomes.record([click], received_at=NOW)
                os.write(file, f"reported {new.decision_id}\n".encode())
        except StorageError:
            return


def record_until_killed(url: str, durability: Durability, notes: Path) -> None:
    """Record from several threads, whose transactions are shared."""
    store = Store.open(url, durability=durability)
    world = make_world(store, attribution_window_s=0.0)
    is_relaxed = durability == "relaxed"
    for thread in range(N_THREADS):
        # Who reports waits for the commit.
        given = {"is_relaxed": is_relaxed, "reports": thread == 0 or not is_relaxed}
        threading.Thread(target=record, args=(world, notes, thread), kwargs=given).start()
    time.sleep(10 * PATIENCE_S)


@contextmanager
def recording(url: str, durability: Durability, notes: Path) -> Iterator[ForkServerProcess]:
    """Let a process record, and kill it at the end of the block."""
    notes.touch()
    process = start(record_until_killed, url, durability, notes)
    try:
        wait_for(lambda: "reported" in notes.read_text() and n_lines(notes) > FEWEST, at_most_s=PATIENCE_S)
        yield process
    finally:
        process.kill()
        process.join()
    assert process.exitcode == -signal.SIGKILL


@contextmanager
def held(url: str) -> Iterator[None]:
    """Let nobody else write decisions."""
    with ExitStack() as stack:
        if url.startswith("sqlite"):
            connection = stack.enter_context(
                closing(sqlite3.connect(sqlite_path(database_url(url)) or "", isolation_level=None))
            )
            connection.execute("BEGIN IMMEDIATE")
        else:
            server = stack.enter_context(psycopg.connect(url))
            server.execute("LOCK TABLE decisions IN EXCLUSIVE MODE")
        yield


def n_lines(notes: Path) -> int:
    return notes.read_bytes().count(b"\n")


def answered(notes: Path, what: str) -> list[str]:
    """Return the ids of what was answered, in order."""
    lines = (line.split() for line in notes.read_text().splitlines())
    return [name for kind, name in lines if kind == what]


def stored(url: str, table: str) -> set[str]:
    return {name for (name,) in fetch(url, f"SELECT decision_id FROM {table}")}


@pytest.mark.kills
@pytest.mark.parametrize("durability", ["normal", "full"])
def test_what_was_answered_is_there(url: str, tmp_path: Path, durability: Durability) -> None:
    notes = tmp_path / "notes"
    with recording(url, durability, notes):
        pass
    decisions, outcomes = stored(url, "decisions"), stored(url, "outcomes")
    assert decisions >= set(answered(notes, "decided"))
    assert outcomes >= set(answered(notes, "reported"))
    # What has no answer is at most one call of each thread.
    assert len(decisions) + len(outcomes) <= n_lines(notes) + N_THREADS


@pytest.mark.kills
def test_relaxed_loses_the_newest_decisions_and_no_report(url: str, tmp_path: Path) -> None:
    """Killed while nothing can be committed, a process loses what waits, which is bounded."""
    notes = tmp_path / "notes"
    with recording(url, "relaxed", notes) as process, held(url):
        wait_for(lambda: n_lines(notes) > MOST_WAITING or has_stalled(notes), at_most_s=PATIENCE_S)
        process.kill()
        process.join()
    decisions = stored(url, "decisions")
    lost = [name for name in answered(notes, "decided") if name not in decisions]
    assert FEWEST < len(lost) <= MOST_WAITING
    for thread in range(N_THREADS):
        mine = [name for name in answered(notes, "decided") if name.startswith(f"{thread}-")]
        n_kept = len(decisions.intersection(mine))
        assert decisions.issuperset(mine[:n_kept])  # the newest are lost
    assert stored(url, "outcomes") >= set(answered(notes, "reported"))


def has_stalled(notes: Path) -> bool:
    """Whether nothing is answered any more."""
    before = n_lines(notes)
    time.sleep(0.5)
    return n_lines(notes) == before
