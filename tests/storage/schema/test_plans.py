"""Query plans: no statement on the way of a request reads a growing table from end to end."""

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event

from bandit import Engine, Outcome, Request
from tests.bandit.engines import Clock, add_campaign
from tests.bandit.inspect import database_of, selector_of, store_of
from tests.paths import TINY

Statements = dict[str, Any]
GROWING = ("decisions", "outcomes", "candidate_sets", "learn_log", "embeddings", "arm_states")
# Indices that hold only what waits to be settled or learnt: they may be read from the beginning.
WAITING = ("ix_decisions_due", "ix_decisions_unlearnt", "ix_decisions_corrected")
MANY_CANDIDATE_SETS = """
INSERT INTO candidate_sets (hash, creative_ids)
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 2000)
SELECT 'set ' || n, '[1]' FROM numbers
"""
PLANNED = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", re.IGNORECASE)
ON_SQLITE = re.compile(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?")


@pytest.fixture
def clock() -> Clock:
    """A clock that moves only when it is told to."""
    return Clock()


@pytest.fixture
def engine(url: str, clock: Clock) -> Iterator[Engine]:
    """An engine with some thousand decisions, most of them learnt, and the planner's statistics."""
    with Engine.open(url, learn="manual", clock=clock, encoder=TINY) as opened:
        add_campaign(opened, attribution_window=timedelta(minutes=30))
        add_campaign(opened, name="at-once")
        for start in range(0, 3000, 500):
            requests = [
                Request(campaign="spring", context={"device": "md"[i % 2]}, decision_id=f"old-{start + i}")
                for i in range(500)
            ]
            opened.select_many(requests)
            opened.update_many([Outcome(decision_id=f"old-{start + i}", click=True) for i in range(50)])
            clock.pass_(timedelta(hours=1))
        opened.settle()
        write = database_of(store_of(opened)).write
        write(lambda connection: connection.exec_driver_sql(MANY_CANDIDATE_SETS))
        write(lambda connection: connection.exec_driver_sql("ANALYZE"))
        yield opened


@pytest.fixture
def statements(engine: Engine) -> Statements:
    """All statements that the engine executes from now on, each with its latest parameters."""
    seen: Statements = {}

    def note(
        _: Connection, cursor: Any, statement: str, parameters: Any, context: Any, is_many: bool
    ) -> None:
        if PLANNED.match(statement):
            seen[statement] = parameters[0] if is_many else parameters

    event.listen(database_of(store_of(engine))._engine, "before_cursor_execute", note)
    return seen


def test_no_request_reads_a_growing_table_from_end_to_end(
    engine: Engine, statements: Statements, clock: Clock
) -> None:
    first = engine.select("spring", {"device": "m"}, decision_id="new", defer_activation=True)
    assert engine.select("spring", {"device": "m"}, decision_id="new", defer_activation=True) == first
    engine.select("spring", {"device": "d"}, k=2)
    engine.select_many([Request(campaign="at-once", decision_id=name) for name in ("a", "b")])
    engine.activate("new")
    engine.update("new", conversion=True, value=2.0)
    engine.update("new", click=True, final=True)
    engine.update("new", click=True)
    engine.update_many([Outcome(decision_id=name, click=name == "a") for name in ("a", "b")])
    clock.pass_(timedelta(hours=1))
    selector_of(engine).follow()
    assert engine.settle().learnt == 5
    store = store_of(engine)
    store.learning.rows_of_batch(1, 1)

    for wanted in (
        "INSERT INTO decisions",
        "INSERT INTO outcomes",
        "INSERT INTO learn_log",
        "UPDATE decisions",
    ):
        assert any(wanted in statement for statement in statements), wanted
    assert {
        statement: found for statement in statements if (found := scans(engine, statement, statements))
    } == {}


def test_a_scan_is_found(engine: Engine) -> None:
    for statement in (
        "SELECT decision_id FROM decisions WHERE propensity = 0.5",
        "SELECT creative_id FROM decisions ORDER BY campaign_id, activated_at, creative_id",
        "UPDATE outcomes SET value = 1 WHERE value = 0",
    ):
        assert scans(engine, statement, {statement: ()}), statement


def scans(engine: Engine, statement: str, parameters: Statements) -> list[str]:
    """Return the growing tables that a statement reads from end to end, whatever index it uses for it."""
    database = database_of(store_of(engine))

    def explain(connection: Connection) -> list[tuple[str, str | None]]:
        given = parameters[statement]
        if database.dialect == "sqlite":
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given).all()
            return [found.groups() for row in rows if (found := ON_SQLITE.match(row.detail))]  # type: ignore[misc]
        # A merge may read an index without a condition, and stop early; what can be looked up is to be.
        for other in ("seqscan", "mergejoin", "hashjoin"):
            connection.exec_driver_sql(f"SET LOCAL enable_{other} = off")
        plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", given).scalar_one()
        return list(_on_postgres(plan[0]["Plan"]))

    found = database.read(explain)
    return [table for table, index in found if table in GROWING and index not in WAITING]


def _on_postgres(node: dict[str, Any], table: str | None = None) -> Iterator[tuple[str, str | None]]:
    """Yield the tables that a plan reads without a condition that an index answers, and the index."""
    table = node.get("Relation Name", table)
    children: Sequence[dict[str, Any]] = node.get("Plans", ())
    is_read = node["Node Type"] in {"Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan"}
    if is_read and "Index Cond" not in node:
        yield str(table), node.get("Index Name")
    for child in children:
        yield from _on_postgres(child, table)
