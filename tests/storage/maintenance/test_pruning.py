"""Pruning: what goes, what stays, and that nothing that is counted changes."""

import os
import signal
from datetime import date, timedelta
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy.dialects import sqlite

from storage import ContextCountRecord, HistoryCountRecord, NewOutcome, Store
from storage.database.urls import database_url
from storage.maintenance import pruning
from storage.maintenance.pruning import START, Cursor, Pruned
from tests.bandit.inspect import database_of
from tests.processes.forked import after_statements, start
from tests.storage.conftest import MINUTE, NOW, World
from tests.storage.sql import execute, fetch

DAY = timedelta(days=1)
KEPT = (
    "SELECT creative, impressions, clicks, conversions, value FROM arm_report ORDER BY creative",
    "SELECT campaign, impressions, clicks, control_impressions, control_clicks_pct FROM campaign_report",
    "SELECT campaign, day, impressions, settled, clicks, clicks_pct FROM daily_clicks",
)


def numbers(url: str) -> list[list[tuple[str, ...]]]:
    """Return what people read; PostgreSQL's numerics may be longer."""
    shown = [fetch(url, query) for query in KEPT]
    return [
        [tuple(str(v if isinstance(v, int | str | date) else float(v or 0)) for v in row) for row in rows]
        for rows in shown
    ]


def counted(world: World) -> list[tuple[object, ...]]:
    rows = world.store.learning.counts(world.model_id, up_to_step=99)
    return [
        (row.creative_id, row.slots_version, str(row.context), row.impressions, row.clicks) for row in rows
    ]


@pytest.fixture
def played(world: World) -> World:
    """Decisions of three days, the last two of them not seen by the refit; one pending, one never shown."""
    lease = world.store.leases.acquire(world.model_id, "learner")
    assert lease is not None
    for i in range(20):
        world.record(
            f"d{i:02}",
            creative_id=world.creative_ids[i % 2],
            context={"device": ("mobile", "desktop")[i % 3 == 0]},
            is_control=i % 5 == 0,
            decided_at=NOW + i * DAY / 8,
            activated_at=NOW + i * DAY / 8,
        )
        world.click(f"d{i:02}", float(i % 4 == 0))
    for key, value in (("a", 10.0), ("b", 5.0)):
        new = NewOutcome(decision_id="d04", kind="conversion", key=key, value=value)
        world.store.outcomes.record([new], received_at=NOW + DAY)
    world.record("pending")
    world.record("deferred", activated_at=None)
    learning = world.store.learning
    learning.write_step(world.step(lease, 1, *(f"d{i:02}" for i in range(8))))
    learning.write_step(world.step(lease, 2, kind="forget", parameters={"kept": 0.5}))
    learning.write_step(world.step(lease, 3, *(f"d{i:02}" for i in range(8, 18))))
    learning.write_step(world.step(lease, 4, kind="refit"))
    learning.write_step(world.step(lease, 5, "d18", "d19"))
    return world


def prune(world: World, *, limit: int = 100, days: float = 9) -> Pruned:
    """Prune until nothing as old is left, and return the sums."""
    cursor, pruned, kept = START, 0, 0
    while cursor is not None:
        part = world.store.pruning.prune(
            world.campaign_id, before=NOW + days * DAY, after=cursor, limit=limit
        )
        cursor, pruned, kept = part.cursor, pruned + part.pruned, kept + part.kept  # type: ignore[assignment]
    return Pruned(pruned, kept, None)


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_what_is_counted_stays(played: World, url: str, limit: int) -> None:
    before, counts = numbers(url), counted(played)
    stretches = [
        played.store.learning.counts(played.model_id, after_step=a, up_to_step=u) for a, u in ((0, 2), (2, 9))
    ]
    assert played.store.check() == []
    # A run that is killed after its first transaction:
    first = played.store.pruning.prune(played.campaign_id, before=NOW + 9 * DAY, limit=limit)
    assert (numbers(url), counted(played), played.store.check()) == (before, counts, [])
    assert prune(played, limit=limit).pruned == 18 - first.pruned
    assert prune(played, limit=limit) == Pruned(0, 3, None)  # d18 and d19 no refit has seen, one is pending
    left = "SELECT decision_id FROM decisions ORDER BY decision_id"
    assert [name for (name,) in fetch(url, left)] == ["d18", "d19", "deferred", "pending"]
    assert fetch(url, "SELECT count(*) FROM outcomes") == [(2,)]
    assert numbers(url) == before
    assert counted(played) == counts
    assert [
        played.store.learning.counts(played.model_id, after_step=a, up_to_step=u) for a, u in ((0, 2), (2, 9))
    ] == stretches
    assert played.store.check() == []
    assert prune(played) == Pruned(0, 3, None)
    total = fetch(
        url, "SELECT sum(impressions), sum(clicks), sum(conversions), sum(value) FROM pruned_counts"
    )
    assert [tuple(map(float, row)) for row in total] == [(18, 5, 2, 15)]


