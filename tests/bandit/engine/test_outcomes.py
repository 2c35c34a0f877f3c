"""Modes of learning, attribution windows and what becomes of each report."""

import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from bandit import Engine, Outcome, Request, Settled
from bandit.learning.replica import BATCH
from tests.bandit.engines import MINUTE, START, Engines, add_campaign, happens_within, learnt, wait_for
from tests.bandit.inspect import store_of


def statuses(engine: Engine, *outcomes: Outcome) -> list[str]:
    return [record.status for record in engine.update_many(outcomes)]


def test_background_learns_within_a_second_without_any_call(engines_on_both: Engines) -> None:
    engine = engines_on_both.open(learn="background")
    add_campaign(engine)
    warm = engine.select("spring")
    engine.update(warm.id, click=False)
    wait_for(lambda: len(learnt(engines_on_both)) == 1, at_most_s=30)  # programs are compiled meanwhile

    def learn(number: int) -> Callable[[], bool]:
        name = f"later {number}"
        engine.update(engine.select("spring", decision_id=name).id, click=True)
        return lambda: (name, 1) in [row[:2] for row in learnt(engines_on_both)]

    assert happens_within(1.5, learn)


def test_background_settles_silence_without_any_call(engines: Engines) -> None:
    engine = engines.open(learn="background")
    add_campaign(engine, attribution_window=30 * MINUTE)
    engine.select("spring", decision_id="silent")
    engines.clock.pass_(31 * MINUTE)
    wait_for(lambda: learnt(engines) == [("silent", 0, 1)], at_most_s=30)


def test_inline_learns_inside_update(engines_on_both: Engines) -> None:
    engine = engines_on_both.open(learn="inline")
    add_campaign(engine)
    engine.select("spring", decision_id="a")
    assert learnt(engines_on_both) == []
    engine.update("a", click=True)
    assert learnt(engines_on_both) == [("a", 1, 1)]
    assert engine.select("spring").model_version == 1


def test_manual_learns_only_in_settle(engines: Engines) -> None:
    engine = engines.open(learn="manual")
    add_campaign(engine)
    engine.select("spring", decision_id="a")
    engine.update("a", click=True)
    engine.arms("spring")
    time.sleep(1.3)  # longer than a background thread would take
    assert learnt(engines) == []
    assert engine.settle() == Settled(settled=0, learnt=1)
    assert engine.settle() == Settled(settled=0, learnt=0)
    engine.update(engine.select("spring").id, click=True)
    engine.close()
    assert len(learnt(engines)) == 1


def test_a_click_waits_as_long_as_silence(engines_on_both: Engines) -> None:
    engine, clock = engines_on_both.open(), engines_on_both.clock
    add_campaign(engine, attribution_window=30 * MINUTE)
    engine.select("spring", decision_id="clicked")
    engine.select("spring", decision_id="silent")
    clock.pass_(MINUTE)
    assert not engine.update("clicked", click=True).has_settled
    clock.pass_(28.9 * MINUTE)
    assert engine.settle() == Settled(settled=0, learnt=0)
    clock.pass_(0.1 * MINUTE)
    assert engine.settle() == Settled(settled=2, learnt=2)
    assert learnt(engines_on_both) == [("clicked", 1, 1), ("silent", 0, 1)]


def test_a_late_click_is_kept_and_not_learnt(engines_on_both: Engines) -> None:
    engine, clock = engines_on_both.open(), engines_on_both.clock
    add_campaign(engine, attribution_window=30 * MINUTE)
    for name in ("over", "settled", "early"):
        engine.select("spring", decision_id=name)
    clock.pass_(31 * MINUTE)
    # Its window is over, though nobody has settled it yet; one that happened inside it still counts.
    assert engine.update("over", click=True).status == "late"
    assert engine.update("early", click=True, occurred_at=START + MINUTE).status == "recorded"
    engine.settle()
    assert engine.update("settled", click=True, occurred_at=START + MINUTE).status == "late"
    assert learnt(engines_on_both) == [("early", 1, 1), ("over", 0, 1), ("settled", 0, 1)]
    late = engines_on_both.fetch("SELECT decision_id FROM late_outcomes ORDER BY decision_id")
    assert late == [("over",), ("settled",)]


