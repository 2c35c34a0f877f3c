"""Killed every second for twenty seconds, the processes lose nothing and double nothing."""

from pathlib import Path

import pytest

from tests.processes.killing import kill_and_check

SECONDS = 20.0
FEWEST_SERVING = 3  # kills of processes in their start alone would show nothing


@pytest.mark.kills
@pytest.mark.slow
def test_nothing_answered_is_lost_or_doubled_or_unlearnt(url: str, tmp_path: Path) -> None:
    figures = kill_and_check(url, tmp_path, seconds=SECONDS, seed=4)
    print(figures)  # noqa: T201  shown when it fails
    assert figures.kills > SECONDS / 2
    assert figures.kills_serving >= FEWEST_SERVING
