"""A file cut, a disk full, a lock held, a clock set back: each is told or survived, and nothing is lost."""

import random
import shutil
import sqlite3
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event

from bandit.learning.verify import replay
from storage import DatabaseHeldError, StorageError, Store
from tests.bandit.engines import Engines, add_campaign, learnt, play
from tests.bandit.inspect import database_of, learner_of, store_of

N_CUTS = 100
CONTEXT = {"device": "mobile"}


def path_of(engines: Engines) -> Path:
    return Path(engines.url.removeprefix("sqlite:///"))


def test_a_log_cut_anywhere_opens_with_what_was_committed_before(engines: Engines, tmp_path: Path) -> None:
    """What a power cut leaves of the write-ahead log is a beginning of it."""
    engine = engines.open()
    add_campaign(engine)
    with sqlite3.connect(path_of(engines)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    commits = []
    for i in range(40):
        decision = engine.select("spring", CONTEXT, decision_id=f"d{i:02}")
        commits.append(("decision", decision.id))
        engine.update(decision.id, click=i % 3 == 0)
        commits.append(("outcome", decision.id))
    copies = [tmp_path / f"copied{end}" for end in ("", "-wal")]
    for copy, end in zip(copies, ("", "-wal"), strict=True):
        shutil.copy(f"{path_of(engines)}{end}", copy)
    log = copies[1].read_bytes()

    lengths = sorted(random.Random(5).sample(range(len(log)), N_CUTS))  # noqa: S311  nothing secret
    found = []
    for number, length in enumerate([*lengths, len(log)]):
        cut = tmp_path / f"cut{number}.db"
        shutil.copy(copies[0], cut)
        Path(f"{cut}-wal").write_bytes(log[:length])
        with Store.open(cut) as store:
            assert store.check() == []
        with sqlite3.connect(cut) as connection:
            decisions = {("decision", i) for (i,) in connection.execute("SELECT decision_id FROM decisions")}
            outcomes = {("outcome", i) for (i,) in connection.execute("SELECT decision_id FROM outcomes")}
        connection.close()
        stored = decisions | outcomes
        assert stored == set(commits[: len(stored)])
        found.append(len(stored))
    assert found == sorted(found)  # more of the log is never fewer commits
    assert len(set(found)) > N_CUTS / 4
    assert found[-1] == len(commits)


def test_a_full_disk_is_told_and_costs_nothing(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    play(engine, 10)
    pool = database_of(store_of(engine))._engine
    limit = [0]

    def limit_pages(connection: sqlite3.Connection, *_: object) -> None:
        # SQLite answers SQLITE_FULL as it does when the disk has no page left for it.
        connection.execute(f"PRAGMA max_page_count={limit[0] or 2**30}")

    event.listen(pool, "checkout", limit_pages)
    with sqlite3.connect(path_of(engines)) as connection:
        (limit[0],) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()

    answered: list[str] = []
    failed = ""
    for i in range(2000):
        name = f"full-{i}"
        try:
            engine.select("spring", CONTEXT, decision_id=name)
            answered.append(name)
            engine.update(name, click=False)
        except StorageError as error:
            assert "the disk is full; free some space, then try again" in str(error)  # noqa: PT017
            failed = name
            break
    assert failed
    assert len(answered) > 1

    limit[0] = 0
    engine.select("spring", CONTEXT, decision_id=failed)
    engine.update(failed, click=True)
    engine.settle()
    assert {*answered, failed} <= {name for name, _, _ in learnt(engines)}
    assert store_of(engine).check() == []
    learner_of(engine).save()
    assert replay(store_of(engine), engines.clock).largest_difference < 1e-9


def test_a_reader_keeps_nobody_waiting(engines_on_both: Engines) -> None:
    engine = engines_on_both.open()
    add_campaign(engine)
    play(engine, 3)
    is_reading, may_end = threading.Event(), threading.Event()

    def read(reader: Store) -> None:
        def work(connection: object) -> None:
            count = connection.exec_driver_sql  # type: ignore[attr-defined]
            before = count("SELECT count(*) FROM decisions").scalar()
            is_reading.set()
            assert may_end.wait(60)
            seen.append((before, count("SELECT 1").scalar()))

        database_of(reader).read(work)

    seen: list[tuple[int, int]] = []
    with Store.open(engines_on_both.url) as reader:
        thread = threading.Thread(target=read, args=(reader,))
        thread.start()
        assert is_reading.wait(10)
        try:
            play(engine, 30, start=3)
            assert len(learnt(engines_on_both)) == 33
        finally:
            may_end.set()
            thread.join()
    assert seen == [(3, 1)]


@pytest.mark.slow
def test_a_writer_that_does_not_let_go_is_told_and_survived(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    play(engine, 3)
    other = sqlite3.connect(path_of(engines), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseHeldError, match="held by another process; close it there, or wait longer"):
        engine.select("spring", CONTEXT, decision_id="waiting")
    other.execute("ROLLBACK")
    other.close()
    engine.select("spring", CONTEXT, decision_id="waiting")
    engine.update("waiting", click=True)
    assert engine.settle().learnt == 1
    assert store_of(engine).check() == []


def test_a_clock_set_back_an_hour_loses_and_repeats_nothing(engines_on_both: Engines) -> None:
    engine = engines_on_both.open()
    add_campaign(engine)
    add_campaign(engine, "slow", "slower", name="waits", attribution_window=600)
    play(engine, 20, learn_every=5)
    engine.select("waits", CONTEXT, decision_id="before")
    engine.select("waits", CONTEXT, decision_id="silent")
    engines_on_both.clock.pass_(-timedelta(hours=1))
    engine.update("before", click=True)
    engine.select("waits", CONTEXT, decision_id="after")
    play(engine, 20, start=20, learn_every=5)
    assert len(learnt(engines_on_both)) == 40
    engines_on_both.clock.pass_(timedelta(hours=2))
    assert engine.settle().learnt == 3
    assert {(name, click) for name, click, _ in learnt(engines_on_both)} >= {
        ("before", 1),
        ("silent", 0),
        ("after", 0),
    }
    steps = engines_on_both.fetch("SELECT step FROM learn_log ORDER BY step")
    assert [step for (step,) in steps] == list(range(1, len(steps) + 1))
    learner_of(engine).save()
    assert store_of(engine).check() == []
    found = replay(store_of(engine), engines_on_both.clock)
    assert found.largest_difference < 1e-9
    assert sum(arm.impressions for name in ("spring", "waits") for arm in engine.arms(name)) == 43
