"""What the engine says of itself: why an estimate is as it is, and how each learning step went."""

import math

import pytest

from bandit import Creative, Engine
from bandit.errors import ContextError
from storage import UnknownCampaignError, UnknownCreativeError
from tests.bandit.engines import Engines


def learnt(engines: Engines, n: int = 60) -> Engine:
    engine = engines.open()
    engine.add_campaign("s", attribution_window=0)
    engine.add_creatives(
        "s", [Creative("calm", headline="free returns"), Creative("loud", headline="flash sale")]
    )
    for i in range(n):
        device = "mobile" if i % 2 else "desktop"
        decision = engine.select("s", {"device": device})
        engine.update(decision.id, click=decision.creative_id == "loud" and i % 3 == 0)
    engine.settle()
    return engine


def test_the_parts_sum_to_the_logit_and_follow_the_clicks(engines: Engines) -> None:
    engine = learnt(engines)
    calm, loud = (engine.explain("s", name, {"device": "mobile"}) for name in ("calm", "loud"))
    names = ["base rate", "context", "content", "interaction", "campaign", "creative"]
    for explanation in (calm, loud):
        assert [part.name for part in explanation.parts] == names
        assert sum(part.logit for part in explanation.parts) == pytest.approx(explanation.logit, abs=1e-9)
        assert all(part.sd >= 0 for part in explanation.parts)
        assert explanation.version == 1
    shared = ("base rate", "context", "campaign")
    assert [p for p in calm.parts if p.name in shared] == [p for p in loud.parts if p.name in shared]
    assert loud.parts[-1].logit > 0 > calm.parts[-1].logit
    assert loud.ctr > calm.ctr
    # The mean of a click rate lies above the rate at the mean logit, at ad click rates.
    assert loud.ctr > 1 / (1 + math.exp(-loud.logit))


def test_the_sentence_names_the_rate_and_the_largest_shift_first(engines: Engines) -> None:
    engine = learnt(engines)
    explanation = engine.explain("s", "loud")
    assert explanation.sentence.startswith(f"loud: an estimated click rate of {100 * explanation.ctr:.2f} %")
    largest = max(explanation.parts[1:], key=lambda part: abs(part.logit))
    first = explanation.sentence.split("odds of ")[1].split(",")[0]
    assert first.startswith(f"{100 * math.expm1(largest.logit):+.0f} %")


def test_a_new_creative_is_its_content_alone(engines: Engines) -> None:
    engine = learnt(engines)
    engine.add_creatives("s", [Creative("new", headline="winter shoes")])
    parts = {part.name: part for part in engine.explain("s", "new").parts}
    assert parts["creative"].logit == 0
    assert parts["creative"].sd == pytest.approx(0.25)
    assert parts["content"].logit != 0
    assert (parts["context"].logit, parts["context"].sd) == (0, 0)


def test_what_cannot_be_explained(engines: Engines) -> None:
    engine = learnt(engines, n=1)
    with pytest.raises(UnknownCampaignError, match="'t'"):
        engine.explain("t", "calm")
    with pytest.raises(UnknownCreativeError, match=r"'clam'; its creatives: calm, loud"):
        engine.explain("s", "clam")
    with pytest.raises(ContextError, match="device"):
        engine.explain("s", "calm", {"device": 7})


def test_every_step_reports_about_itself(engines_on_both: Engines) -> None:
    engine = learnt(engines_on_both)
    engine.refit()
    rows = engine._store.learning.model_log(1, limit=10)
    assert [(row.step, row.kind, row.n_rows) for row in rows] == [(2, "refit", 0), (1, "batch", 60)]
    refit, batch = (row.info for row in rows)
    clicks = engines_on_both.fetch("SELECT sum(click) FROM decisions")[0][0]
    assert batch["clicks"] == clicks > 0
    assert 0 < batch["expected_clicks"] < 60 * 0.2
    # The prior expects about 2 %: the clicks of one creative come as a surprise.
    assert batch["log_evidence"] < 60 * (0.02 * math.log(0.02) + 0.98 * math.log(0.98))
    assert batch["largest_step"] < 0.02
    assert 1 <= batch["passes"] <= 8
    assert refit["largest_step"] < 1e-4
    assert batch["smallest_pivot"] > 0
    assert engine._store.learning.model_log(1, limit=1) == rows[:1]
