"""Killed every second for twenty seconds, the processes lose nothing and double nothing."""

from pathlib import Path

import pytest

from tests.processes.killing import kill_and_check

SECONDS = 20.0
FEWEST = 200  # decisions; with fewer the kills have hit nothing but starts


@pytest.mark.slow
def test_nothing_answered_is_lost_or_doubled_or_unlearnt(url: str, tmp_path: Path) -> None:
    figures = kill_and_check(url, tmp_path, seconds=SECONDS, seed=4)
    print(figures)
    assert figures.kills > SECONDS / 2
    assert figures.decisions > FEWEST
