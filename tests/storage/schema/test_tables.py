"""The schema: what migrations make is what the code declares; views read well; checks find what is wrong."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from safetensors.numpy import save
from sqlalchemy import create_engine, inspect
from sqlalchemy.dialects import sqlite

import storage
from storage import ArmStates, ArmSummary, HistoryCountRecord, NewOutcome, Store
from storage.database.urls import database_url
from storage.maintenance import exporter as exporting
from storage.maintenance import pruning
from storage.maintenance.upgrade import VERSION_TABLE
from storage.schema.columns import Base
from storage.schema.views import VIEWS
from storage.topics import corrections, decisions, outcomes, steps
from storage.topics import settlement as settling
from tests.storage.conftest import NOW, World
from tests.storage.sql import execute, fetch

NO_STATES = ArmStates(np.array([], int), np.empty((0, 1)), np.array([]), np.array([]))


def test_the_migrations_make_the_declared_tables(store: Store, url: str) -> None:
    engine = create_engine(database_url(url))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True},
        )
        assert compare_metadata(context, Base.metadata) == []
        # What the comparison does not look at.
        found = inspect(connection)
        for name, table in Base.metadata.tables.items():
            declared = {
                str(check.name) for check in table.constraints if check.name and "ck_" in str(check.name)
            }
            assert {check["name"] for check in found.get_check_constraints(name)} == declared, name
            assert found.get_pk_constraint(name)["constrained_columns"] == [c.name for c in table.primary_key]
    engine.dispose()


def test_every_constraint_has_a_name(store: Store, url: str) -> None:
    engine = create_engine(database_url(url))
    found = inspect(engine)
    for name in Base.metadata.tables:
        kinds = (found.get_check_constraints, found.get_unique_constraints, found.get_foreign_keys)
        assert all(constraint["name"] for kind in kinds for constraint in kind(name)), name
    engine.dispose()


def test_an_upgrade_makes_the_views_anew(url: str) -> None:
    Store.open(url).close()
    execute(url, "DROP VIEW arm_report", "CREATE VIEW arm_report AS SELECT 1 AS stale")
    # A stamp of no revision at all is the oldest schema; the tables must go, or 0001 would meet them.
    tables = [table.name for table in reversed(Base.metadata.sorted_tables)]
    views = [f"DROP VIEW {view.name}" for view in VIEWS]
    execute(url, *views, *(f"DROP TABLE {name}" for name in tables), f"DELETE FROM {VERSION_TABLE}")
    execute(url, "CREATE VIEW arm_report AS SELECT 1 AS stale")
    with pytest.raises(storage.SchemaOlderError):
        Store.open(url)
    assert storage.upgrade(url).state == "older"
    assert storage.upgrade(url).state == "current"
    assert fetch(url, "SELECT * FROM arm_report") == []


@pytest.mark.parametrize("view", [view.name for view in VIEWS])
def test_every_view_says_what_it_answers(store: Store, url: str, view: str) -> None:
    if url.startswith("sqlite"):
        comment = fetch(url, f"SELECT sql FROM sqlite_master WHERE type = 'view' AND name = '{view}'")[0][0]
    else:
        comment = fetch(url, f"SELECT obj_description('{view}'::regclass, 'pg_class')")[0][0]
    answers = {entry.name: entry.answers for entry in VIEWS}[view]
    assert answers in comment


VIEW_COLUMNS = {
    "arm_report": "campaign creative status headline impressions clicks ctr_pct ctr_low_pct ctr_high_pct "
    "p_best_pct share_pct expected_loss_pct value_remaining_pct conversions value pending "
    "history_impressions history_clicks version refreshed_at",
    "campaign_report": "campaign status creatives active_creatives impressions clicks clicks_pct conversions "
    "value pending leader leader_ctr_pct leader_p_best_pct leader_expected_loss_pct value_remaining_pct "
    "control_impressions control_clicks_pct engine_clicks_pct horizon refreshed_at",
    "daily_clicks": "campaign day impressions settled clicks clicks_pct",
    "decision_log": "decision_id campaign creative decided_at context propensity is_control click "
    "conversions value place list_propensity request_id model_version slots_version horizon kappa point_set "
    "activated_at settled_at learnt_batch creative_id candidates propensities headline body call_to_action",
    "late_outcomes": "decision_id campaign creative kind value activated_at occurred_at received_at "
    "settled_at settled_click seconds_after_impression",
    "learning_lag": "model due unlearnt oldest_unlearnt_at newest_step newest_step_at newest_snapshot "
    "learner lease_expires_at",
}


def test_the_views_have_the_same_columns_on_both(store: Store, url: str) -> None:
    engine = create_engine(database_url(url))
    found = inspect(engine)
    shown = {view.name: " ".join(column["name"] for column in found.get_columns(view.name)) for view in VIEWS}
    engine.dispose()
    assert shown == VIEW_COLUMNS


def _busy(world: World) -> int:
    """Leave every kind of row behind, all in order; return the lease."""
    names = [f"d{number}" for number in range(6)]
    for number, name in enumerate(names):
        world.record(name, creative_id=world.creative_ids[number % 2])
        world.click(name, float(number == 0))
    world.click("d1", 1.0)  # late
    purchase = NewOutcome(decision_id="d0", kind="conversion", key="order 1", value=49.9)
    world.store.outcomes.record([purchase], received_at=NOW)
    world.record("pending")
    lease = world.store.leases.acquire(world.model_id, "learner")
    assert lease is not None
    summaries = tuple(
        ArmSummary(
            creative_id=creative_id,
            ctr=0.0212345,
            ctr_low=0.01,
            ctr_high=0.04,
            p_best=p_best,
            expected_loss=0.0001,
            value_remaining=0.125,
            version=1,
        )
        for creative_id, p_best in zip(world.creative_ids, (0.2, 0.7, 0.1), strict=True)
    )
    snapshot = save({})
    world.store.learning.write_step(world.step(lease, 1, *names[:4], snapshot=snapshot))
    world.store.learning.refresh_statistics(summaries, refreshed_at=NOW)
    return lease


def _import(world: World) -> None:
    """Leave imported history behind, in two contexts."""
    past = [
        HistoryCountRecord(creative_id=world.creative_ids[0], impressions=100, clicks=4),
        HistoryCountRecord(creative_id=world.creative_ids[1], impressions=50, clicks=1),
    ]
    world.store.learning.add_history(world.model_id, past, import_id="past", imported_at=NOW)


def test_the_reports(world: World, url: str) -> None:
    _busy(world)
    rows = [
        HistoryCountRecord(creative_id=world.creative_ids[0], impressions=600, clicks=12, context=context)
        for context in ({}, {"device": "mobile"})
    ]
    world.store.learning.add_history(world.model_id, rows, import_id="a", imported_at=NOW)
    arms = fetch(
        url,
        "SELECT campaign, creative, status, headline, impressions, clicks, ctr_pct, p_best_pct, conversions, "
        "value, pending, history_impressions, version FROM arm_report",
    )
    rows = [(*row[:6], float(row[6]), float(row[7]), row[8], float(row[9]), *row[10:]) for row in arms]
    assert rows == [
        ("spring", "urgent", "active", "The urgent one", 2, 0, 2.123, 70.0, 0, 0.0, 1, 0, 1),
        ("spring", "calm", "active", "The calm one", 2, 1, 2.123, 20.0, 1, 49.9, 2, 1200, 1),
        ("spring", "plain", "active", "The plain one", 0, 0, 2.123, 10.0, 0, 0.0, 0, 0, 1),
    ]
    campaign = fetch(
        url,
        "SELECT campaign, creatives, impressions, clicks, clicks_pct, conversions, pending, leader, horizon, "
        "leader_expected_loss_pct, value_remaining_pct FROM campaign_report",
    )[0]
    assert (*campaign[:4], float(campaign[4]), *campaign[5:9], *map(float, campaign[9:])) == (
        "spring", 3, 4, 1, 25.0, 1, 3, "urgent", "auto", 0.01, 12.5,
    )  # fmt: skip
    days = fetch(url, "SELECT campaign, day, impressions, settled, clicks FROM daily_clicks")
    assert [(name, str(day), *counts) for name, day, *counts in days] == [("spring", "2026-03-01", 7, 6, 1)]
    assert fetch(url, "SELECT decision_id, kind, settled_click FROM late_outcomes") == [("d1", "click", 0)]
    lag = fetch(url, "SELECT model, due, unlearnt, newest_step, newest_snapshot, learner FROM learning_lag")
    assert lag == [("default", 0, 2, 1, 1, "learner")]


def test_control_is_counted_beside_the_engine(world: World, url: str) -> None:
    names = [f"d{number}" for number in range(10)]
    for number, name in enumerate(names):
        world.record(name, is_control=number < 4)
        world.click(name, float(number in (0, 4, 5, 6)))
    lease = world.store.leases.acquire(world.model_id, "learner")
    assert lease is not None
    world.store.learning.write_step(world.step(lease, 1, *names[:9]))
    query = (
        "SELECT impressions, control_impressions, control_clicks_pct, engine_clicks_pct FROM campaign_report"
    )
    assert [tuple(map(float, row)) for row in fetch(url, query)] == [(9, 4, 25.0, 60.0)]
    shown = fetch(url, "SELECT count(*) FROM decision_log WHERE is_control")
    assert shown == [(4,)]


def test_the_decision_log_is_a_data_set(world: World, url: str) -> None:
    _busy(world)
    rows = fetch(
        url,
        "SELECT decision_id, creative, propensity, click, conversions, value, context, candidates, "
        "propensities FROM decision_log ORDER BY decision_id",
    )
    context = '{"age":33.5,"device":"mobile","is_new":true}'
    candidates = "[" + ",".join(map(str, world.creative_ids)) + "]"
    assert (*rows[0][:5], float(rows[0][5]), *rows[0][6:]) == (
        "d0", "calm", 0.5, 1, 1, 49.9, context, candidates, "[0.5,0.3,0.2]",
    )  # fmt: skip
    assert [row[3] for row in rows] == [1, 0, 0, 0, 0, 0, None]


@pytest.mark.parametrize(
    ("damage", "check", "message"),
    [
        (
            "UPDATE arm_statistics SET clicks = clicks + 1 WHERE creative_id = 2",
            "arm statistics",
            "creative 2: statistics say 1 clicks of 2 impressions, its learnt decisions 0 of 2",
        ),
        (
            "UPDATE arm_statistics SET conversions = 5 WHERE creative_id = 1",
            "conversions",
            "creative 1: statistics say 5 conversions worth 49.9, its outcomes 1 worth 49.9",
        ),
        (
            "UPDATE history_counts SET clicks = 3 WHERE creative_id = 1",
            "imported history",
            "import past: is noted with 5 clicks of 150 impressions, its counts sum to 4 of 150",
        ),
        (
            "DELETE FROM arm_statistics WHERE creative_id = 3",
            "creatives without statistics",
            "creative 3: has no row in arm_statistics",
        ),
        (
            "UPDATE decisions SET learnt_batch = 7 WHERE decision_id = 'd2'",
            "learnt decisions",
            "model 1, step 7: decisions say it learnt 1 of them, the log 0",
        ),
        (
            "UPDATE learn_log SET step = 2 WHERE step = 1",
            "steps without their decisions",
            "model 1, step 2: the log says it learnt 4 decisions, none names it",
        ),
        (
            "UPDATE learn_log SET step = 3 WHERE step = 1",
            "gaps in the log",
            "model 1: its log has 1 steps from 3 to 3",
        ),
        (
            "UPDATE decisions SET click = 1 WHERE decision_id = 'd3'",
            "settled clicks",
            "decision d3: settled as 1, its reports in time say 0",
        ),
        (
            "UPDATE creatives SET campaign_id = 2 WHERE creative_id = 1",
            "creatives of other campaigns",
            "decision d0: its creative 1 belongs to campaign 2, not 1",
        ),
        (
            "UPDATE posteriors SET step = 5",
            "states beyond the log",
            "snapshot, model 1: is as of step 5, the log ends at 1",
        ),
    ],
)
def test_check_finds_what_is_wrong(world: World, url: str, damage: str, check: str, message: str) -> None:
    _busy(world)
    _import(world)
    world.store.campaigns.add(world.model_id, "other", created_at=NOW)
    assert world.store.check() == []
    execute(url, "DELETE FROM model_log", damage)  # it refers to the steps, and nothing is checked by it
    findings = [(finding.check, f"{finding.subject}: {finding.message}") for finding in world.store.check()]
    assert (check, message) in findings


def test_check_reads_the_snapshots(world: World) -> None:
    lease = _busy(world)
    world.store.learning.write_snapshot(
        world.model_id, lease=lease, step=1, state=b"junk", arm_states=NO_STATES, created_at=NOW
    )
    finding = world.store.check()[0]
    assert (finding.check, finding.subject) == ("snapshots", "model 1, step 1")
    assert "cannot be read" in finding.message


def test_check_finds_orphans_on_sqlite(sqlite_world: World, migrated_sqlite_url: str) -> None:
    _busy(sqlite_world)
    with sqlite3.connect(str(database_url(migrated_sqlite_url).database)) as connection:
        connection.execute("DELETE FROM candidate_sets")
    findings = [finding for finding in sqlite_world.store.check() if finding.check == "references"]
    assert len(findings) == 7
    assert "candidate_sets" in findings[0].message


def test_many_ids_are_looked_up_by_their_index(migrated_sqlite_url: str, sqlite_world: World) -> None:
    """The very statements, as they are compiled: a scan here costs more the more history there is."""
    _busy(sqlite_world)
    for statement in (
        decisions.STORED,
        decisions.DEFERRED,
        outcomes.LOCKED,
        outcomes.REPORTS,
        settling.SETTLE_ALL,
        settling.SETTLE_REPORTED,
        steps.LEARNABLE,
        steps.MARK_LEARNT,
        corrections.LOST_CLICKS,
        corrections.UNCLICK,
        corrections.NOTE,
        pruning.LOCKED,
        pruning.CONVERSIONS,
        pruning.DELETE_DECISIONS,
        pruning.DELETE_OUTCOMES,
        exporting.OUTCOMES,
    ):
        compiled = statement.compile(dialect=sqlite.dialect())
        with closing(sqlite3.connect(database_url(migrated_sqlite_url).database or "")) as connection:
            names = ['["d0"]'] * len(compiled.positiontup or ())
            plan = [row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {compiled}", names)]
        assert "(decision_id=?" in plan[0], plan
        assert not [step for step in plan if step.startswith(("SCAN decisions", "SCAN outcomes"))], plan


def test_hot_queries_use_their_indexes(sqlite_world: World, migrated_sqlite_url: str) -> None:
    """Nothing on the way of a request or of the learner scans the history."""
    _busy(sqlite_world)
    unnoted = str(corrections.UNNOTED.compile(dialect=sqlite.dialect())).replace("?", "1")
    plans = {
        "ix_decisions_due": "SELECT decision_id FROM decisions WHERE settles_at IS NOT NULL "
        "AND settled_at IS NULL AND settles_at <= '2027' ORDER BY settles_at LIMIT 5",
        "ix_decisions_unlearnt": "SELECT context FROM decisions WHERE EXISTS (SELECT 1 FROM campaigns "
        "WHERE campaigns.campaign_id = decisions.campaign_id AND model_id = 1) AND settled_at IS NOT NULL "
        "AND learnt_batch IS NULL ORDER BY settled_at, decision_id LIMIT 256",
        "ix_decisions_learnt": "SELECT context FROM decisions WHERE EXISTS (SELECT 1 FROM campaigns "
        "WHERE campaigns.campaign_id = decisions.campaign_id AND model_id = 1) AND learnt_batch = 3",
        "INDEX ix_decisions_pending": "SELECT creative_id, count(*), sum(click) FROM decisions "
        "WHERE activated_at IS NOT NULL AND learnt_batch IS NULL AND creative_id IN (1, 2) "
        "GROUP BY creative_id",
        "ix_decisions_corrected": unnoted,
        "COVERING INDEX ix_outcomes_corrects": "SELECT 1 FROM outcomes WHERE corrects = 7",
        "COVERING INDEX ix_decisions_recent": "SELECT creative_id, count(*) FROM decisions "
        "WHERE campaign_id = 1 AND activated_at > '2026' GROUP BY creative_id",
    }
    for index, query in plans.items():
        plan = "\n".join(str(row[-1]) for row in fetch(migrated_sqlite_url, f"EXPLAIN QUERY PLAN {query}"))
        assert index in plan, plan
        assert "SCAN decisions\n" not in plan + "\n", plan
