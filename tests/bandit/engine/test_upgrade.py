"""A database that older code wrote is upgraded: nothing of it changes, and the engine goes on with it."""

from datetime import timedelta

import pytest

from bandit import ArmReport, Engine
from encoders import TextEncoder
from storage import SchemaOlderError, Store, schema_status, upgrade
from tests.bandit.engines import START, TABLES, Clock, Engines
from tests.bandit.inspect import model_of, replica_of, store_of
from tests.storage.old import restore

DATABASES = ["sqlite", pytest.param("empty_postgres", marks=pytest.mark.postgres)]
REBUILT = {"0001": {"posteriors", "arm_states"}, "0002": set()}  # by replaying the log
NEW = {"0001": {"history_imports"}, "0002": set()}
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
SINCE_0002 = {
    **KEPT,
    "decisions": f"{KEPT['decisions']}, list_propensity, is_control",
    "creatives": f"{KEPT['creatives']}, floor, cap",
    "history_counts": f"{KEPT['history_counts']}, import_id, context, slots_version",
    "history_imports": "import_id, impressions, clicks",
    "posteriors": "step, snapshot",
    "arm_states": "creative_id, step, u, q, k",
}


@pytest.fixture(params=DATABASES)
def place(request: pytest.FixtureRequest) -> str:
    """The URL of a database without a table."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_rows_stay_and_the_engine_goes_on(place: str, revision: str, tiny_encoder: TextEncoder) -> None:
    restore(place, revision)
    old = Engines(place, tiny_encoder, Clock(START.replace(day=2)))
    kept = {"0001": KEPT, "0002": SINCE_0002}[revision]
    rows = {table: old.fetch(f"SELECT {columns} FROM {table} ORDER BY 1") for table, columns in kept.items()}
    n_rows = _row_counts(old, revision)
    assert all(rows.values())
    assert schema_status(old.url).state == "older"
    with pytest.raises(SchemaOlderError, match=f"has the older schema {revision}"):
        old.open()
    assert upgrade(old.url).revision == revision
    for table, columns in kept.items():
        assert old.fetch(f"SELECT {columns} FROM {table} ORDER BY 1") == rows[table], table
    assert _row_counts(old, revision) == n_rows
    with Store.open(old.url) as store:
        assert store.check() == []
    engine = old.open()
    assert replica_of(engine).view.step == len(rows["learn_log"])
    before = {arm.creative_id: arm for arm in engine.arms("spring")}
    counts = {i: (arm.impressions, arm.clicks, arm.history_impressions) for i, arm in before.items()}
    assert counts == {
        name: tuple(counts)
        for name, *counts in old.fetch(
            "SELECT creative, impressions, clicks, history_impressions FROM arm_report "
            "WHERE campaign = 'spring'"
        )
    }
    assert counts["calm"][2] == {"0001": 300, "0002": 400}[revision]
    _goes_on(old, engine, before["calm"], n_pending={"0001": 1, "0002": 2}[revision])
    _takes_back(old, engine)
    old.close()


def _goes_on(old: Engines, engine: Engine, before: ArmReport, n_pending: int) -> None:
    """Select, learn and import after an upgrade."""
    for i in range(20):
        decision = engine.select("spring", {"device": "mobile"}, decision_id=f"new-{i}", eligible=["calm"])
        engine.update(decision.id, click=i < 15)
    old.clock.pass_(timedelta(hours=1))
    assert engine.settle().learnt == 20 + n_pending
    (calm,) = [arm for arm in engine.arms("spring") if arm.creative_id == "calm"]
    assert calm.impressions == before.impressions + 20
    engine.refit()
    again = {arm.creative_id: arm.ctr for arm in engine.arms("spring")}
    # 15 clicks of 20 came after an upgrade: both estimates have moved towards them.
    assert before.ctr < min(calm.ctr, again["calm"]) < 15 / 20


def _takes_back(old: Engines, engine: Engine) -> None:
    """Correct what was learnt before the upgrade, and prune it after a refit."""
    learnt_clicks = "click = 1 AND learnt_batch IS NOT NULL"
    ((name,),) = old.fetch(f"SELECT min(decision_id) FROM decisions WHERE {learnt_clicks}")
    step = replica_of(engine).view.step
    assert engine.update(name, click=True, valid=False).status == "recorded"
    engine.refit()
    assert replica_of(engine).view.step == step + 2  # the correction, then the refit
    campaigns = store_of(engine).campaigns.all(model_of(engine).record.model_id)
    pruned = [store_of(engine).pruning.prune(c.campaign_id, before=START.replace(day=3)) for c in campaigns]
    assert sum(part.pruned for part in pruned) > 20
    assert store_of(engine).check() == []


def _row_counts(engines: Engines, revision: str) -> dict[str, int]:
    tables = set(TABLES) - NEW[revision] - REBUILT[revision]
    return {table: engines.fetch(f"SELECT count(*) FROM {table}")[0][0] for table in sorted(tables)}