def prune_until_killed(url: str, campaign_id: int, beginning: str) -> None:
    """Look at three decisions a transaction; die inside the second one, after a statement that begins so."""
    with Store.open(url) as store:
        statements = count(1)
        after_statements(
            database_of(store),
            beginning,
            lambda: os.kill(os.getpid(), signal.SIGKILL) if next(statements) == 2 else None,
        )
        cursor: Cursor | None = START
        while cursor is not None:
            cursor = store.pruning.prune(campaign_id, before=NOW + 9 * DAY, after=cursor, limit=3).cursor


@pytest.mark.kills
def test_a_run_killed_inside_a_transaction_leaves_no_decision_half_pruned(played: World, url: str) -> None:
    before, counts = numbers(url), counted(played)
    places = ("INSERT INTO pruned_counts", "DELETE FROM outcomes", "DELETE FROM decisions")
    for runs, beginning in enumerate(places, start=1):
        process = start(prune_until_killed, url, played.campaign_id, beginning)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert fetch(url, "SELECT sum(impressions) FROM pruned_counts") == [(2 * runs,)]  # and one is pending
        assert fetch(url, "SELECT count(*) FROM decisions") == [(22 - 2 * runs,)]
        assert (numbers(url), counted(played), played.store.check()) == (before, counts, [])
    assert prune(played) == Pruned(18 - 2 * len(places), 3, None)
    assert (numbers(url), counted(played), played.store.check()) == (before, counts, [])


def test_only_what_is_old(played: World, url: str) -> None:
    assert prune(played, days=1) == Pruned(8, 1, None)
    assert fetch(url, "SELECT min(decision_id) FROM decisions") == [("d08",)]
    assert played.store.check() == []


def test_what_a_refit_must_see_first(played: World) -> None:
    topic = played.store.pruning
    assert topic.needs_refit(played.campaign_id, before=NOW + 9 * DAY)
    assert not topic.needs_refit(played.campaign_id, before=NOW + DAY)
    take_back = NewOutcome(decision_id="d04", kind="click", value=1.0, valid=False)
    played.store.outcomes.record([take_back], received_at=NOW + MINUTE)
    assert topic.needs_refit(played.campaign_id, before=NOW + DAY)
    assert prune(played, days=1) == Pruned(7, 2, None)


def test_a_correction_that_a_refit_has_seen_goes_with_it(played: World, url: str) -> None:
    take_back = NewOutcome(decision_id="d04", kind="click", value=1.0, valid=False)
    played.store.outcomes.record([take_back], received_at=NOW + MINUTE)
    lease = int(fetch(url, "SELECT number FROM leases")[0][0])
    played.store.learning.write_step(played.step(lease, 6, kind="correction"))
    played.store.learning.write_step(played.step(lease, 7, kind="refit"))
    before, counts = numbers(url), counted(played)
    assert prune(played) == Pruned(20, 1, None)
    assert numbers(url) == before
    assert counted(played) == counts
    assert played.store.check() == []


