"""A database that older code wrote is upgraded: nothing of it changes, and the engine goes on with it."""

import pytest

from bandit import ArmReport, Engine
from encoders import TextEncoder
from storage import SchemaOlderError, Store, schema_status, upgrade
from tests.bandit.engines import START, TABLES, Clock, Engines
from tests.storage.old import restore

DATABASES = ["sqlite", pytest.param("empty_postgres", marks=pytest.mark.postgres)]
REBUILT = {"posteriors", "arm_states"}  # by replaying the log
NEW = {"history_imports"}
KEPT = {
    "decisions": "decision_id, campaign_id, creative_id, candidate_set_id, propensities, propensity, "
    "context, model_version, slots_version, horizon, kappa, point_set, decided_at, activated_at, settles_at, "
    "closed_at, settled_at, click, learnt_batch",
    "arm_statistics": "creative_id, impressions, clicks, conversions, value, ctr, p_best, refreshed_at",
    "history_counts": "creative_id, impressions, clicks, imported_at",
    "campaigns": "campaign_id, name, uniform_share, control_share, mean_content, created_at",
    "creatives": "creative_id, external_id, content, content_hash, status",
    "learn_log": "step, kind, n_rows, logged_at",
    "outcomes": "outcome_id, decision_id, kind, key, value, late, received_at",
}


@pytest.fixture(params=DATABASES)
def old(request: pytest.FixtureRequest, tiny_encoder: TextEncoder) -> Engines:
    """Engines on a database that schema 0001's code wrote."""
    url = request.getfixturevalue(f"{request.param}_url")
    restore(url, "0001")
    return Engines(url, tiny_encoder, Clock(START.replace(day=2)))


def test_rows_stay_and_the_engine_goes_on(old: Engines) -> None:
    rows = {table: old.fetch(f"SELECT {columns} FROM {table} ORDER BY 1") for table, columns in KEPT.items()}
    n_rows = {table: n for table, n in _row_counts(old).items() if table not in REBUILT}
    assert all(rows.values())
    assert schema_status(old.url).state == "older"
    with pytest.raises(SchemaOlderError, match="has the older schema 0001"):
        old.open()
    assert upgrade(old.url).revision == "0001"
    for table, columns in KEPT.items():
        assert old.fetch(f"SELECT {columns} FROM {table} ORDER BY 1") == rows[table], table
    assert {table: n for table, n in _row_counts(old).items() if table not in REBUILT} == n_rows
    with Store.open(old.url) as store:
        assert store.check() == []
    engine = old.open()
    assert engine._learner.view.step == len(rows["learn_log"])
    before = {arm.creative_id: arm for arm in engine.arms("spring")}
    counts = {i: (arm.impressions, arm.clicks, arm.history_impressions) for i, arm in before.items()}
    assert counts == {
        name: tuple(counts)
        for name, *counts in old.fetch(
            "SELECT external_id, s.impressions, s.clicks, coalesce(h.impressions, 0) FROM creatives "
            "JOIN arm_statistics s ON s.creative_id = creatives.creative_id "
            "LEFT JOIN history_counts h ON h.creative_id = s.creative_id WHERE campaign_id = 1"
        )
    }
    assert counts["calm"][2] == 300
    _goes_on(engine, before["calm"])
    old.close()


def _goes_on(engine: Engine, before: ArmReport) -> None:
    """Select, learn and import after an upgrade."""
    for i in range(20):
        decision = engine.select("spring", {"device": "mobile"}, decision_id=f"new-{i}", eligible=["calm"])
        engine.update(decision.id, click=i < 15)
    assert engine.settle().learnt == 20 + 1  # with the one that was pending in the other campaign
    (calm,) = [arm for arm in engine.arms("spring") if arm.creative_id == "calm"]
    assert calm.impressions == before.impressions + 20
    engine.refit()
    again = {arm.creative_id: arm.ctr for arm in engine.arms("spring")}
    # 15 clicks of 20 came after an upgrade: both estimates have moved towards them.
    assert before.ctr < min(calm.ctr, again["calm"]) < 15 / 20


def _row_counts(engines: Engines) -> dict[str, int]:
    return {
        table: engines.fetch(f"SELECT count(*) FROM {table}")[0][0] for table in TABLES if table not in NEW
    }
