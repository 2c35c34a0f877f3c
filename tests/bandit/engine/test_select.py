"""Selecting: the same id the same answer, candidates, propensities, many requests at once."""

from collections import Counter

import numpy as np
import pytest

from bandit import Engine, Request
from storage import DecisionConflictError, RetiredCreativeError
from tests.bandit.engines import Engines, add_campaign, play


@pytest.fixture
def engine(engines: Engines) -> Engine:
    """An engine that has learnt a little, with three creatives."""
    engine = engines.open()
    add_campaign(engine)
    play(engine, 30)
    return engine


def test_the_same_id_gives_the_first_decision(engines_on_both: Engines) -> None:
    engine = engines_on_both.open()
    add_campaign(engine)
    first = engine.select("spring", {"device": "mobile", "age": 33}, decision_id="a")
    assert engine.select("spring", {"age": 33, "device": "mobile"}, decision_id="a") == first
    play(engine, 20)
    engine.pause("spring", first.creative_id)
    engine.add_creatives("spring", [])
    assert engine.select("spring", {"device": "mobile", "age": 33}, decision_id="a") == first
    engine.retire("spring")
    assert engine.select("spring", {"device": "mobile", "age": 33}, decision_id="a") == first
    count = "SELECT count(*) FROM decisions WHERE decision_id = 'a'"
    assert engines_on_both.fetch(count) == [(1,)]


def test_the_same_id_twice_in_one_call_is_one_decision(engine: Engine, engines: Engines) -> None:
    before = engines.row_counts()["decisions"]
    one, two = engine.select_many([Request(campaign="spring", decision_id="a")] * 2)
    assert one == two
    assert engines.row_counts()["decisions"] == before + 1


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"campaign": "summer"}, "campaign"),
        ({"context": {"device": "desktop"}}, "context"),
        ({"context": {}}, "context"),
        ({"eligible": ["calm"]}, "candidates"),
        ({"exclude": ["plain"]}, "candidates"),
    ],
)
def test_an_id_of_another_request_is_refused(
    engine: Engine, engines: Engines, changes: dict[str, object], what: str
) -> None:
    add_campaign(engine, name="summer")
    request = {"campaign": "spring", "context": {"device": "mobile"}, "decision_id": "a"}
    engine.select(**request)  # type: ignore[arg-type]  built from parts
    before = engines.row_counts()
    with pytest.raises(DecisionConflictError, match=rf"decision 'a' .*its {what} differ"):
        engine.select(**{**request, **changes})  # type: ignore[arg-type]
    assert engines.row_counts() == before


def test_two_requests_of_one_call_may_not_share_an_id(engine: Engine, engines: Engines) -> None:
    before = engines.row_counts()
    requests = [
        Request(campaign="spring", decision_id="a", context={"device": name}) for name in ("mobile", "tablet")
    ]
    with pytest.raises(DecisionConflictError, match=r"'a' is taken .*context"):
        engine.select_many(requests)
    assert engines.row_counts() == before


def test_candidates(engine: Engine) -> None:
    assert set(engine.select("spring").propensities) == {"calm", "urgent", "plain"}
    assert set(engine.select("spring", eligible=["calm", "plain"]).propensities) == {"calm", "plain"}
    assert engine.select("spring", exclude=["calm", "plain"]).propensities == {"urgent": 1.0}
    both = engine.select("spring", eligible=["calm", "plain"], exclude=["plain"])
    assert (both.creative_id, both.propensity) == ("calm", 1.0)
    engine.pause("spring", "calm")
    assert set(engine.select("spring").propensities) == {"urgent", "plain"}
    engine.resume("spring", "calm")
    engine.retire("spring", "plain")
    assert set(engine.select("spring").propensities) == {"calm", "urgent"}
    with pytest.raises(RetiredCreativeError, match="'plain' of campaign 'spring' is retired"):
        engine.resume("spring", "plain")


def test_propensities_are_what_happens(engine: Engine, engines: Engines) -> None:
    n = 6_000
    chosen: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    variance: Counter[str] = Counter()
    for start in range(0, n, 1_000):
        ids = [f"draw-{i}" for i in range(start, start + 1_000)]
        for decision in engine.select_many([Request(campaign="spring", decision_id=i) for i in ids]):
            assert sum(decision.propensities.values()) == pytest.approx(1, abs=1e-12)
            assert min(decision.propensities.values()) >= 0.01 / 3 - 1e-15
            assert decision.propensity == decision.propensities[decision.creative_id]
            chosen[decision.creative_id] += 1
            for name, share in decision.propensities.items():
                expected[name] += share
                variance[name] += share * (1 - share)
    for name in expected:
        assert abs(chosen[name] - expected[name]) < 5 * np.sqrt(variance[name]), (name, chosen, expected)
    assert max(chosen.values()) < n
    logged = engines.fetch("SELECT count(*), min(propensity) FROM decisions WHERE decision_id LIKE 'draw-%'")
    assert logged[0][0] == n
    assert logged[0][1] >= 0.01 / 3 - 1e-15


def test_many_at_once_is_one_by_one(engine: Engine, engines: Engines) -> None:
    add_campaign(engine, *"abcdef", name="summer")
    names = [(("spring", "summer")[i % 2], {"age": float(i)}, f"x-{i}") for i in range(10)]
    many = engine.select_many([Request(campaign=c, context=x, decision_id=i) for c, x, i in names])
    engine.close()
    engines.execute("DELETE FROM decisions WHERE decision_id LIKE 'x-%'")
    again = engines.open()
    for (campaign, context, i), first in zip(reversed(names), reversed(many), strict=True):
        alone = again.select(campaign, context, decision_id=i)
        # Programs of different shapes may round the last digit differently.
        close = pytest.approx(first.propensities, abs=1e-12)
        assert (alone.creative_id, alone.propensities) == (first.creative_id, close)


def test_one_creative_is_shown_always(engine: Engine) -> None:
    add_campaign(engine, "alone", name="one")
    assert engine.select("one").propensities == {"alone": 1.0}


def test_arms_and_the_view_say_the_same(engines_on_both: Engines) -> None:
    engine = engines_on_both.open()
    add_campaign(engine)
    play(engine, 12)
    engine.select("spring", decision_id="pending")
    arms = {arm.creative_id: arm for arm in engine.arms("spring")}
    assert sum(arm.impressions for arm in arms.values()) == 12
    assert sum(arm.clicks for arm in arms.values()) == 4
    assert sum(arm.pending_impressions for arm in arms.values()) == 1
    assert sum(arm.p_best for arm in arms.values()) == pytest.approx(1)
    assert sum(arm.share or 0 for arm in arms.values()) == pytest.approx(1)
    columns = (
        "creative, impressions, clicks, pending, version, ctr_pct, ctr_low_pct, ctr_high_pct, p_best_pct"
    )
    for name, *counts, ctr, low, high, p_best in engines_on_both.fetch(f"SELECT {columns} FROM arm_report"):
        arm = arms.pop(name)
        assert [arm.impressions, arm.clicks, arm.pending_impressions, arm.version] == counts
        percents = [100 * rate for rate in (arm.ctr, arm.ctr_low, arm.ctr_high, arm.p_best)]
        assert [float(rate) for rate in (ctr, low, high, p_best)] == pytest.approx(percents, abs=0.06)
        assert 0 < arm.ctr_low < arm.ctr < arm.ctr_high < 1
    assert arms == {}