def test_the_newest_contexts_are_known_after_it(played: World) -> None:
    before = played.store.learning.recent_contexts(played.campaign_id, limit=1)
    prune(played)
    assert played.store.learning.recent_contexts(played.campaign_id, limit=1) == before  # of d19


def test_check_sees_a_count_that_is_lost(played: World, url: str) -> None:
    prune(played)
    execute(url, "DELETE FROM pruned_counts WHERE is_control")
    assert {"arm statistics", "learnt decisions in all"} <= {
        finding.check for finding in played.store.check()
    }


def test_old_decisions_are_found_by_an_index(sqlite_world: World, migrated_sqlite_url: str) -> None:
    sqlite_world.record("d1")
    compiled = str(pruning.OLD.compile(dialect=sqlite.dialect())).replace("?", "1")
    plan = [str(row[-1]) for row in fetch(migrated_sqlite_url, f"EXPLAIN QUERY PLAN {compiled}")]
    assert "ix_decisions_recent (campaign_id=? AND activated_at>? AND activated_at<?)" in plan[0], plan


def test_a_field_is_removed_everywhere(played: World, url: str) -> None:
    models, learning = played.store.models, played.store.learning
    models.add_context_fields(played.model_id, {"device": "string", "user": "string"})
    models.give_context_slot(played.model_id, "user", "ann-of-oslo")
    for name, context in (("u1", {"user": "ann-of-oslo", "n": 1}), ("u2", {"n": 1}), ("u3", {"user": "bo"})):
        played.record(name, context=context)
    past = [
        HistoryCountRecord(creative_id=played.creative_ids[0], impressions=n, clicks=1, context=context)
        for n, context in ((10, {"user": "ann-of-oslo"}), (20, {"user": "bo"}), (5, {}), (7, {"n": 2}))
    ]
    count = ContextCountRecord(field="user", level="ann-of-oslo", decisions=12)
    learning.add_history(played.model_id, past, import_id="a", imported_at=NOW, context_counts=[count])
    execute(url, "UPDATE decisions SET context = '{\"user\":\"ann-of-oslo\"}' WHERE decision_id < 'd09'")
    prune(played, days=1)
    cursor, changed = "", 0
    while cursor is not None:
        part = played.store.pruning.remove_field(played.model_id, "user", after=cursor, limit=4)
        cursor, changed = part.cursor, changed + part.changed  # type: ignore[assignment]
    assert changed == 3  # u1, u3 and d08; d00 to d07 are pruned
    tables = ("decisions", "pruned_counts", "history_counts", "context_slots", "context_counts", "outcomes")
    stored = str([fetch(url, f"SELECT * FROM {table}") for table in tables])
    assert "ann-of-oslo" not in stored
    assert fetch(url, "SELECT context FROM decisions WHERE decision_id LIKE 'u%' ORDER BY decision_id") == [
        ('{"n":1}',),
        ('{"n":1}',),
        ("{}",),
    ]
    history = fetch(url, "SELECT context, impressions, clicks FROM history_counts ORDER BY context")
    assert history == [('{"n":2}', 7, 1), ("{}", 35, 3)]
    assert played.store.check() == []
    assert models.context(played.model_id).fields["user"] == "string"


def test_the_sqlite_file_forgets_what_goes(sqlite_world: World, migrated_sqlite_url: str) -> None:
    path = Path(str(database_url(migrated_sqlite_url).database))
    for i in range(500):
        sqlite_world.record(f"d{i}", context={"user": f"visitor-{i}-of-oslo", "n": i})
    assert b"-of-oslo" in raw(path)
    cursor: str | None = ""
    while cursor is not None:
        cursor = sqlite_world.store.pruning.remove_field(sqlite_world.model_id, "user", after=cursor).cursor
    sqlite_world.store.pruning.finish()
    assert b"-of-oslo" not in raw(path)


def raw(path: Path) -> bytes:
    """Return all bytes of an SQLite database, those of its log included."""
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
