"""Corrections: what is taken back counts no more, is never learnt twice, and can be replayed."""

from datetime import timedelta

import pytest

from storage import ArmRow, InvalidValueError, NewOutcome, UnknownDecisionError, UnknownOutcomeError
from tests.storage.conftest import MINUTE, NOW, World
from tests.storage.sql import execute, fetch


def take_back(world: World, decision_id: str, kind: str = "click", key: str = "", value: float = 1.0) -> str:
    """Report that a report is invalid."""
    new = NewOutcome(decision_id=decision_id, kind=kind, value=value, key=key, valid=False)  # type: ignore[arg-type]
    return world.store.outcomes.record([new], received_at=NOW + MINUTE)[0].status


def arm(world: World) -> ArmRow:
    return world.store.learning.arm_rows(world.campaign_id, now=NOW)[0]


def learn(world: World, step: int, *decision_ids: str, lease: int | None = None) -> int:
    number = world.store.leases.acquire(world.model_id, "learner") if lease is None else lease
    assert number is not None
    world.store.learning.write_step(world.step(number, step, *decision_ids))
    return number


def test_a_learnt_click_counts_no_more_but_is_replayed_as_it_was(world: World, url: str) -> None:
    world.record("d1", "d2")
    for name in ("d1", "d2"):
        world.click(name)
    lease = learn(world, 1, "d1", "d2")
    assert (arm(world).impressions, arm(world).clicks) == (2, 2)
    assert take_back(world, "d1") == "recorded"
    assert (arm(world).impressions, arm(world).clicks) == (2, 1)
    assert world.settled("d1") == 0
    learning = world.store.learning
    assert learning.rows_of_batch(world.model_id, 1).clicks == (1, 1)
    assert learning.counts(world.model_id, up_to_step=9)[0].clicks == 2  # no step has taken note of it
    assert learning.has_corrections(world.model_id)
    learning.write_step(world.step(lease, 2, kind="correction"))
    assert not learning.has_corrections(world.model_id)
    assert learning.counts(world.model_id, up_to_step=1)[0].clicks == 2
    assert learning.counts(world.model_id, up_to_step=2)[0].clicks == 1
    assert learning.rows_of_batch(world.model_id, 1).clicks == (1, 1)
    assert world.store.check() == []
    assert fetch(url, "SELECT kind, key, valid, corrects FROM outcomes WHERE corrects IS NOT NULL") == [
        ("click", "corrects:", False, 1)
    ]
    assert fetch(url, "SELECT clicks FROM arm_report WHERE creative = 'calm'") == [(1,)]


def test_a_repeat_changes_nothing(world: World, url: str) -> None:
    world.record("d1")
    world.click("d1")
    learn(world, 1, "d1")
    assert [take_back(world, "d1"), take_back(world, "d1"), world.click("d1")] == [
        "recorded",
        "repeated",
        "repeated",
    ]
    assert (arm(world).clicks, world.settled("d1")) == (0, 0)
    assert fetch(url, "SELECT count(*) FROM outcomes") == [(2,)]
    assert world.store.check() == []


def test_what_settled_with_a_click_is_learnt_with_it(world: World) -> None:
    """The learner may have read it already; what it then writes must be what a replay finds."""
    world.record("d1")
    world.click("d1")
    before = world.store.learning.unlearnt(world.model_id)
    take_back(world, "d1")
    assert world.store.learning.unlearnt(world.model_id) == before
    assert not world.store.learning.has_corrections(world.model_id)  # nothing learnt has to be fitted anew
    learn(world, 1, "d1")
    assert world.store.learning.has_corrections(world.model_id)
    assert (arm(world).impressions, arm(world).clicks) == (1, 0)
    assert world.store.check() == []


def test_before_settling_it_is_no_click(waiting_world: World) -> None:
    world = waiting_world
    world.record("d1")
    world.click("d1")
    assert take_back(world, "d1") == "recorded"
    world.store.outcomes.settle_due(now=NOW + 30 * MINUTE)
    assert world.settled("d1") == 0
    learn(world, 1, "d1")
    assert not world.store.learning.has_corrections(world.model_id)
    assert world.store.check() == []


def test_another_valid_click_keeps_it(waiting_world: World) -> None:
    world = waiting_world
    world.record("d1")
    world.click("d1", key="first")
    world.click("d1", key="second")
    world.store.outcomes.settle_due(now=NOW + 30 * MINUTE)
    learn(world, 1, "d1")
    assert take_back(world, "d1", key="first") == "recorded"
    assert (world.settled("d1"), arm(world).clicks) == (1, 1)
    assert take_back(world, "d1", key="second") == "recorded"
    assert (world.settled("d1"), arm(world).clicks) == (0, 0)
    assert world.store.check() == []