def test_a_final_report_closes_and_is_learnt_at_the_windows_end(engines: Engines) -> None:
    engine, clock = engines.open(), engines.clock
    add_campaign(engine, attribution_window=30 * MINUTE)
    engine.select("spring", decision_id="no")
    engine.select("spring", decision_id="yes")
    engine.update("no", click=False, final=True)
    engine.update("yes", click=True, final=True)
    assert engine.update("no", click=True).status == "late"
    assert engine.settle() == Settled(settled=0, learnt=0)
    clock.pass_(30 * MINUTE)
    engine.settle()
    assert learnt(engines) == [("no", 0, 1), ("yes", 1, 1)]


@pytest.mark.parametrize("window", [timedelta(0), 30 * MINUTE], ids=["at-once", "half-an-hour"])
def test_what_was_never_shown_is_never_learnt(engines_on_both: Engines, window: timedelta) -> None:
    engine, clock = engines_on_both.open(), engines_on_both.clock
    add_campaign(engine, attribution_window=window)
    for name in ("shown", "hidden"):
        engine.select("spring", decision_id=name, defer_activation=True)
        engine.update(name, click=True)
    clock.pass_(timedelta(days=1))
    assert engine.settle().learnt == 0
    engine.activate("shown")
    engine.settle()
    clock.pass_(30 * MINUTE)
    engine.settle()
    assert learnt(engines_on_both) == [("shown", 1, 1)]
    clock.pass_(timedelta(days=30))
    assert engine.settle() == Settled(settled=0, learnt=0)


def test_a_report_counts_once(engines_on_both: Engines) -> None:
    engine = engines_on_both.open()
    add_campaign(engine, "only")
    engine.select("spring", decision_id="a")
    assert statuses(engine, Outcome(decision_id="a", click=True)) == ["recorded"]
    again = Outcome(decision_id="a", click=True)
    assert statuses(engine, again, again) == ["repeated", "repeated"]
    engine.settle()
    assert engine.update("a", click=True).status == "repeated"
    engine.settle()
    (arm,) = engine.arms("spring")
    assert (arm.impressions, arm.clicks) == (1, 1)


def test_a_click_after_a_non_click_counts_while_the_window_is_open(engines: Engines) -> None:
    engine, clock = engines.open(), engines.clock
    add_campaign(engine, attribution_window=30 * MINUTE)
    engine.select("spring", decision_id="a")
    engine.update("a", click=False)
    engine.update("a", click=True)
    clock.pass_(30 * MINUTE)
    engine.settle()
    assert learnt(engines) == [("a", 1, 1)]


def test_conversions_are_told_apart_by_key_and_summed(engines_on_both: Engines) -> None:
    engine, clock = engines_on_both.open(), engines_on_both.clock
    add_campaign(engine, "only", conversion_window=timedelta(days=7))
    engine.select("spring", decision_id="a")
    first = engine.update("a", click=True, conversion=True, value=19.5, key="order-1")
    assert (first.status, first.has_settled) == ("recorded", True)
    assert engine.update("a", conversion=True, value=19.5, key="order-1").status == "repeated"
    clock.pass_(timedelta(days=6))
    assert engine.update("a", conversion=True, value=0.5, key="order-2").status == "recorded"
    clock.pass_(timedelta(days=2))
    assert engine.update("a", conversion=True, value=100.0, key="order-3").status == "late"
    (arm,) = engine.arms("spring")
    assert (arm.conversions, arm.value) == (2, 20.0)
    assert store_of(engine).check() == []


def test_statuses_come_in_the_order_given(engines: Engines) -> None:
    engine, clock = engines.open(), engines.clock
    add_campaign(engine, attribution_window=30 * MINUTE)
    for name in ("a", "b"):
        engine.select("spring", decision_id=name)
    engine.update("b", click=True)
    clock.pass_(31 * MINUTE)
    both = Outcome(decision_id="a", click=True, conversion=True)
    assert statuses(engine, both, Outcome(decision_id="b", click=True)) == ["late", "repeated"]


def test_settling_for_a_while_leaves_the_rest_to_the_next_call(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    decisions = engine.select_many([Request(campaign="spring") for _ in range(BATCH + 10)])
    engine.update_many([Outcome(decision_id=decision.id, click=False) for decision in decisions])
    assert engine.settle(at_most_s=0.0).learnt == BATCH
    assert engine.settle().learnt == 10
