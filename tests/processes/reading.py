"""A report that reads for long: its transaction stays open while everybody else goes on."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import create_engine, text

from bandit import Engine, Outcome, Request
from bandit.learning.verify import replay
from bandit.retention import campaigns_to_prune, prune_campaigns
from storage import Store
from storage.database.urls import database_url, sqlite_path
from tests.bandit.engines import Clock, Engines, add_campaign, wait_for
from tests.bandit.inspect import learner_of, store_of
from tests.paths import TINY
from tests.processes.forked import start

CONTEXT = {"device": "mobile"}
EACH = 20  # decisions a round
ROUND = timedelta(hours=6)
ROUNDS_TO_REFIT = 4  # what a refit has seen may be pruned
GUARD = 1e-9  # of a posterior standard deviation
DAY = timedelta(days=1)


class Figures(NamedTuple):
    """What was done beside the reader.

    Attributes:
        seconds: How long it read.
        decisions: Decisions made, reported and learnt, those before it included.
        pruned: How many of them became counts.
        slowest_s: The slowest round of a selection, a report and a learning step.
        wal_bytes: SQLite's write-ahead log at its largest; 0 on PostgreSQL.
        wal_bytes_after: The same after the next pruning.
    """

    seconds: float
    decisions: int
    pruned: int
    slowest_s: float
    wal_bytes: int
    wal_bytes_after: int


def read(url: str, notes: Path, seconds: float) -> None:
    """Count the decisions at the beginning and at the end of one transaction; note both."""
    engine = create_engine(database_url(url), isolation_level="SERIALIZABLE")
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":  # else the driver begins before the first write only
            connection.exec_driver_sql("BEGIN")
        for pause_s in (seconds, 0.0):
            count = connection.execute(text("SELECT count(*) FROM decisions")).scalar()
            with notes.open("a") as file:
                file.write(f"{count}\n")
            time.sleep(pause_s)


def read_and_check(url: str, folder: Path, *, seconds: float) -> Figures:
    """Let a process read while an engine selects and learns and a thread prunes; check that nothing is lost.

    Args:
        url: A migrated database.
        folder: For the reader's notes.
        seconds: How long the reader's transaction lasts.
    """
    engines = Engines(url, TINY, Clock())
    engine = engines.open()
    add_campaign(engine, conversion_window=0)
    for number in range(2 * ROUNDS_TO_REFIT):  # older than a day: the first pruning has what to do
        use(engine, number)
        engines.clock.pass_(ROUND)
    engine.refit()
    notes = folder / "counts"
    reader = start(read, url, notes, seconds)
    wait_for(lambda: notes.exists() and notes.read_text().endswith("\n"), at_most_s=60.0)
    before = int(notes.read_text())
    slowest_s, wal_bytes, rounds = 0.0, 0, 2 * ROUNDS_TO_REFIT
    with ThreadPoolExecutor(1) as executor:
        pruned = executor.submit(prune, engines, reader.is_alive)
        while reader.is_alive():
            slowest_s = max(slowest_s, use(engine, rounds))
            wal_bytes = max(wal_bytes, size_of_log(url))
            rounds += 1
            engines.clock.pass_(ROUND)
            if rounds % ROUNDS_TO_REFIT == 0:
                engine.refit()
        n_pruned = pruned.result() + prune(engines)
    wal_bytes_after = size_of_log(url)
    assert reader.exitcode == 0
    assert notes.read_text() == 2 * f"{before}\n"
    ((kept,),) = engines.fetch("SELECT count(*) FROM decisions")
    assert kept + n_pruned == EACH * rounds
    assert sum(arm.impressions for arm in engine.arms("spring")) == EACH * rounds
    learner_of(engine).save()
    assert store_of(engine).check() == []
    assert replay(store_of(engine), engines.clock).largest_difference < GUARD
    engines.close()
    return Figures(
        seconds=seconds,
        decisions=EACH * rounds,
        pruned=n_pruned,
        slowest_s=slowest_s,
        wal_bytes=wal_bytes,
        wal_bytes_after=wal_bytes_after,
    )


def use(engine: Engine, number: int) -> float:
    """Select, report and learn; return how long it took, in seconds."""
    began = time.monotonic()
    names = [f"{number}-{i}" for i in range(EACH)]
    engine.select_many([Request(campaign="spring", context=CONTEXT, decision_id=name) for name in names])
    engine.update_many([Outcome(decision_id=name, click=name.endswith("3")) for name in names])
    assert engine.settle().learnt == EACH
    return time.monotonic() - began


def prune(engines: Engines, goes_on: Callable[[], bool] = lambda: False) -> int:
    """Prune what is older than a day, once or for as long as another goes on; return how many went."""
    pruned = 0
    with Store.open(engines.url) as store:
        while True:
            campaigns = campaigns_to_prune(store, older_than=DAY, now=engines.clock())
            pruned += sum(found.pruned for found in prune_campaigns(store, campaigns))
            if not goes_on():
                return pruned
            time.sleep(0.1)


def size_of_log(url: str) -> int:
    """Return the size of SQLite's write-ahead log, in bytes."""
    path = sqlite_path(database_url(url))
    return 0 if path is None else Path(f"{path}-wal").stat().st_size
