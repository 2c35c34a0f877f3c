"""Decisions and outcomes per second, side by side in one run: medians of rounds that take turns.

Run it with `make bench`. Ratios are what counts: machines are shared, and all contenders of a round meet the
same neighbours.
"""

import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from bandit import Creative, Engine, Outcome, Request
from simulations.catalogue import catalogue

pytestmark = pytest.mark.benchmark

BATCH, ARMS, ROUNDS = 256, 10, 15
DEVICES, DAYPARTS = ("mobile", "desktop", "tablet"), ("morning", "noon", "evening")


class CreativeBandit:
    """The engine on an SQLite file: everything included and durable."""

    name = "engine, SQLite file, durable"

    def __init__(self, folder: Path) -> None:
        self.engine = Engine.open(folder / "ads.db", learn="manual")
        self.engine.add_campaign("c", horizon=1_000_000, attribution_window=0)
        ads = catalogue(0, products=1, creatives_per_product=ARMS)
        self.engine.add_creatives("c", [Creative(ad.creative_id, headline=ad.headline) for ad in ads])
        self.rng = np.random.default_rng(0)
        self.ids: list[str] = []

    def choose(self) -> None:
        picks = self.rng.integers(0, 3, (BATCH, 2))
        contexts = [{"device": DEVICES[d], "daypart": DAYPARTS[p]} for d, p in picks]
        decisions = self.engine.select_many([Request(campaign="c", context=context) for context in contexts])
        self.ids = [decision.id for decision in decisions]

    def learn(self) -> None:
        clicks = self.rng.random(BATCH) < 0.02
        self.engine.update_many(
            [Outcome(decision_id=i, click=bool(click)) for i, click in zip(self.ids, clicks, strict=True)]
        )
        assert self.engine.settle().learnt == BATCH


class BareInserts:
    """The same number of rows of the same width into a bare table: what the disk alone costs."""

    name = "bare executemany, no bandit"

    def __init__(self, folder: Path) -> None:
        self.connection = sqlite3.connect(folder / "bare.db")
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=NORMAL")
        self.connection.execute(
            "CREATE TABLE decisions (id TEXT PRIMARY KEY, context TEXT, propensities TEXT)"
        )
        self.connection.execute("CREATE TABLE outcomes (id TEXT PRIMARY KEY, click INTEGER)")
        self.count = 0

    def choose(self) -> None:
        self.count += BATCH
        rows = [(f"{self.count + i:036d}", "x" * 40, "y" * 19 * ARMS) for i in range(BATCH)]
        with self.connection:
            self.connection.executemany("INSERT INTO decisions VALUES (?, ?, ?)", rows)

    def learn(self) -> None:
        rows = [(f"{self.count + i:036d}", 0) for i in range(BATCH)]
        with self.connection:
            self.connection.executemany("INSERT INTO outcomes VALUES (?, ?)", rows)


class MabWiser:
    """MABWiser's LinTS on contexts of the same number of levels, in memory, nothing stored."""

    name = "MABWiser LinTS, in memory"

    def __init__(self, folder: Path) -> None:
        mabwiser = pytest.importorskip(
            "mabwiser.mab", reason="run it with `make bench`, which installs MABWiser"
        )
        arms = list(range(ARMS))
        self.mab = mabwiser.MAB(arms, mabwiser.LearningPolicy.LinTS(alpha=0.3), seed=0)
        self.rng = np.random.default_rng(0)
        self.contexts = self._contexts()
        self.chosen = self.rng.integers(0, ARMS, BATCH)
        self.mab.fit(self.chosen, self.rng.random(BATCH) < 0.02, self.contexts)

    def _contexts(self) -> np.ndarray:
        return np.eye(9)[self.rng.integers(0, 9, BATCH)]

    def choose(self) -> None:
        self.contexts = self._contexts()
        self.chosen = np.asarray(self.mab.predict(self.contexts))

    def learn(self) -> None:
        self.mab.partial_fit(self.chosen, self.rng.random(BATCH) < 0.02, self.contexts)


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_throughput(tmp_path: Path) -> None:
    contenders = [kind(tmp_path) for kind in (CreativeBandit, BareInserts, MabWiser)]
    for contender in contenders:
        contender.choose()
        contender.learn()
    times = [[(_seconds(c.choose), _seconds(c.learn)) for c in contenders] for _ in range(ROUNDS)]
    table = Table(title=f"batches of {BATCH}, {ARMS} arms, medians of {ROUNDS} rounds")
    for column in ("contender", "decisions/s", "outcomes learnt/s", "time to choose, of the engine's"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for i, contender in enumerate(contenders):
        choose, learn = (statistics.median(round_[i][k] for round_ in times) for k in (0, 1))
        ratio = statistics.median(round_[i][0] / round_[0][0] for round_ in times)
        table.add_row(contender.name, f"{BATCH / choose:,.0f}", f"{BATCH / learn:,.0f}", f"{ratio:.2f}")
    Console().print(table)
