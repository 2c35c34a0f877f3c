"""The server cuts connections, or crashes, while threads select and report: nothing is lost."""

import threading
import time

import psycopg
import pytest
from sqlalchemy import URL, make_url

from bandit import Engine
from bandit.learning.verify import replay
from encoders import TextEncoder
from storage import ServerUnreachableError, Store
from tests.bandit.engines import Clock, Engines, add_campaign, learnt
from tests.bandit.inspect import learner_of, store_of
from tests.databases import OwnServer
from tests.storage.database.test_group_commit import at_once

N_THREADS = 4
EACH = 60
TRIES = 400  # of one call, with a pause between two
PAUSE_S = 0.05
SLOWEST_S = 15.0
OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
)


@pytest.mark.slow
@pytest.mark.postgres
def test_cut_connections_lose_and_double_nothing(postgres_engines: Engines, postgres_server: URL) -> None:
    engine = postgres_engines.open()
    add_campaign(engine)
    database = make_url(postgres_engines.url).database
    is_over = threading.Event()
    cuts = 0

    def cut() -> None:
        nonlocal cuts
        place = postgres_server.render_as_string(hide_password=False)
        with psycopg.connect(place, autocommit=True) as connection:
            while not is_over.wait(0.1):
                cuts += len(connection.execute(OTHERS, [database]).fetchall())

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        # Few of them are seen: what was cut before its commit is done again.
        at_once([lambda who=who: serve(engine, who) for who in range(N_THREADS)])  # type: ignore[misc]
    finally:
        is_over.set()
        cutter.join()
    assert cuts > 0
    engine.settle()
    check(engine, postgres_engines)


@pytest.mark.slow
@pytest.mark.postgres
def test_a_server_that_crashes_loses_and_doubles_nothing(
    own_server: OwnServer, tiny_encoder: TextEncoder, clock: Clock
) -> None:
    """Durability "normal" holds although the server's default here is to commit later."""
    Store.open(own_server.url).close()
    engines = Engines(own_server.url, tiny_encoder, clock)
    engine = engines.open()
    add_campaign(engine)
    is_over = threading.Event()
    crashes = 0

    def crash() -> None:
        nonlocal crashes
        while not is_over.wait(0.5):
            own_server.crash()
            own_server.start()
            crashes += 1

    crasher = threading.Thread(target=crash)
    crasher.start()
    try:
        errors = sum(at_once([lambda who=who: serve(engine, who) for who in range(N_THREADS)]))  # type: ignore[misc]
    finally:
        is_over.set()
        crasher.join()
    assert crashes > 0
    assert errors > 0
    engine.settle()
    check(engine, engines)
    engines.close()


def serve(engine: Engine, who: int) -> int:
    """Select and report; repeat with the same id what failed, and return how often that was."""
    errors = 0
    for i in range(EACH):
        name = f"{who}-{i}"
        for work in (
            lambda: engine.select("spring", {"device": "mobile"}, decision_id=name),  # noqa: B023  called here
            lambda: engine.update(name, click=i % 3 == 0, conversion=True, key="order"),  # noqa: B023
        ):
            for _ in range(TRIES):
                began = time.monotonic()
                try:
                    work()
                    break
                except ServerUnreachableError as error:
                    assert "check that the server runs" in str(error)  # noqa: PT017
                    errors += 1
                    time.sleep(PAUSE_S)
                finally:
                    assert time.monotonic() - began < SLOWEST_S
            else:
                raise AssertionError(f"{name} never succeeded")
    return errors


def check(engine: Engine, engines: Engines) -> None:
    """Find every decision, click and conversion once, and the posterior in the log."""
    names = {f"{who}-{i}": int(i % 3 == 0) for who in range(N_THREADS) for i in range(EACH)}
    assert {name: click for name, click, _ in learnt(engines)} == names
    conversions = engines.fetch("SELECT decision_id FROM outcomes WHERE kind = 'conversion'")
    assert sorted(name for (name,) in conversions) == sorted(names)
    assert sum(arm.conversions for arm in engine.arms("spring")) == len(names)
    assert store_of(engine).check() == []
    learner_of(engine).save()
    assert replay(store_of(engine), engines.clock).largest_difference < 1e-9
