"""The comparison of snapshot and log is right, and sees what it is there to see."""

from bandit.learning.verify import replay
from tests.bandit.engines import Engines, add_campaign, play
from tests.bandit.inspect import learner_of, store_of


def test_a_sound_database_is_its_log(engines_on_both: Engines) -> None:
    engine = engines_on_both.open()
    add_campaign(engine)
    play(engine, 60, learn_every=7)
    learner_of(engine).save()
    found = replay(store_of(engine), engines_on_both.clock)
    assert found.step == found.replayed_step == 9
    assert found.largest_difference < 1e-9


def test_an_outcome_changed_after_it_was_learnt_is_seen(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    play(engine, 60, learn_every=7)
    learner_of(engine).save()
    engines.execute("UPDATE decisions SET click = 1 - click WHERE decision_id = 'spring-3'")
    assert replay(store_of(engine), engines.clock).largest_difference > 1e-3


def test_a_damaged_arm_is_seen(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    play(engine, 60, learn_every=7)
    learner_of(engine).save()
    engines.execute("UPDATE arm_states SET k = k + 0.01 WHERE creative_id = 1")
    assert replay(store_of(engine), engines.clock).largest_difference > 1e-5
