"""Pruned decisions count as before: the posterior, its refits and replays, with forgetting too."""

from datetime import timedelta

import numpy as np
import pytest

from bandit.errors import InvalidSettingError
from bandit.learning.verify import replay
from bandit.retention import campaigns_to_prune, needs_refit, prune_campaigns, remove_context_field
from storage import Store
from tests.bandit.engines import Engines, add_campaign, assert_same, play, posterior
from tests.bandit.inspect import store_of

DAY = timedelta(days=1)


def prune(engines: Engines, days: float) -> tuple[int, int]:
    with Store.open(engines.url) as store:
        campaigns = campaigns_to_prune(store, older_than=days * DAY, now=engines.clock())
        done = prune_campaigns(store, campaigns)
    return sum(found.pruned for found in done), sum(found.kept for found in done)


def refitted(engines: Engines) -> dict[str, np.ndarray]:
    """Return the posterior of a refit, without the number of its step."""
    with engines.open() as engine:
        engine.refit()
        return {**posterior(engine), "step": np.array(0)}


@pytest.mark.slow
@pytest.mark.parametrize("half_life", [None, 2.0])
def test_a_refit_after_pruning_equals_one_before(engines_on_both: Engines, half_life: float | None) -> None:
    engines = engines_on_both
    engine = engines.open()
    add_campaign(engine, conversion_window=0, control_share=0.3)
    engine.set_forgetting(half_life)
    for day in range(5):
        play(engine, 40, start=40 * day, learn_every=20)
        engines.clock.pass_(DAY)
    engine.refit()
    engine.close()
    before = refitted(engines)
    kinds = dict(engines.fetch("SELECT kind, count(*) FROM learn_log GROUP BY kind"))
    assert kinds.get("forget", 0) >= (4 if half_life else 0)
    arms = "SELECT creative, impressions, clicks, p_best_pct FROM arm_report ORDER BY creative"
    shown = engines.fetch(arms)
    assert prune(engines, 2.5) == (120, 0)
    after = refitted(engines)
    assert_same(after, before)
    engines.clock.pass_(timedelta(minutes=1))
    assert prune(engines, 1) == (80, 0)
    assert engines.fetch("SELECT count(*) FROM decisions") == [(0,)]
    assert_same(refitted(engines), before)
    assert [row[:3] for row in engines.fetch(arms)] == [row[:3] for row in shown]
    engines.forget_states()
    with engines.open(role="select") as replayed:  # begins at the refit, which needs no decision
        assert_same({**posterior(replayed), "step": np.array(0)}, before)
    with Store.open(engines.url) as store:
        assert store.check() == []
        assert replay(store, engines.clock, encoder=engines.encoder).largest_difference < 1e-9


def test_what_was_learnt_since_the_refit_stays(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine, conversion_window=0)
    play(engine, 30)
    engine.refit()
    play(engine, 30, start=30)
    engine.select("spring", decision_id="pending")
    before = posterior(engine)
    engine.close()
    engines.clock.pass_(3 * DAY)
    with Store.open(engines.url) as store:
        campaigns = campaigns_to_prune(store, older_than=DAY, now=engines.clock())
        assert needs_refit(store, campaigns)
    assert prune(engines, 1) == (30, 31)
    engines.forget_states()
    with engines.open(role="select") as replayed:
        assert_same(posterior(replayed), before)
    with engines.open() as engine:
        engine.refit()
    assert prune(engines, 1) == (30, 1)


def test_conversions_that_may_still_come_keep_their_decision(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine, conversion_window=30 * DAY)
    play(engine, 10)
    engine.refit()
    engines.clock.pass_(20 * DAY)
    assert prune(engines, 1) == (0, 0)
    assert engine.update("spring-0", conversion=True, value=5.0).status == "recorded"
    engines.clock.pass_(11 * DAY)
    assert prune(engines, 1) == (10, 0)
    assert [arm.value for arm in engine.arms("spring")].count(5.0) == 1
    with pytest.raises(InvalidSettingError, match="an age of at least a day to prune, got 1:00:00"):
        campaigns_to_prune(store_of(engine), older_than=timedelta(hours=1), now=engines.clock())


def test_a_field_is_removed_and_the_model_fitted_without_it(engines_on_both: Engines) -> None:
    engines = engines_on_both
    engine = engines.open()
    add_campaign(engine)
    play(engine, 90, learn_every=30)
    with Store.open(engines.url) as store:
        with pytest.raises(
            InvalidSettingError, match="first run: creative-bandit configure --context device=drop"
        ):
            remove_context_field(store, "device")
        with pytest.raises(InvalidSettingError, match="no context has had a field 'unseen'"):
            remove_context_field(store, "unseen")
    engine.set_context_policy({"device": "drop"})
    before = posterior(engine)
    engine.close()
    with Store.open(engines.url) as store:
        assert remove_context_field(store, "device") == 90
    engine = engines.open()  # which finds that a refit is due
    after = posterior(engine)
    assert after["step"] == before["step"] + 1
    assert np.max(np.abs(after["weights"] - before["weights"])) > 1e-3
    # The same id is still the same decision, as the field is dropped from the request too.
    context = {"device": "desktop", "age": 21.0, "is_new": False}
    assert engine.select("spring", context, decision_id="spring-1").id == "spring-1"
    for table in ("decisions", "context_slots", "context_counts", "history_counts", "pruned_counts"):
        assert "mobile" not in str(engines.fetch(f"SELECT * FROM {table}"))
    engine.close()
    with Store.open(engines.url) as store:
        assert store.check() == []
        assert replay(store, engines.clock, encoder=engines.encoder).largest_difference < 1e-9
