"""Stopped processes (SIGSTOP), such as a debugger, a full memory or a paused virtual machine makes them.

What it is stopped in is chosen by the statement that it has just run.
"""

import re
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from storage.database.urls import database_url
from tests.bandit.engines import wait_for
from tests.processes.answers import check, read
from tests.processes.workers import Workers
from tests.storage.sql import fetch

TAKEN_OVER_WITHIN_S = 15.0  # 10 s, and what a busy machine adds
GOES_ON_WITHIN_S = 120.0  # programs may have to be loaded first, on a busy machine
PROBE_S, LET_GO_S = 0.5, 0.2
LEARNING_STEP = "INSERT INTO learn_log"  # holds the lease's row
WRITE = "INSERT INTO outcomes"  # holds SQLite's file
REPORT = "UPDATE arm_statistics SET conversions"  # locks rows that every step writes


class Lease(NamedTuple):
    """Who learns, and how far the log is."""

    number: int
    pid: int
    step: int


def lease(url: str) -> Lease:
    """Read the lease as an operator would."""
    ((number, owner, step),) = fetch(
        url, "SELECT number, owner, (SELECT coalesce(max(step), 0) FROM learn_log) FROM leases"
    )
    return Lease(number, int(re.findall(r"pid (\d+)", owner)[0]), step)


def stop_inside(workers: Workers, number: int) -> None:
    """Let a worker stop inside the transaction that it was started to stop in."""
    before = count(workers, number, "stops")
    workers.send(number, signal.SIGUSR1)
    wait_for(lambda: count(workers, number, "stops") > before, at_most_s=GOES_ON_WITHIN_S)


def count(workers: Workers, number: int, what: str) -> int:
    """Count what a worker has noted, such as "decided" or "failed"."""
    return sum(line.startswith(what) for line in workers.notes[number].read_text().splitlines())


def stop_outside(url: str, workers: Workers, number: int) -> None:
    """Stop a worker of SQLite when it holds no lock; in the midst of traffic that takes some tries."""
    while True:
        workers.send(number, signal.SIGSTOP)
        wait_for(lambda: is_stopped(workers.pid(number)), at_most_s=GOES_ON_WITHIN_S)
        # Others wait for a lock meanwhile, and give up after 5 s.
        with closing(sqlite3.connect(database_url(url).database or "", timeout=PROBE_S)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                workers.send(number, signal.SIGCONT)
                time.sleep(LET_GO_S)  # or it would be stopped again before it let go
            else:
                return


def is_stopped(pid: int) -> bool:
    """Whether all threads of a process have stopped: they go on until one of them has taken the signal."""
    threads = Path(f"/proc/{pid}/task")
    if not threads.is_dir():  # not Linux
        time.sleep(0.1)
        return True
    # A line is "id (name) state …".
    return all((one / "stat").read_text().rpartition(")")[2].split()[0] == "T" for one in threads.iterdir())


def check_takeover(url: str, workers: Workers, stop: Callable[[int], None]) -> float:
    """Stop the learner and let it go on again: another one learns, and the old one follows it.

    Args:
        url: The database.
        workers: They serve it.
        stop: Stops the learner, whose number it is given.

    Returns:
        How long the model had no learner, in seconds.
    """
    before = lease(url)
    old = next(number for number in range(len(workers.notes)) if workers.pid(number) == before.pid)
    stop(old)
    took = wait_for(lambda: lease(url).number > before.number, at_most_s=TAKEN_OVER_WITHIN_S)
    heir = lease(url)
    wait_for(lambda: lease(url).step > heir.step + 2, at_most_s=GOES_ON_WITHIN_S)

    size, step = workers.size(old), lease(url).step
    workers.send(old, signal.SIGCONT)

    def version() -> int:
        """Return the model version of the old learner's latest decision since it goes on."""
        new = workers.notes[old].read_text()[size:]
        return max((int(v) for v in re.findall(r"^decided \S+ \S+ (\d+)$", new, re.MULTILINE)), default=0)

    wait_for(lambda: version() > step, at_most_s=GOES_ON_WITHIN_S)
    assert lease(url)[:2] == heir[:2]
    return took


def check_answers(url: str, workers: Workers, errors: str = "") -> int:
    """Compare what was answered with what is stored; return how many answers were errors.

    Args:
        url: The database.
        workers: They have been killed.
        errors: The pattern of errors that are allowed; no error is when it is empty.
    """
    answered = read(workers.notes)
    assert all(errors and re.search(errors, error) for error in answered.errors), answered.errors
    check(url, answered)
    return len(answered.errors)
