"""A process that is stopped (SIGSTOP) and goes on: nobody waits for ever, nothing is lost or doubled."""

import signal
from pathlib import Path

import pytest

from tests.bandit.engines import wait_for
from tests.processes.stopping import (
    GOES_ON_WITHIN_S,
    LEARNING_STEP,
    REPORT,
    WRITE,
    check_answers,
    check_takeover,
    count,
    stop_inside,
    stop_outside,
)
from tests.processes.workers import Workers

REPORTER = 1
STOPPED, OTHER = 0, 1


@pytest.mark.kills
@pytest.mark.slow
@pytest.mark.postgres
def test_a_learner_and_a_reporter_stopped_inside_their_transactions(
    postgres_url: str, tmp_path: Path
) -> None:
    """The server ends both transactions: the first holds the lease's row, the second rows of every step."""
    with Workers(postgres_url, tmp_path, [LEARNING_STEP, REPORT, ""]) as workers:

        def stop(learner: int) -> None:
            stop_inside(workers, REPORTER)
            stop_inside(workers, learner)

        took = check_takeover(postgres_url, workers, stop)
        print(f"no learner for {took:.1f} s")  # noqa: T201  shown when it fails
        reported = count(workers, REPORTER, "reported")
        workers.send(REPORTER, signal.SIGCONT)
        wait_for(lambda: count(workers, REPORTER, "reported") > reported + 1, at_most_s=GOES_ON_WITHIN_S)
    # A stop that meets another thread's commit leaves it open whether that was made, so its call says so.
    assert check_answers(postgres_url, workers, errors="server closed the connection") <= 2


@pytest.mark.kills
@pytest.mark.slow
def test_a_learner_stopped_outside_its_transactions(migrated_sqlite_url: str, tmp_path: Path) -> None:
    url = migrated_sqlite_url
    with Workers(url, tmp_path, ["", ""]) as workers:
        took = check_takeover(url, workers, lambda learner: stop_outside(url, workers, learner))
        print(f"no learner for {took:.1f} s")  # noqa: T201  shown when it fails
    check_answers(url, workers)


@pytest.mark.kills
@pytest.mark.slow
def test_sqlite_waits_for_a_process_stopped_inside_a_write(migrated_sqlite_url: str, tmp_path: Path) -> None:
    """The file is its until it goes on or ends; the other one is told so, and goes on after it."""
    with Workers(migrated_sqlite_url, tmp_path, [WRITE, ""]) as workers:
        for end in (signal.SIGCONT, signal.SIGKILL):
            stop_inside(workers, STOPPED)
            failed = count(workers, OTHER, "failed")
            wait_for(lambda n=failed: count(workers, OTHER, "failed") > n, at_most_s=GOES_ON_WITHIN_S)
            if end == signal.SIGKILL:
                workers.replace(STOPPED)
            else:
                workers.send(STOPPED, end)
            for number in (STOPPED, OTHER):
                reported = count(workers, number, "reported")
                wait_for(
                    lambda i=number, n=reported: count(workers, i, "reported") > n,
                    at_most_s=GOES_ON_WITHIN_S,
                )
    check_answers(migrated_sqlite_url, workers, errors="is held by another process; close it there")
