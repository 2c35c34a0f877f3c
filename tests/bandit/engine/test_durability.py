"""Durabilities, and select from many threads."""

from tests.bandit.engines import Engines, add_campaign
from tests.storage.database.test_group_commit import at_once


def test_relaxed_loses_nothing_when_it_is_closed(engines_on_both: Engines) -> None:
    engine = engines_on_both.open(durability="relaxed")
    add_campaign(engine)
    ids = [engine.select("spring", {"device": "mobile"}).id for _ in range(50)]
    given = engine.select("spring", decision_id="given")
    assert engines_on_both.fetch("SELECT decision_id FROM decisions WHERE decision_id = 'given'") == [
        (given.id,)
    ]
    engine.close()
    stored = {name for (name,) in engines_on_both.fetch("SELECT decision_id FROM decisions")}
    assert stored == {*ids, "given"}


def test_relaxed_a_report_waits_for_its_decision(engines_on_both: Engines) -> None:
    engine = engines_on_both.open(durability="relaxed")
    add_campaign(engine)
    for _ in range(30):
        decision = engine.select("spring", {"device": "mobile"})
        assert engine.update(decision.id, click=True).status == "recorded"
        shown = engine.select("spring", defer_activation=True)
        engine.activate(shown.id)
        assert engine.explain(decision_id=shown.id).creative_id == shown.creative_id
    assert engine.settle().learnt == 30


def test_threads_choose_as_one_would(engines: Engines) -> None:
    """What is chosen depends on the id alone, not on who asks at the same time."""
    engine = engines.open()
    add_campaign(engine)

    def choose(who: int) -> list[tuple[str, float]]:
        some = []
        for i in range(20):
            decision = engine.select("spring", {"device": ("m", "d")[i % 2]}, decision_id=f"{who}-{i}")
            some.append((decision.creative_id, decision.propensity))
        return some

    together = at_once([lambda who=who: choose(who) for who in range(8)])  # type: ignore[misc]
    engines.execute("DELETE FROM decisions")
    assert together == [choose(who) for who in range(8)]
