"""A reader whose transaction lasts keeps nobody waiting, pruning included, and costs no more than room."""

from pathlib import Path

import pytest

from tests.processes.reading import read_and_check

SECONDS = 6.0
SLOWEST_S = 4.5  # who waits for a lock for 5 s gets an error


@pytest.mark.kills
@pytest.mark.slow
def test_a_reader_keeps_nobody_waiting_while_it_reads_for_long(url: str, tmp_path: Path) -> None:
    figures = read_and_check(url, tmp_path, seconds=SECONDS)
    print(figures)  # noqa: T201  shown when it fails
    assert figures.pruned > 0
    assert figures.slowest_s < SLOWEST_S
    assert figures.wal_bytes_after == 0
