"""`creative-bandit learn`: a process of its own learns, another waits, both end in order."""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from bandit import Engine
from bandit.learning.verify import replay
from tests.bandit.engines import Engines, add_campaign, wait_for
from tests.bandit.inspect import clock_of, store_of
from tests.paths import TINY

START = "import sys; from simulations.cli import main; sys.exit(main(sys.argv[1:]))"


def learner(url: str, log: IO[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-u", "-c", START, "learn", url]
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_one_process_learns_another_takes_over(engines_on_both: Engines, tmp_path: Path) -> None:
    engine = engines_on_both.open(role="select", encoder=TINY)
    add_campaign(engine)
    logs = [tmp_path / "first.txt", tmp_path / "second.txt"]
    with logs[0].open("w") as first_log, logs[1].open("w") as second_log:
        first = learner(str(engines_on_both.url), first_log)
        wait_for(lambda: "this process learns" in logs[0].read_text(), at_most_s=120.0)
        second = learner(str(engines_on_both.url), second_log)
        wait_for(lambda: "waiting to take over" in logs[1].read_text(), at_most_s=120.0)
        report(engine, "a")
        wait_for(lambda: unlearnt(engines_on_both) == 0, at_most_s=60.0)
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 0
        wait_for(lambda: "this process learns" in logs[1].read_text(), at_most_s=60.0)
        report(engine, "b")
        wait_for(lambda: unlearnt(engines_on_both) == 0, at_most_s=60.0)
        second.send_signal(signal.SIGINT)
        assert second.wait(60) == 0
    assert f"{socket.gethostname()}, pid {first.pid} learns" in logs[1].read_text()
    assert all("stopped; what was learnt is stored" in log.read_text() for log in logs)
    ((expired,),) = engines_on_both.fetch("SELECT count(*) FROM leases WHERE number = 2")
    assert expired == 1
    assert engine.learner is None
    assert store_of(engine).check() == []
    assert replay(store_of(engine), clock_of(engine), encoder=TINY).largest_difference < 1e-9


def report(engine: Engine, prefix: str) -> None:
    for i in range(5):
        engine.select("spring", decision_id=f"{prefix}{i}")
        engine.update(f"{prefix}{i}", click=i == 0)


def unlearnt(engines: Engines) -> int:
    ((count,),) = engines.fetch("SELECT count(*) FROM decisions WHERE learnt_batch IS NULL")
    return int(count)