def test_a_late_click_never_counted(waiting_world: World) -> None:
    world = waiting_world
    world.record("d1")
    world.store.outcomes.settle_due(now=NOW + 31 * MINUTE)
    assert world.click("d1", at=NOW + 32 * MINUTE) == "late"
    learn(world, 1, "d1")
    assert take_back(world, "d1") == "recorded"
    assert (world.settled("d1"), arm(world).clicks) == (0, 0)
    assert not world.store.learning.has_corrections(world.model_id)
    assert world.store.check() == []


def test_a_deferred_click_waits_for_another_report(world: World) -> None:
    world.record("d1", activated_at=None)
    world.click("d1")
    take_back(world, "d1")
    world.store.decisions.activate(["d1"], now=NOW)
    assert world.settled("d1") is None
    assert world.click("d1", 0.0) == "recorded"
    assert world.settled("d1") == 0


def test_conversions_by_their_key(world: World) -> None:
    world.record("d1")
    for key, value, days in (("a", 10.0, 0), ("b", 2.5, 0), ("c", 7.0, 30)):
        new = NewOutcome(decision_id="d1", kind="conversion", key=key, value=value)
        world.store.outcomes.record([new], received_at=NOW + timedelta(days=days))
    assert (arm(world).conversions, arm(world).value) == (2, 12.5)
    # What it was worth is known already.
    assert take_back(world, "d1", "conversion", "b", value=99.0) == "recorded"
    assert (arm(world).conversions, arm(world).value) == (1, 10.0)
    assert take_back(world, "d1", "conversion", "c") == "recorded"  # late: it never counted
    assert take_back(world, "d1", "conversion", "b") == "repeated"
    assert (arm(world).conversions, arm(world).value) == (1, 10.0)
    assert world.store.check() == []


def test_a_list_takes_back_what_it_reports(world: World) -> None:
    world.record("d1", "d2")
    news = [
        NewOutcome(decision_id="d1", kind="click", value=1),
        NewOutcome(decision_id="d1", kind="click", value=1, valid=False),
        NewOutcome(decision_id="d2", kind="click", value=1),
        NewOutcome(decision_id="d1", kind="click", value=1, valid=False),
    ]
    answers = world.store.outcomes.record(news, received_at=NOW)
    assert [answer.status for answer in answers] == ["recorded", "recorded", "recorded", "repeated"]
    assert (world.settled("d1"), world.settled("d2")) == (0, 1)
    assert world.store.check() == []


def test_what_was_never_reported(world: World, url: str) -> None:
    world.record("d1", "d2")
    world.click("d1")
    world.click("d2", 0.0)
    before = fetch(url, "SELECT * FROM outcomes ORDER BY 1")
    news = [
        NewOutcome(decision_id="d1", kind="click", value=1, valid=False),
        NewOutcome(decision_id="d2", kind="click", value=1, valid=False),
        NewOutcome(decision_id="d1", kind="conversion", value=1, key="order 7", valid=False),
    ]
    message = "the click of decision 'd2', the conversion 'order 7' of decision 'd1' was never reported"
    with pytest.raises(UnknownOutcomeError, match=message):
        world.store.outcomes.record(news, received_at=NOW)
    with pytest.raises(UnknownDecisionError, match="'nobody'"):
        take_back(world, "nobody")
    with pytest.raises(InvalidValueError, match="of decision 'd2': only a click can be invalid"):
        take_back(world, "d2", value=0.0)
    with pytest.raises(InvalidValueError, match=r"begin with 'corrects:' are ours, got 'corrects:a'"):
        take_back(world, "d2", "conversion", key="corrects:a")
    assert fetch(url, "SELECT * FROM outcomes ORDER BY 1") == before
    assert world.settled("d1") == 1


def test_check_knows_corrections(world: World, url: str) -> None:
    world.record("d1", "d2")
    world.click("d1")
    world.click("d2")
    learn(world, 1, "d1", "d2")
    take_back(world, "d1")
    assert world.store.check() == []
    execute(url, "UPDATE outcomes SET valid = true WHERE decision_id = 'd1' AND corrects IS NULL")
    execute(url, "UPDATE outcomes SET valid = false WHERE decision_id = 'd2'")
    found = {(finding.check, finding.subject) for finding in world.store.check()}
    assert ("corrections", "outcome 3") in found  # corrects one that is valid
    assert ("corrections", "outcome 2") in found  # invalid without a correction
    assert ("settled clicks", "decision d2") in found
