"""What the engine says of itself: why an estimate is as it is, and how each learning step went."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bandit import Creative, Engine
from bandit.errors import ContextError, EncoderChangedError
from bandit.explanation import text_direction
from bandit.features.context import context_vector
from encoders import AttributionError, MissingEncoderError, TextEncoder
from storage import UnknownCampaignError, UnknownCreativeError, UnknownDecisionError
from tests.bandit.engines import Engines
from tests.bandit.inspect import model_of, replica_of, store_of
from tests.paths import TINY


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


def test_a_decision_is_explained_with_how_it_was_drawn(engines: Engines) -> None:
    engine = learnt(engines)
    context = {"device": "mobile"}
    decision = engine.select("s", context, decision_id="d1")
    explanation = engine.explain(decision_id="d1")
    by_hand = engine.explain("s", decision.creative_id, context)
    assert (explanation.parts, explanation.ctr) == (by_hand.parts, by_hand.ctr)
    assert explanation.campaign == "s"
    stored = store_of(engine).decisions.get(["d1"])["d1"]
    draw = explanation.draw
    assert draw is not None
    assert by_hand.draw is None
    assert (draw.decision_id, draw.propensity, draw.model_version) == ("d1", decision.propensity, 1)
    assert (draw.horizon, draw.kappa, draw.is_control) == (stored.horizon, stored.kappa, False)
    assert explanation.sentence == (
        f"{by_hand.sentence} Decision d1 chose it with a probability of {100 * decision.propensity:.2f} %, "
        f"at learning step 1, with {stored.horizon:,.0f} impressions an arm in sight (H) and "
        f"κ = {stored.kappa:g}."
    )
    # The posterior is today's, the draw is that of then.
    engine.retire("s", decision.creative_id)
    for i in range(30):
        later = engine.select("s", context)
        engine.update(later.id, click=i % 2 == 0)
    engine.settle()
    again = engine.explain(decision_id="d1")
    assert (again.version, again.draw) == (2, draw)
    assert again.ctr != explanation.ctr


def test_a_decisions_context_means_what_it_meant_then(engines: Engines) -> None:
    engine = learnt(engines, n=6)
    engine.select("s", {"device": "mobile"}, decision_id="early")
    before = engine.explain(decision_id="early")
    slots = engines.fetch("SELECT count(*) FROM context_slots")
    model_of(engine).schema = store_of(engine).models.give_context_slot(1, "device", "mobile")
    assert engines.fetch("SELECT count(*) FROM context_slots") > slots
    assert engine.explain(decision_id="early") == before
    assert engine.explain("s", before.creative_id, {"device": "mobile"}).parts != before.parts


def test_control_and_an_endless_campaign_are_told(engines: Engines) -> None:
    engine = engines.open()
    engine.add_campaign("s", horizon=None, attribution_window=0)
    engine.add_creatives("s", [Creative("calm", headline="free returns")])
    engine.select("s", decision_id="d1")
    engines.execute("UPDATE decisions SET is_control = true")
    sentence = engine.explain(decision_id="d1").sentence
    assert "Decision d1 chose it, as control, with a probability of 100.00 %" in sentence
    assert "without an end in sight" in sentence


def test_what_cannot_be_explained(engines: Engines) -> None:
    engine = learnt(engines, n=1)
    with pytest.raises(UnknownCampaignError, match="'t'"):
        engine.explain("t", "calm")
    with pytest.raises(UnknownCreativeError, match=r"'clam'; its creatives: calm, loud"):
        engine.explain("s", "clam")
    with pytest.raises(UnknownDecisionError, match="there is no decision 'd99'"):
        engine.explain(decision_id="d99")
    with pytest.raises(TypeError, match="got campaign='s', creative_id='calm', decision_id='d1'"):
        engine.explain("s", "calm", decision_id="d1")  # type: ignore[call-overload]  # wrong on purpose
    with pytest.raises(TypeError, match="got campaign='s', creative_id=None, decision_id=None"):
        engine.explain("s")  # type: ignore[call-overload]  # wrong on purpose
    with pytest.raises(ContextError, match="device"):
        engine.explain("s", "calm", {"device": 7})
    with pytest.raises(UnknownCreativeError, match="'clam'"):
        engine.explain("s", "clam", words=True)


def test_words_sum_to_what_the_text_says(engines: Engines) -> None:
    engine = learnt(engines)
    context = {"device": "mobile"}
    explanation = engine.explain("s", "loud", context, words=True)
    wording = explanation.wording
    assert wording is not None
    parts = {part.name: part.logit for part in explanation.parts}
    assert wording.logit == pytest.approx(parts["content"] + parts["interaction"], abs=1e-6)
    assert parts["interaction"] != 0
    assert [(word.field, word.start, word.end, word.text) for word in wording.words] == [
        ("headline", 0, 5, "flash"),
        ("headline", 6, 10, "sale"),
    ]
    difference = wording.logit - wording.masked
    carried = sum(word.logit for word in wording.words)
    assert abs(carried - difference) <= max(1e-3 * abs(difference), 1e-6)
    assert engine.explain("s", "loud", context) == replace(explanation, wording=None)


def test_the_direction_of_a_text_is_its_weights(engines: Engines) -> None:
    engine = learnt(engines)
    view, schema = replica_of(engine).view, model_of(engine).schema
    direction = text_direction(view, schema, {"device": "mobile"})
    weights = np.asarray(view.state.weights)
    content, interaction = weights[17:81], weights[145:].reshape(16, 4)
    vector = context_vector({"device": "mobile"}, schema)
    np.testing.assert_allclose(direction[4:], content[4:], rtol=1e-12)
    np.testing.assert_allclose(direction[:4], content[:4] + vector @ interaction, rtol=1e-12)
    assert np.abs(vector @ interaction).max() > 0


def test_the_words_of_a_decision_are_read_in_its_context(engines: Engines) -> None:
    engine = learnt(engines)
    chosen = engine.select("s", {"device": "mobile"}, decision_id="d1").creative_id
    by_hand = engine.explain("s", chosen, {"device": "mobile"}, words=True)
    assert engine.explain(decision_id="d1", words=True).wording == by_hand.wording
    assert engine.explain("s", chosen, words=True).wording != by_hand.wording


def test_words_need_the_encoder_itself(engines: Engines, tmp_path: Path) -> None:
    learnt(engines, n=1).close()
    engine = engines.open(encoder=tmp_path / "gone")  # all vectors are in the database
    assert engine.explain("s", "calm").wording is None
    with pytest.raises(MissingEncoderError, match=r"gone is not a folder"):
        engine.explain("s", "calm", words=True)
    engine.close()
    other = engines.open(encoder=TextEncoder(TINY, dtype="bfloat16"))
    with pytest.raises(EncoderChangedError, match="open it with the same encoder"):
        other.explain("s", "calm", words=True)


def test_an_encoder_of_ones_own_gives_vectors_alone(engines: Engines) -> None:
    class Own:
        dim, fingerprint = 3, "own"

        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.tile(np.float32([1, 0, 0]), (len(texts), 1))

    engine = engines.open(encoder=Own())
    engine.add_campaign("s")
    engine.add_creatives("s", [Creative("calm", headline="free returns")])
    with pytest.raises(AttributionError, match="the encoder own, a Own, gives vectors"):
        engine.explain("s", "calm", words=True)


def test_every_step_reports_about_itself(engines_on_both: Engines) -> None:
    engine = learnt(engines_on_both)
    engine.refit()
    rows = store_of(engine).learning.model_log(1, limit=10)
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
    assert store_of(engine).learning.model_log(1, limit=1) == rows[:1]
