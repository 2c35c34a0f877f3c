"""Processes that serve one database: started quickly, killed at the end."""

import os
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Self, final

from bandit import Engine
from tests.bandit.engines import add_campaign, wait_for
from tests.paths import TINY
from tests.processes.forked import start
from tests.processes.worker import CAMPAIGN, serve

START_S = 120.0  # the first start of all may have to compile


@final
class Workers:
    """Workers on a migrated database, to which their campaign is added; a context manager.

    Args:
        url: The database.
        folder: For the workers' notes.
        stops_after: One for each worker, as of `serve`; the first worker learns, as it is started first.

    Attributes:
        notes: The file of each worker.
    """

    def __init__(self, url: str, folder: Path, stops_after: Sequence[str]) -> None:
        self._url = url
        self._stops_after = stops_after
        self.notes = [folder / f"worker{number}" for number in range(len(stops_after))]
        with Engine.open(url, encoder=TINY, learn="manual") as engine:
            add_campaign(engine, name=CAMPAIGN)
        for file in self.notes:
            file.touch()
        self._processes = [self._start(0)]

    def __enter__(self) -> Self:
        try:
            wait_for(lambda: self.size(0) > 0, at_most_s=START_S)
            self._processes += map(self._start, range(1, len(self.notes)))
            wait_for(lambda: all(map(self.size, range(len(self.notes)))), at_most_s=START_S)
        except BaseException:
            self.kill_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill_all()

    def kill_all(self) -> None:
        """Kill all of them, those that are stopped too; one that ended by itself is a failure."""
        for process in self._processes:
            self._kill(process)
        self._processes.clear()

    def replace(self, number: int) -> None:
        """Kill a worker and start another one in its place."""
        self._kill(self._processes[number])
        self._processes[number] = self._start(number)

    def send(self, number: int, signal: int) -> None:
        """Send a signal to a worker."""
        os.kill(self.pid(number), signal)

    def pid(self, number: int) -> int:
        """Return a worker's process id."""
        pid = self._processes[number].pid
        assert pid is not None
        return pid

    def size(self, number: int) -> int:
        """Return how much a worker has noted, in bytes."""
        return self.notes[number].stat().st_size

    def _start(self, number: int) -> ForkServerProcess:
        return start(serve, self._url, self.notes[number], self._stops_after[number])

    def _kill(self, process: ForkServerProcess) -> None:
        assert process.exitcode is None, f"a worker ended by itself with exit code {process.exitcode}"
        process.kill()
        process.join()
