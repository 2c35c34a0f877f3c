"""Clicks are reported at once and silence is learnt later: the estimate must not lean to the clicks."""

from datetime import timedelta

import pytest

from bandit import Outcome, Request
from tests.bandit.engines import MINUTE, Engines, add_campaign

CTR = 0.1
PER_MINUTE = 20
MINUTES = 65


@pytest.mark.parametrize("window", [5, 30])
def test_a_steady_stream_stays_inside_its_interval(engines_on_both: Engines, window: int) -> None:
    """Every tenth impression is clicked within a minute; nothing else is ever reported."""
    engine = engines_on_both.open()
    clock = engines_on_both.clock
    add_campaign(engine, "only", attribution_window=timedelta(minutes=window), horizon=None)
    share_low, share_high = 1.0, 0.0
    waiting: list[str] = []
    for minute in range(MINUTES):
        engine.update_many([Outcome(decision_id=name, click=True) for name in waiting])
        decisions = engine.select_many([Request(campaign="spring")] * PER_MINUTE)
        waiting = [decision.id for i, decision in enumerate(decisions) if i % 10 == 5]
        clock.pass_(MINUTE)
        engine.settle()
        (arm,) = engine.arms("spring")
        # Nothing of a window that is open is learnt, neither clicks nor silence.
        assert arm.impressions == PER_MINUTE * max(0, minute + 2 - window)
        assert arm.clicks == arm.impressions * CTR
        if arm.impressions:
            assert arm.ctr_low < CTR < arm.ctr_high, (minute, arm)
            share_low, share_high = min(share_low, arm.ctr), max(share_high, arm.ctr)
    assert arm.ctr_high - arm.ctr_low < 0.05  # so the interval says something
    assert share_high < CTR + 0.02
    engine.close()
