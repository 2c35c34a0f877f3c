"""A database turns to another encoder while engines use it."""

import logging
import math
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bandit import Engine, Outcome
from bandit.errors import EncoderChangedError, LearnerElsewhereError
from bandit.features.design import PriorScales
from bandit.learning.schedule import scales_of
from bandit.learning.verify import replay
from encoders import TextEncoder
from storage import EncoderSwappedError
from tests.bandit.engines import Engines, add_campaign, assert_same, creatives, play, posterior
from tests.bandit.inspect import clock_of, components_of, lock_of, model_of, replica_of, selector_of, store_of
from tests.paths import TINY

COUNTS = "SELECT creative_id, impressions, clicks FROM arm_statistics ORDER BY creative_id"


@pytest.fixture(scope="module")
def other() -> TextEncoder:
    """A real BERT too, whose vectors are others."""
    return TextEncoder(TINY, dtype="float32", pooling="levels")


def follow(engine: Engine) -> None:
    with lock_of(engine):
        selector_of(engine).catch_up()


def sound(engine: Engine, encoder: TextEncoder) -> None:
    """Nothing disagrees in the database, and the log gives the posterior of its newest snapshot."""
    assert store_of(engine).check() == []
    found = replay(store_of(engine), clock_of(engine), encoder=encoder)
    assert found.step == found.replayed_step
    assert found.largest_difference < 1e-9


def test_no_count_is_lost(engines_on_both: Engines, tiny_encoder: TextEncoder, other: TextEncoder) -> None:
    engines = engines_on_both
    engine = engines.open()
    engine.set_forgetting(30.0)
    add_campaign(engine)
    add_campaign(engine, "x", "y", name="unseen")
    play(engine, 40, learn_every=10)
    engines.clock.pass_(timedelta(days=1))
    play(engine, 20, start=40)
    waiting = engine.select("spring", decision_id="waiting").id
    counts, decisions = engines.fetch(COUNTS), engines.fetch("SELECT * FROM decisions ORDER BY decision_id")
    precision = posterior(engine)["arm_precision"]
    means = engines.fetch("SELECT campaign_id, mean_content FROM campaigns ORDER BY campaign_id")

    swapped = engine.swap_encoder(other)

    assert (swapped.before, swapped.after) == (tiny_encoder.fingerprint, other.fingerprint)
    assert (swapped.components, swapped.campaigns, swapped.creatives) == ("random", 2, 5)
    assert engines.fetch(COUNTS) == counts
    assert engines.fetch("SELECT * FROM decisions ORDER BY decision_id") == decisions
    after = engines.fetch("SELECT campaign_id, mean_content FROM campaigns ORDER BY campaign_id")
    assert all(new is not None and new != old for (_, old), (_, new) in zip(means, after, strict=True))
    assert engines.fetch("SELECT encoder_fingerprint FROM models") == [(other.fingerprint,)]
    # The arms know as much as before: information hardly depends on what features say.
    assert_allclose(posterior(engine)["arm_precision"], precision, rtol=0.1)
    ((kind, step, newest),) = engines.fetch(
        "SELECT kind, step, (SELECT min(step) FROM posteriors) FROM learn_log ORDER BY step DESC LIMIT 1"
    )
    assert (kind, newest) == ("refit", step)  # and no snapshot of the features before is left

    decision = engine.select("spring", {"device": "mobile"})
    assert math.isclose(sum(decision.propensities.values()), 1.0)
    assert decision.model_version == step
    engine.add_creatives("spring", creatives("new"))
    engine.update_many([Outcome(decision_id=one, click=True) for one in (waiting, decision.id)])
    assert engine.settle().learnt == 2
    sound(engine, other)
    before = posterior(engine)
    engine.close()
    again = engines.open(encoder=other)
    assert_same(posterior(again), before)
    sound(again, other)


