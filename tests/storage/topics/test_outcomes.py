"""Outcomes: when a click counts, when it is late, and that none is lost or counted twice."""

import threading
from datetime import timedelta

import pytest

import storage
from storage import NewOutcome
from tests.storage.conftest import MINUTE, NOW, World
from tests.storage.sql import fetch


class TestWindowZero:
    """Every outcome is reported, and settles at once."""

    @pytest.mark.parametrize("value", [0, 1, False, True])
    def test_a_report_settles_at_once(self, world: World, value: float) -> None:
        world.record("d1")
        new = NewOutcome(decision_id="d1", kind="click", value=value)
        answer = world.store.outcomes.record([new], received_at=NOW + MINUTE)[0]
        assert (answer.status, answer.has_settled) == ("recorded", True)
        stored = world.store.decisions.get(["d1"])["d1"]
        assert (stored.click, stored.settled_at) == (int(value), NOW + MINUTE)

    def test_a_repeat_changes_nothing(self, world: World, url: str) -> None:
        world.record("d1")
        assert [world.click("d1"), world.click("d1", at=NOW + MINUTE)] == ["recorded", "repeated"]
        assert fetch(url, "SELECT count(*), sum(CAST(late AS integer)) FROM outcomes") == [(1, 0)]
        assert world.store.decisions.get(["d1"])["d1"].settled_at == NOW

    def test_a_click_after_a_non_click_is_kept_as_late(self, world: World, url: str) -> None:
        world.record("d1")
        assert [world.click("d1", 0.0), world.click("d1", 1.0)] == ["recorded", "late"]
        assert world.settled("d1") == 0
        assert fetch(url, "SELECT value, settled_click FROM late_outcomes") == [(1.0, 0)]

    def test_one_list_equals_one_by_one(self, world: World) -> None:
        world.record("d1", "d2")
        values = [("d1", 0.0), ("d2", 1.0), ("d1", 1.0), ("d2", 1.0), ("d2", 0.0)]
        news = [NewOutcome(decision_id=name, kind="click", value=value) for name, value in values]
        answers = world.store.outcomes.record(news, received_at=NOW)
        assert [answer.status for answer in answers] == ["recorded", "recorded", "late", "repeated", "late"]
        assert [answer.has_settled for answer in answers] == [True, True, False, False, False]
        assert (world.settled("d1"), world.settled("d2")) == (0, 1)

    def test_silence_never_settles(self, world: World) -> None:
        world.record("d1")
        assert world.store.outcomes.settle_due(now=NOW + timedelta(days=365)) == 0


class TestWindow:
    """With a window, reported or silent, all are settled when it ends."""

    def test_all_wait_for_the_end(self, waiting_world: World) -> None:
        world = waiting_world
        world.record("clicked", "refused", "silent")
        assert [world.click("clicked"), world.click("refused", 0.0)] == ["recorded", "recorded"]
        assert world.store.outcomes.settle_due(now=NOW + 30 * MINUTE - timedelta(microseconds=1)) == 0
        assert world.store.outcomes.settle_due(now=NOW + 30 * MINUTE) == 3
        assert [world.settled(name) for name in ("clicked", "refused", "silent")] == [1, 0, 0]
        assert world.store.outcomes.settle_due(now=NOW + 60 * MINUTE) == 0

    @pytest.mark.parametrize("values", [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0, 0.0)])
    def test_a_click_is_not_lost_beside_a_non_click(
        self, waiting_world: World, values: tuple[float, ...]
    ) -> None:
        waiting_world.record("d1")
        for value in values:
            waiting_world.click("d1", value)
        waiting_world.store.outcomes.settle_due(now=NOW + 30 * MINUTE)
        assert waiting_world.settled("d1") == 1

    @pytest.mark.parametrize(
        ("occurred_after", "received_after", "status", "click"),
        [
            (None, 29, "recorded", 1),
            (None, 31, "late", 0),
            (30, 31, "recorded", 1),
            (31, 31, "late", 0),
            (29, 500, "recorded", 1),  # nobody settled it before
        ],
    )
    def test_the_time_of_the_click_decides(
        self,
        waiting_world: World,
        occurred_after: int | None,
        received_after: int,
        status: str,
        click: int,
    ) -> None:
        waiting_world.record("d1")
        occurred_at = None if occurred_after is None else NOW + occurred_after * MINUTE
        at = NOW + received_after * MINUTE
        assert waiting_world.click("d1", at=at, occurred_at=occurred_at) == status
        waiting_world.store.outcomes.settle_due(now=NOW + 1000 * MINUTE)
        assert waiting_world.settled("d1") == click

    def test_what_comes_after_settling_is_late_whenever_it_occurred(
        self, waiting_world: World, url: str
    ) -> None:
        waiting_world.record("d1")
        waiting_world.store.outcomes.settle_due(now=NOW + 31 * MINUTE)
        assert waiting_world.click("d1", at=NOW + 32 * MINUTE, occurred_at=NOW + MINUTE) == "late"
        assert waiting_world.settled("d1") == 0
        delays = fetch(url, "SELECT decision_id, seconds_after_impression FROM late_outcomes")
        assert [(name, float(delay)) for name, delay in delays] == [("d1", 60.0)]

    def test_final_closes_but_does_not_hurry(self, waiting_world: World) -> None:
        world = waiting_world
        world.record("d1")
        assert world.click("d1", 0.0, final=True) == "recorded"
        assert world.settled("d1") is None
        assert world.click("d1", 1.0, at=NOW + MINUTE) == "late"
        world.store.outcomes.settle_due(now=NOW + 30 * MINUTE)
        assert world.settled("d1") == 0

    def test_a_repeat_may_close(self, waiting_world: World) -> None:
        waiting_world.record("d1")
        assert waiting_world.click("d1", 0.0) == "recorded"
        assert waiting_world.click("d1", 0.0, final=True, at=NOW + MINUTE) == "repeated"
        assert waiting_world.store.decisions.get(["d1"])["d1"].closed_at == NOW + MINUTE
        assert waiting_world.click("d1", 1.0, at=NOW + 2 * MINUTE) == "late"

    def test_the_oldest_settle_first(self, waiting_world: World) -> None:
        for name, minutes in (("third", 3), ("first", 1), ("second", 2)):
            waiting_world.record(name, activated_at=NOW + minutes * MINUTE)
        order = []
        while waiting_world.store.outcomes.settle_due(now=NOW + 60 * MINUTE, limit=1):
            stored = waiting_world.store.decisions.get(["first", "second", "third"])
            order.append({name for name, decision in stored.items() if decision.click is not None})
        assert order == [{"first"}, {"first", "second"}, {"first", "second", "third"}]


