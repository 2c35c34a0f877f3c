"""Killed, stopped, read and refitted at length: run by `make soak`, never by a plain pytest.

SOAK_RUNS runs of the kill test, SOAK_SECONDS seconds each, on each database; as often the learner is stopped.
Figures are printed and appended to SOAK_FILE, one JSON object a line.
"""

import json
import os
import platform
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.processes.killing import kill_and_check
from tests.processes.reading import read_and_check
from tests.processes.refitting import watch
from tests.processes.stopping import check_answers, check_takeover, stop_outside
from tests.processes.workers import Workers

RUNS = int(os.environ.get("SOAK_RUNS", "20"))
SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
FILE = Path(os.environ.get("SOAK_FILE", "soak.jsonl"))
AT_THE_COMMIT = "does not answer or refuses us"  # stopped just there, nobody can tell whether it was made
LONG_REFIT = 200_000  # contexts

Note = Callable[[Mapping[str, object]], None]


@pytest.fixture
def note(request: pytest.FixtureRequest, url: str) -> Note:
    """A function that keeps figures."""
    began = datetime.now(UTC).isoformat(timespec="seconds")
    about = {
        "began": began,
        "test": request.function.__name__,
        "database": url.partition(":")[0],
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }

    def write(figures: Mapping[str, object]) -> None:
        line = json.dumps({**about, **figures})
        print(line)  # noqa: T201  the figures are what it is run for
        with FILE.open("a") as file:
            file.write(line + "\n")

    return write


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(RUNS))
def test_kills(url: str, tmp_path: Path, note: Note, seed: int) -> None:
    note(kill_and_check(url, tmp_path, seconds=SECONDS, seed=seed)._asdict())


@pytest.mark.slow
def test_stops(url: str, tmp_path: Path, note: Note) -> None:
    """The learner is stopped at any moment on PostgreSQL, outside its writes on SQLite, again and again."""
    with Workers(url, tmp_path, ["", "", ""]) as workers:

        def stop(learner: int) -> None:
            if url.startswith("sqlite"):
                stop_outside(url, workers, learner)
            else:
                workers.send(learner, signal.SIGSTOP)

        without_learner_s = [check_takeover(url, workers, stop) for _ in range(RUNS)]
    note({"without_learner_s": without_learner_s, "errors": check_answers(url, workers, AT_THE_COMMIT)})
    assert max(without_learner_s) < 10.0


@pytest.mark.slow
def test_a_reader_of_a_minute(url: str, tmp_path: Path, note: Note) -> None:
    note(read_and_check(url, tmp_path, seconds=SECONDS)._asdict())


@pytest.mark.slow
def test_a_refit_longer_than_the_lease(url: str, tmp_path: Path, note: Note) -> None:
    figures = watch(url, tmp_path, n_contexts=LONG_REFIT, lease_s=None)
    note(figures._asdict())
    assert figures.refit_s > figures.lease_s