def test_it_is_as_if_the_database_had_begun_with_the_encoder(engines: Engines, other: TextEncoder) -> None:
    engine = engines.open()
    add_campaign(engine)
    play(engine, 30)
    engine.swap_encoder(other)
    catalog = model_of(engine).catalog
    vectors = other.encode([f"{word} {name}" for word, name in (("free", "calm"), ("returns", "urgent"))])
    arms = [catalog.arm[creative.creative_id] for creative in catalog.campaigns["spring"].creatives[:2]]
    components = components_of(engine)
    assert_allclose(catalog.content[arms], components.project(vectors), atol=1e-6)
    swapped = posterior(engine)
    engine.refit()
    fitted = posterior(engine)
    assert_same({**fitted, "step": swapped["step"]}, swapped, tolerance=1e-6)


@pytest.mark.parametrize("role", ["both", "select"])
def test_another_process_follows_and_refuses_new_texts(
    engines_on_both: Engines, other: TextEncoder, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The one that swaps is not the learner: it takes the lease."""
    engines = engines_on_both
    running = engines.open(role=role)
    add_campaign(running)
    play(running, 20)
    assert running.is_learner == (role == "both")
    running.select("spring", decision_id="before")
    running.update("before", click=True)

    with engines.open(encoder=other) as operator:
        operator.swap_encoder(other)
        expected = posterior(operator)
        assert running.settle().learnt == 0  # the lease is another one's
        with caplog.at_level(logging.WARNING, "bandit.model.content"):
            follow(running)
    assert f"swapped the encoder of {store_of(running).display_url} for {other.fingerprint}" in caplog.text
    assert_same(posterior(running), expected)
    assert_array_equal(model_of(running).catalog.content, model_of(operator).catalog.content)
    assert_array_equal(model_of(running).catalog.mean_content, model_of(operator).catalog.mean_content)

    assert running.select("spring").model_version == int(expected["step"])
    before = engines.row_counts()
    with pytest.raises(EncoderChangedError, match=f"made by the encoder {other.fingerprint}, this one is"):
        running.add_creatives("spring", creatives("new"))
    assert engines.row_counts() == before
    with engines.open(encoder=other, role="select") as third:
        third.add_creatives("spring", creatives("new"))
    follow(running)
    running.select("spring", eligible=["new"], decision_id="after")
    running.update("after", click=False)
    if role == "both":
        assert running.settle().learnt == 2
    sound(running, other)


def test_texts_that_were_encoded_before_the_swap_are_not_added_after_it(
    engines_on_both: Engines, other: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = engines_on_both
    running = engines.open(role="select")
    add_campaign(running)
    prepare = model_of(running).prepare_texts

    def swapped_meanwhile(texts: Any) -> str:
        fingerprint = prepare(texts)
        with engines.open() as operator:
            operator.swap_encoder(other)
        return fingerprint

    monkeypatch.setattr(model_of(running), "prepare_texts", swapped_meanwhile)
    with pytest.raises(EncoderSwappedError, match=f"swapped for {other.fingerprint}; nothing was added"):
        running.add_creatives("spring", creatives("new"))
    assert engines.fetch("SELECT count(*) FROM creatives") == [(3,)]


def test_creatives_that_are_added_while_it_computes_are_not_left_out(
    engines_on_both: Engines, other: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = engines_on_both
    running = engines.open(role="select")
    add_campaign(running)
    operator = engines.open()
    compute = model_of(operator).features_by
    added: Iterator[Sequence[Any]] = iter([creatives("late")])

    def computed_meanwhile(encoder: Any) -> Any:
        features = compute(encoder)
        for late in added:
            running.add_creatives("spring", late)
        return features

    monkeypatch.setattr(model_of(operator), "features_by", computed_meanwhile)
    assert operator.swap_encoder(other).creatives == 4
    catalog = model_of(operator).catalog
    assert_allclose(catalog.mean_content[0], catalog.content.mean(axis=0), atol=1e-6)
    sound(operator, other)


def test_a_swap_that_was_stored_and_not_followed(
    engines: Engines, other: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is in the log: what comes after must build on it, whatever went wrong here."""
    engine = engines.open()
    add_campaign(engine)
    play(engine, 20)

    def broken(_: object) -> None:
        raise RuntimeError("the connection broke")

    with monkeypatch.context() as failing:
        failing.setattr(model_of(engine), "adopt", broken)
        with pytest.raises(RuntimeError, match="broke"):
            engine.swap_encoder(other)
    view = replica_of(engine).view
    assert view.step == replica_of(engine).step == model_of(engine).features_step
    play(engine, 20, start=20)
    learnt = posterior(engine)
    engine.close()
    engines.forget_states()
    assert_same(posterior(engines.open(encoder=other)), learnt)


def test_a_swap_keeps_no_scale_of_the_contents_before(engines: Engines, other: TextEncoder) -> None:
    engine = engines.open()
    add_campaign(engine)
    play(engine, 40)
    engine.refit()
    learnt = scales_of(replica_of(engine).view.state.prior)
    engine.set_scale_learning(False)
    engine.swap_encoder(other)
    kept, first = scales_of(replica_of(engine).view.state.prior), PriorScales()._asdict()
    assert {name for name in kept if kept[name] == learnt[name] != first[name]} >= {"campaign", "arm"}
    assert all(kept[name] == first[name] for name in ("content", "campaign_mean", "interaction"))


def test_a_follower_that_reads_between_two_swaps(
    engines: Engines, tiny_encoder: TextEncoder, other: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snapshot and features are read one after the other; another swap in between must not mix them."""
    first = engines.open()
    add_campaign(first)
    play(first, 10)
    follower = engines.open(role="select")
    first.swap_encoder(other)
    reread = model_of(follower).reread_features

    def swapped_again() -> None:
        monkeypatch.undo()
        first.swap_encoder(tiny_encoder)
        reread()

    monkeypatch.setattr(model_of(follower), "reread_features", swapped_again)
    with lock_of(follower):
        replica_of(follower).catch_up()
    assert_same(posterior(follower), posterior(first))
    assert_array_equal(model_of(follower).catalog.content, model_of(first).catalog.content)


def test_a_request_after_a_swap_that_was_not_followed_yet(
    engines: Engines, other: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A campaign of after the swap is asked for: features and posterior come together."""
    monkeypatch.setattr("bandit.serving.selector.FOLLOW_EVERY_S", 1e9)
    running = engines.open(role="select")
    add_campaign(running)
    operator = engines.open()
    operator.swap_encoder(other)
    add_campaign(operator, "a", "b", name="later")
    assert set(running.select("later").propensities) == {"a", "b"}
    assert_array_equal(model_of(running).catalog.content, model_of(operator).catalog.content)
    assert replica_of(running).view.step == replica_of(operator).view.step == 1


def test_swapping_there_and_back_gives_the_same_posterior(
    engines: Engines, tiny_encoder: TextEncoder, other: TextEncoder
) -> None:
    engine = engines.open()
    add_campaign(engine)
    play(engine, 30)
    engine.refit()
    before = posterior(engine)
    engine.swap_encoder(other)
    assert np.abs(posterior(engine)["weights"] - before["weights"]).max() > 1e-3
    engine.swap_encoder(tiny_encoder)
    assert_same({**posterior(engine), "step": before["step"]}, before)
    embeddings = engines.fetch("SELECT count(*) FROM embeddings")
    assert embeddings == [(6,)]  # none was encoded twice


def test_a_database_without_creatives(engines: Engines, other: TextEncoder) -> None:
    engine = engines.open()
    swapped = engine.swap_encoder(other)
    assert (swapped.before, swapped.creatives) == (None, 0)
    add_campaign(engine)
    assert engine.select("spring").model_version == 1
    sound(engine, other)


def test_who_only_selects_cannot_swap(engines: Engines, other: TextEncoder) -> None:
    engine = engines.open(role="select")
    with pytest.raises(LearnerElsewhereError, match="role='select'; open it with"):
        engine.swap_encoder(other)
