"""Decisions: one answer for each id."""

import threading
from collections.abc import Callable
from datetime import UTC, timedelta, timezone

import pytest

import storage
from storage import Store
from tests.storage.conftest import MINUTE, NOW, World
from tests.storage.sql import fetch


def test_a_decision_comes_back_as_it_was_given(world: World) -> None:
    given = world.decision("d1", request_id="r1", place=2, list_propensity=0.1, is_control=True)
    answer = world.store.decisions.record([given])[0]
    stored = world.store.decisions.get(["d1"])["d1"]
    assert stored == answer
    for name in given.__dataclass_fields__:
        assert getattr(stored, name) == getattr(given, name), name
    assert (stored.click, stored.settled_at, stored.learnt_batch, stored.settles_at) == (
        None,
        None,
        None,
        None,
    )


def test_the_same_id_returns_the_first_decision(world: World) -> None:
    first = world.store.decisions.record([world.decision("d1")])[0]
    again = world.decision("d1", creative_id=world.creative_ids[1], propensity=0.3, model_version=9)
    new = world.decision("d0")
    assert world.store.decisions.record([again, new]) == [first, world.store.decisions.get(["d0"])["d0"]]


def test_a_single_id_again_returns_the_first_decision(world: World) -> None:
    first = world.store.decisions.record([world.decision("d1")])
    again = world.decision("d1", creative_id=world.creative_ids[1], propensity=0.3, model_version=9)
    assert world.store.decisions.record([again]) == first


def test_nothing_to_record(world: World) -> None:
    assert world.store.decisions.record([]) == []
    assert world.store.outcomes.record([], received_at=NOW) == []


def test_the_same_id_twice_in_a_list_shares_the_first_answer(world: World) -> None:
    twin = world.decision("d1", creative_id=world.creative_ids[1], propensity=0.3)
    answers = world.store.decisions.record([world.decision("d1"), twin, world.decision("d0")])
    assert [answer.decision_id for answer in answers] == ["d1", "d1", "d0"]
    assert answers[0] == answers[1]
    assert answers[1].creative_id == world.creative_ids[0]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"context": {"device": "desktop"}}, "desktop"),
        ({"context": {"device": "mobile", "age": 33.5, "is_new": 1}}, '"is_new":1'),
        ({"candidate_creative_ids": (1, 2), "propensities": (0.5, 0.5)}, "candidates [1, 2]"),
        ({"campaign_id": 2}, "campaign_id 2"),
    ],
)
@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "in one list"])
def test_an_id_of_another_request_is_a_conflict(
    world: World, changes: dict[str, object], named: str, is_stored: bool
) -> None:
    world.store.campaigns.add(world.model_id, "other", created_at=NOW)
    assert (world.campaign_id, world.creative_ids) == (1, (1, 2, 3))
    first, second = world.decision("d1"), world.decision("d1", **changes)
    if is_stored:
        world.store.decisions.record([first])
    with pytest.raises(storage.DecisionConflictError, match="'d1'") as caught:
        world.store.decisions.record([world.decision("d0"), second] if is_stored else [first, second])
    assert named in str(caught.value)
    assert "d0" not in world.store.decisions.get(["d0"])


@pytest.mark.parametrize("bad", ["", "x" * 65, "naïve", "line\nbreak", "nul\0", 7])
def test_an_id_that_is_not_printable_ascii_is_refused(sqlite_world: World, bad: str) -> None:
    with pytest.raises(storage.InvalidIdError) as caught:
        sqlite_world.store.decisions.record([sqlite_world.decision("good"), sqlite_world.decision(bad)])
    assert repr(bad) in str(caught.value)
    assert sqlite_world.store.decisions.get(["good"]) == {}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"propensity": 0.0}, "propensity must be above 0 and at most 1, got 0.0"),
        ({"propensity": float("nan")}, "got nan"),
        ({"propensities": (0.5, 0.5)}, "expected 3 propensities, one for each candidate, got 2"),
        ({"propensities": (0.5, 0.3, -0.2)}, "-0.2"),
        ({"creative_id": 10**9}, "creative 1000000000 is none of its candidates"),
        ({"horizon": float("inf")}, "horizon must be finite, got inf"),
        ({"context": {"device": "a\0b"}}, "holds a NUL"),
        ({"context": {"age": float("nan")}}, "finite numbers"),
        ({"request_id": "\0"}, "request_id holds a NUL"),
    ],
)
def test_a_value_that_cannot_be_right_is_refused(
    sqlite_world: World, changes: dict[str, object], named: str
) -> None:
    with pytest.raises(storage.InvalidValueError, match="decision 'd1'") as caught:
        sqlite_world.store.decisions.record([sqlite_world.decision("d1", **changes)])
    assert named in str(caught.value)


def test_a_naive_time_is_refused(world: World) -> None:
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(storage.NaiveTimeError, match=r"datetime\.datetime\(2026, 3, 1, 12, 0\)"):
        world.store.decisions.record([world.decision("d1", decided_at=naive)])


