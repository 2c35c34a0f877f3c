"""A process that is stopped (SIGSTOP) and goes on: nobody waits for ever, nothing is lost or doubled."""

import signal
from pathlib import Path

import pytest

from tests.bandit.engines import wait_for
from tests.processes.stopping import (
    GOES_ON_WITHIN_S,
    LEARNING_STEP,
    REPORT,
    check_answers,
    check_takeover,
    stop_inside,
    stop_outside,
)
from tests.processes.workers import Workers

LEARNER, REPORTER = 0, 1  # who is started first learns


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

        check_takeover(postgres_url, workers, stop)
        size = workers.size(REPORTER)
        workers.send(REPORTER, signal.SIGCONT)
        wait_for(lambda: workers.size(REPORTER) > size + 1_000, at_most_s=GOES_ON_WITHIN_S)
    check_answers(postgres_url, workers)  # no call has failed


@pytest.mark.slow
def test_a_learner_stopped_outside_its_transactions(migrated_sqlite_url: str, tmp_path: Path) -> None:
    url = migrated_sqlite_url
    with Workers(url, tmp_path, ["", ""]) as workers:
        check_takeover(url, workers, lambda learner: stop_outside(url, workers, learner))
    check_answers(url, workers)


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL])
def test_sqlite_waits_for_a_process_stopped_inside_a_write(
    migrated_sqlite_url: str, tmp_path: Path, end: signal.Signals
) -> None:
    """The file is its until it goes on or ends; the others are told so, and go on after it."""
    with Workers(migrated_sqlite_url, tmp_path, [LEARNING_STEP, ""]) as workers:
        stop_inside(workers, LEARNER)
        wait_for(lambda: "failed" in workers.notes[REPORTER].read_text(), at_most_s=GOES_ON_WITHIN_S)
        if end == signal.SIGKILL:
            workers.replace(LEARNER)
        else:
            workers.send(LEARNER, end)
        size = [workers.size(number) for number in (LEARNER, REPORTER)]
        wait_for(
            lambda: all(workers.size(number) > size[number] + 1_000 for number in (LEARNER, REPORTER)),
            at_most_s=GOES_ON_WITHIN_S,
        )
    check_answers(migrated_sqlite_url, workers, errors="is held by another process; close it there")
