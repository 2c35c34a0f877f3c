"""Control share, floors and caps: taken by the engine, kept in SQL, and seen by others."""

import pytest

from bandit import Creative
from bandit.errors import InvalidCampaignError
from storage import InvalidLimitsError, UnknownCreativeError
from tests.bandit.engines import Engines, add_campaign, creatives
from tests.bandit.inspect import follow_at_once, selector_of


def test_limits_are_kept_and_followed(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine, "calm", control_share=0.1, uniform_share=0.02)
    warm = Creative("warm", headline="warm", floor=0.1, cap=0.8)
    engine.add_creatives("spring", [warm, *creatives("plain")])
    follower = engines.open(role="select")
    engine.set_traffic("spring", "calm", floor=0.2)
    assert engines.fetch("SELECT uniform_share, control_share FROM campaigns") == [(0.02, 0.1)]
    query = "SELECT external_id, floor, cap FROM creatives ORDER BY creative_id"
    assert engines.fetch(query) == [("calm", 0.2, 1.0), ("warm", 0.1, 0.8), ("plain", 0.0, 1.0)]
    assert selector_of(follower).entry("spring").creatives[0].floor == 0.0
    follow_at_once(follower)
    follower.settle()
    assert selector_of(follower).entry("spring").creatives[0].floor == 0.2


def test_limits_that_cannot_be_kept(engines: Engines) -> None:
    engine = engines.open()
    with pytest.raises(InvalidCampaignError, match=r"sum to at most 1, got 0\.6 and 0\.5"):
        engine.add_campaign("spring", uniform_share=0.6, control_share=0.5)
    add_campaign(engine, "calm", "plain", uniform_share=0.02)
    with pytest.raises(InvalidLimitsError, match=r"floors of its 2 active creatives sum to 1\.01,"):
        engine.set_traffic("spring", "calm", floor=1)
    with pytest.raises(UnknownCreativeError, match="no creative 'clam'"):
        engine.set_traffic("spring", "clam", floor=0.1)
    engine.add_campaign("winter")
    with pytest.raises(InvalidLimitsError, match=r"'winter': the caps of its 1 .* sum to 0\.5"):
        engine.add_creatives("winter", [Creative("half", headline="half", cap=0.5)])
    engine.add_creatives("winter", [Creative(name, headline=name, cap=0.5) for name in ("a", "b")])
    engine.pause("winter", "a")  # never refused
    engine.resume("winter", "a")
