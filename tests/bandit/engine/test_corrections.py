"""Clicks found invalid after they were learnt: counts at once, the posterior at the refit, and replays."""

import numpy as np
import pytest

from bandit import Engine, Outcome
from bandit.errors import InvalidOutcomeError
from storage import UnknownOutcomeError
from tests.bandit.engines import Engines, add_campaign, assert_same, play, posterior
from tests.bandit.inspect import store_of

TAKEN_BACK = [f"spring-{i}" for i in range(0, 60, 6)]  # each was a click


def take_back(engine: Engine, *decision_ids: str) -> list[str]:
    reports = [Outcome(decision_id=name, click=True, valid=False) for name in decision_ids]
    return [record.status for record in engine.update_many(reports)]


def replayed(engines: Engines) -> dict[str, np.ndarray]:
    """Return the posterior after a replay of the whole log."""
    engines.forget_states()
    with engines.open(role="select") as engine:
        return posterior(engine)


@pytest.mark.slow
def test_counts_change_at_once_and_the_posterior_at_the_refit(engines_on_both: Engines) -> None:
    engines = engines_on_both
    engine = engines.open()
    add_campaign(engine)
    play(engine, 60, learn_every=20)
    clicks = {arm.creative_id: arm.clicks for arm in engine.arms("spring")}
    before = posterior(engine)
    assert take_back(engine, *TAKEN_BACK) == ["recorded"] * len(TAKEN_BACK)
    report = "SELECT creative, clicks FROM arm_report"
    after = dict(engines.fetch(report))
    assert sum(clicks.values()) - sum(after.values()) == len(TAKEN_BACK)
    assert {arm.creative_id: arm.clicks for arm in engine.arms("spring")} == after
    assert_same(posterior(engine), before)
    # What was learnt stays in the log: a replay does not see the correction before the refit.
    assert_same(replayed(engines), before)
    assert engine.settle().learnt == 0
    assert [kind for kind, *_ in engines.fetch("SELECT kind FROM learn_log ORDER BY step")][-2:] == [
        "correction",
        "refit",
    ]
    refitted = posterior(engine)
    assert refitted["step"] == before["step"] + 2
    assert np.max(np.abs(refitted["weights"] - before["weights"])) > 0.01
    assert_same(replayed(engines), refitted)
    assert store_of(engine).check() == []
    engine.close()


def test_the_refit_is_that_of_a_log_without_the_clicks(engines: Engines, tmp_path: object) -> None:
    """An independent oracle: the same traffic, whose reports said no click from the first."""
    fitted = []
    for name in ("corrected", "honest"):
        url = f"sqlite:///{tmp_path}/{name}.db"
        others = Engines(url, engines.encoder, engines.clock)
        engine = others.open(seed=3)
        add_campaign(engine)
        for i in range(60):
            device = ("mobile", "desktop")[i % 2]
            engine.select("spring", {"device": device}, decision_id=f"d{i}")
        clicked = [f"d{i}" for i in range(0, 60, 3)]
        if name == "honest":
            clicked = clicked[len(clicked) // 2 :]
        engine.update_many([Outcome(decision_id=f"d{i}", click=f"d{i}" in clicked) for i in range(60)])
        if name == "corrected":
            take_back(engine, *clicked[: len(clicked) // 2])  # settled, and not learnt yet
        engine.settle()
        engine.refit()
        fitted.append({**posterior(engine), "step": np.array(0)})
        others.close()
    assert_same(*fitted, tolerance=1e-6)


def test_corrections_between_refits(engines_on_both: Engines) -> None:
    """A refit is replayed with what it knew: corrections noted before it, and none after."""
    engines = engines_on_both
    engine = engines.open()
    add_campaign(engine)
    play(engine, 30)
    take_back(engine, *TAKEN_BACK[:2])
    engine.refit()
    first = posterior(engine)
    play(engine, 30, start=30)
    take_back(engine, *TAKEN_BACK[2:])  # one of them was learnt before the refit
    before = posterior(engine)
    assert_same(replayed(engines), before)
    assert first["step"] < before["step"]
    engine.refit()
    last = posterior(engine)
    assert_same(replayed(engines), last)
    assert store_of(engine).check() == []
    engine.close()


def test_a_killed_learner_takes_note_later(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    play(engine, 30)
    take_back(engine, "spring-0")
    engine.close()
    again = engines.open()
    again.settle()
    assert engines.fetch("SELECT count(*) FROM learn_log WHERE kind = 'correction'") == [(1,)]
    assert engines.fetch("SELECT corrected_step IS NULL FROM decisions WHERE decision_id = 'spring-0'") == [
        (0,)
    ]


def test_conversions_are_taken_back_by_their_key(engines_on_both: Engines) -> None:
    engine = engines_on_both.open()
    add_campaign(engine, "calm")
    play(engine, 3)
    for key, value in (("order-1", 20.0), ("order-2", 5.0)):
        engine.update("spring-0", conversion=True, value=value, key=key)
    assert engine.update("spring-0", conversion=True, key="order-1", valid=False).status == "recorded"
    (arm,) = engine.arms("spring")
    assert (arm.conversions, arm.value) == (1, 5.0)
    shown = engines_on_both.fetch(
        "SELECT conversions, value FROM decision_log WHERE decision_id = 'spring-0'"
    )
    assert [(int(n), float(v)) for n, v in shown] == [(1, 5.0)]
    engine.close()


def test_what_cannot_be_taken_back(engine_with_click: tuple[Engines, Engine]) -> None:
    engines, engine = engine_with_click
    before = engines.row_counts()
    for report, kind, message in (
        ({"click": False}, InvalidOutcomeError, "'spring-0': valid=False takes back a click or a conversion"),
        ({"click": True, "final": True}, InvalidOutcomeError, "give click=True .* and not final"),
        ({"conversion": True, "key": "order 9"}, UnknownOutcomeError, "the conversion 'order 9' of decision"),
        ({}, InvalidOutcomeError, "'spring-0': the report says nothing"),
    ):
        with pytest.raises(kind, match=message):
            engine.update("spring-0", valid=False, **report)  # type: ignore[arg-type]
    with pytest.raises(UnknownOutcomeError, match="the click of decision 'spring-1' was never reported"):
        engine.update("spring-1", click=True, valid=False)
    with pytest.raises(InvalidOutcomeError, match="expected valid to be True or False, got 0"):
        engine.update("spring-0", click=True, valid=0)  # type: ignore[arg-type]
    assert engines.row_counts() == before


@pytest.fixture
def engine_with_click(engines: Engines) -> tuple[Engines, Engine]:
    engine = engines.open()
    add_campaign(engine)
    play(engine, 2)
    return engines, engine
