"""The database alone: rows per second, threads together, a long backlog, and a million decisions.

Run it with `make bench`, or `python -m pytest tests/benchmarks/test_storage.py -s`. Most of the million
rows are copies of one decision, made inside the database; `BENCH_ROWS` says how many.
"""

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

import pytest
from rich.console import Console
from sqlalchemy import Connection

import storage
from bandit import Engine
from storage.schema.tables import Decision
from tests.bandit.engines import add_campaign
from tests.bandit.inspect import database_of, store_of
from tests.paths import TINY
from tests.storage.conftest import make_world

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3_600)]

BATCH, ROUNDS, THREADS, EACH = 1024, 20, 32, 100
ROWS: Final = int(os.environ.get("BENCH_ROWS", "1000000"))
COPIES: Final = """
INSERT INTO decisions ({names})
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})
SELECT {values} FROM numbers CROSS JOIN (SELECT * FROM decisions WHERE decision_id = 'pattern') AS one
"""
say = Console(width=120).print


def test_decisions_recorded(url: str) -> None:
    """Batches through the public method, beside the driver's executemany of the same rows."""
    with storage.Store.open(url) as store:
        world, database = make_world(store, attribution_window_s=1800.0), database_of(store)
        some = world.decision("a")
        ours, bare = [], []
        for number in range(ROUNDS):
            new = [
                replace(some, decision_id=f"{number}-{i:04}", propensity=0.3 + i / 1e4) for i in range(BATCH)
            ]
            ours.append(seconds(lambda new=new: store.decisions.record(new)))  # type: ignore[misc]
            if database.dialect == "sqlite":
                query = "SELECT * FROM decisions WHERE decision_id LIKE ?"
                found = database.read(lambda c, q=query, n=number: c.exec_driver_sql(q, (f"{n}-%",)).all())
                rows = [tuple(row) for row in found]
                delete = "DELETE FROM decisions WHERE decision_id LIKE ?"
                database.write(lambda c, q=delete, n=number: c.exec_driver_sql(q, (f"{n}-%",)))
                insert = f"INSERT INTO decisions VALUES ({', '.join('?' * len(rows[0]))})"
                bare.append(
                    seconds(lambda r=rows, q=insert: database.write(lambda c: c.exec_driver_sql(q, r)))  # type: ignore[misc]
                )
        say(f"{database.dialect}: {BATCH / statistics.median(ours):,.0f} decisions/s")
        if bare:
            ratio = statistics.median(b / o for b, o in zip(bare, ours, strict=True))
            say(f"  executemany {BATCH / statistics.median(bare):,.0f} rows/s; ratio {ratio:.2f}")


def test_threads_together(url: str) -> None:
    with Engine.open(url, learn="manual", encoder=TINY) as engine:
        add_campaign(engine)
        engine.warm_up()

        def work(_: int) -> None:
            for _ in range(EACH):
                engine.select("spring", {"device": "mobile"})

        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(work, range(THREADS)))
            took = seconds(lambda: list(threads.map(work, range(THREADS))))
        dialect = database_of(store_of(engine)).dialect
        say(f"{dialect}: {THREADS * EACH / took:,.0f} selects/s of {THREADS} threads")


def test_many_decisions(url: str) -> None:
    """Select beside many decisions, settle and learn them all, close, and open again."""
    with Engine.open(url, learn="manual", encoder=TINY) as engine:
        add_campaign(engine, attribution_window=1)
        engine.select("spring", {"device": "mobile"}, decision_id="pattern")
        before = select_ms(engine)
        say(f"{ROWS:,} rows copied in {seconds(lambda: database_of(store_of(engine)).write(copy)):.1f} s")
        after = select_ms(engine)
        say(f"select: {before:.3f} ms, beside {ROWS:,} decisions {after:.3f} ms")
        time.sleep(1.0)
        began = time.perf_counter()
        settled = engine.settle()
        took = time.perf_counter() - began
        say(f"settled and learnt {settled.learnt:,} in {took:.1f} s: {settled.learnt / took:,.0f}/s")
        assert settled.learnt >= ROWS
    began = time.perf_counter()
    with Engine.open(url, learn="manual", encoder=TINY):
        say(f"opened and resumed in {time.perf_counter() - began:.2f} s")


def select_ms(engine: Engine) -> float:
    """Return the median of single selects."""
    context = {"device": "mobile"}
    times = [seconds(lambda: engine.select("spring", context)) for _ in range(400)]
    return 1000 * statistics.median(times[100:])


def copy(connection: Connection) -> None:
    """Copy the decision `pattern` inside the database."""
    names = [column.name for column in Decision.__table__.columns]
    values = ["'copy-' || n" if name == "decision_id" else f"one.{name}" for name in names]
    connection.exec_driver_sql(COPIES.format(names=", ".join(names), values=", ".join(values), count=ROWS))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