class TestConversions:
    """Conversions have a window of their own, and count when they arrive."""

    def _convert(self, world: World, key: str, value: float, *, days: float = 0.0) -> str:
        new = NewOutcome(decision_id="d1", kind="conversion", key=key, value=value)
        return world.store.outcomes.record([new], received_at=NOW + timedelta(days=days))[0].status

    def test_they_count_once_each_inside_their_window(self, waiting_world: World) -> None:
        waiting_world.record("d1")
        reports = [("a", 10.0, 0.0), ("a", 10.0, 1.0), ("b", 2.5, 6.9), ("c", 99.0, 7.1)]
        statuses = [self._convert(waiting_world, key, value, days=days) for key, value, days in reports]
        assert statuses == ["recorded", "repeated", "recorded", "late"]
        arm = waiting_world.store.learning.arm_rows(waiting_world.campaign_id, now=NOW)[0]
        assert (arm.conversions, arm.value) == (2, 12.5)
        assert waiting_world.store.check() == []

    def test_they_neither_settle_nor_wait_for_settling(self, world: World) -> None:
        world.record("d1")
        assert self._convert(world, "a", 1.0) == "recorded"
        assert world.settled("d1") is None
        assert world.click("d1", final=True) == "recorded"
        assert self._convert(world, "b", 1.0, days=1.0) == "recorded"

    def test_counting_does_not_depend_on_the_order_of_threads(self, world: World) -> None:
        names = [f"d{number}" for number in range(12)]
        for place, creative_id in enumerate(world.creative_ids):
            world.record(*names[place::3], creative_id=creative_id)

        def report(thread: int) -> None:
            order = names[thread:] + names[:thread]
            news = [NewOutcome(decision_id=name, kind="conversion", value=1.0) for name in order]
            world.store.outcomes.record(news, received_at=NOW)

        threads = [threading.Thread(target=report, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        arms = world.store.learning.arm_rows(world.campaign_id, now=NOW)
        assert [arm.conversions for arm in arms] == [4, 4, 4]
        assert world.store.check() == []


def test_unknown_decisions_are_all_named_and_nothing_is_written(world: World, url: str) -> None:
    world.record("d1")
    news = [NewOutcome(decision_id=name, kind="click", value=1) for name in ("x2", "d1", "x1", "x2")]
    with pytest.raises(storage.UnknownDecisionError, match="no decision 'x2', 'x1';"):
        world.store.outcomes.record(news, received_at=NOW)
    assert fetch(url, "SELECT count(*) FROM outcomes") == [(0,)]
    assert world.settled("d1") is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"value": 0.5}, "click is 0 or 1, got 0.5"),
        ({"kind": "conversion", "value": float("inf")}, "conversion is a finite number, got inf"),
        ({"kind": "view"}, "got 'view'"),
        ({"key": "no-click:mine"}, "got 'no-click:mine'"),
        ({"key": "a\0"}, "key holds a NUL"),
    ],
)
def test_a_report_that_cannot_be_right_is_refused(
    sqlite_world: World, changes: dict[str, object], named: str
) -> None:
    sqlite_world.record("d1")
    new = NewOutcome(**{"decision_id": "d1", "kind": "click", "value": 1.0, **changes})  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(storage.InvalidValueError, match="decision 'd1'") as caught:
        sqlite_world.store.outcomes.record([new], received_at=NOW)
    assert named in str(caught.value)


def test_reports_and_settling_side_by_side_lose_no_click(waiting_world: World, url: str) -> None:
    """While one thread settles, others report clicks: each is either counted or visibly late."""
    world, names = waiting_world, [f"d{number:03d}" for number in range(120)]
    world.record(*names)
    end = NOW + 30 * MINUTE
    statuses: dict[str, str] = {}

    def report(part: int) -> None:
        for name in names[part::3]:
            statuses[name] = world.click(name, at=end, occurred_at=NOW)

    def settle() -> None:
        for _ in range(60):
            world.store.outcomes.settle_due(now=end, limit=5)

    threads = [threading.Thread(target=report, args=(part,)) for part in range(3)]
    threads.append(threading.Thread(target=settle))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.store.outcomes.settle_due(now=end)
    assert len(statuses) == len(names)
    for name in names:
        assert world.settled(name) == (1 if statuses[name] == "recorded" else 0), name
    assert world.store.check() == []