def test_an_unknown_campaign_is_named(world: World) -> None:
    with pytest.raises(storage.UnknownCampaignError, match="campaign_id 4711"):
        world.store.decisions.record([world.decision("d1", campaign_id=4711)])


def test_whole_numbers_stand_beside_fractions(world: World) -> None:
    sure: dict[str, object] = {"propensities": (1, 0, 0), "propensity": 1, "horizon": 5, "kappa": 0}
    given = [
        world.decision("d0"),
        world.decision("d1", **sure),
        world.decision("d2", horizon=None),
        world.decision("d3", **sure),
    ]
    answers = world.store.decisions.record(given)
    assert {answer.decision_id: answer for answer in answers} == world.store.decisions.get(
        [new.decision_id for new in given]
    )
    assert world.store.decisions.get(["d1"])["d1"].propensity == 1.0


def test_times_of_other_zones_are_the_same_moments(world: World) -> None:
    zone = timezone(timedelta(hours=-7))
    given = [world.decision("d0"), world.decision("d1", decided_at=NOW.astimezone(zone))]
    world.store.decisions.record([*given, world.decision("d2", decided_at=NOW.astimezone(zone) + MINUTE)])
    stored = world.store.decisions.get(["d0", "d1", "d2"])
    assert [stored[name].decided_at for name in ("d0", "d1", "d2")] == [NOW, NOW, NOW + MINUTE]
    assert {record.decided_at.tzinfo for record in stored.values()} == {UTC}


def test_a_text_that_only_looks_like_a_nul_is_stored(world: World) -> None:
    context = {"path": "C:\\u0000", "quote": 'say "\\\\u0000"'}
    world.record("d1", context=context)
    assert world.store.decisions.get(["d1"])["d1"].context == context


def test_more_decisions_than_a_statement_has_parameters(world: World) -> None:
    names = [f"d{number:05d}" for number in range(70_000)]
    known = [names[0], names[35_000], names[-1]]
    world.record(*known)
    assert sorted(world.store.decisions.get(names)) == known


def test_candidate_lists_are_stored_once(world: World, url: str) -> None:
    world.record("d1", "d2")
    world.record("d3", candidate_creative_ids=world.creative_ids[::-1], propensities=(0.2, 0.3, 0.5))
    assert fetch(url, "SELECT count(*) FROM candidate_sets") == [(2,)]


def test_many_threads_get_the_same_first_decision(world: World) -> None:
    n_threads, names = 8, [f"d{number}" for number in range(40)]
    answers: list[list[int]] = [[] for _ in range(n_threads)]
    barrier = threading.Barrier(n_threads)

    def select(thread: int) -> None:
        creative_id = world.creative_ids[thread % 3]
        # Each in an order of its own, so that locks would be taken crosswise if order mattered.
        order = names[thread:] + names[:thread]
        barrier.wait()
        stored = world.store.decisions.record(
            [world.decision(name, creative_id=creative_id) for name in order]
        )
        by_id = {decision.decision_id: decision.creative_id for decision in stored}
        answers[thread] = [by_id[name] for name in names]

    _run_threads(select, n_threads)
    assert all(answer == answers[0] for answer in answers)
    assert len(answers[0]) == len(names)


def test_two_stores_share_one_database(world: World, url: str) -> None:
    world.record("d1")
    with Store.open(url) as other:
        assert other.decisions.get(["d1"]) == world.store.decisions.get(["d1"])
        other.decisions.record([world.decision("d2")])
    assert set(world.store.decisions.get(["d1", "d2", "d3"])) == {"d1", "d2"}


class TestActivation:
    """A deferred decision's window begins when it is shown."""

    def test_the_window_begins_at_activation(self, waiting_world: World) -> None:
        waiting_world.record("d1", activated_at=None)
        assert waiting_world.store.outcomes.settle_due(now=NOW + 60 * MINUTE) == 0
        assert waiting_world.store.decisions.activate(["d1", "d1"], now=NOW + 60 * MINUTE) == 1
        assert waiting_world.store.decisions.activate(["d1"], now=NOW + 80 * MINUTE) == 0
        stored = waiting_world.store.decisions.get(["d1"])["d1"]
        assert (stored.activated_at, stored.settles_at) == (NOW + 60 * MINUTE, NOW + 90 * MINUTE)

    def test_a_report_before_activation_settles_at_activation(self, world: World) -> None:
        world.record("clicked", "silent", activated_at=None)
        assert world.click("clicked") == "recorded"
        assert world.settled("clicked") is None
        world.store.decisions.activate(["clicked", "silent"], now=NOW + MINUTE)
        assert (world.settled("clicked"), world.settled("silent")) == (1, None)
        assert world.click("silent", 0.0) == "recorded"
        assert world.settled("silent") == 0

    def test_unknown_ids_are_all_named(self, world: World) -> None:
        world.record("d1", activated_at=None)
        with pytest.raises(storage.UnknownDecisionError, match="'x1', 'x2'"):
            world.store.decisions.activate(["x1", "d1", "x2"], now=NOW)
        assert world.store.decisions.get(["d1"])["d1"].activated_at is None


def _run_threads(work: Callable[[int], None], count: int) -> None:
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
