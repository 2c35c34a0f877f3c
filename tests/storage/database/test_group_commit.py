"""Group commit: who leads does it for all, and each caller gets what it would have got alone."""

import threading
import time
from collections.abc import Callable, Sequence

import pytest

import storage
from storage import NewOutcome
from storage.database.group_commit import GroupCommit
from tests.bandit.inspect import is_led, queue_of
from tests.storage.conftest import NOW, World
from tests.storage.sql import fetch

N_THREADS, EACH = 16, 20


def at_once(calls: Sequence[Callable[[], object]]) -> list[object]:
    """Run calls in threads of their own, and return what each gave or raised."""
    results: list[object] = [None] * len(calls)

    def run(i: int) -> None:
        try:
            results[i] = calls[i]()
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a thread was left waiting"
    return results


class Doubling:
    """Doubles numbers in groups; the first call is held until `n` others are queued behind it."""

    def __init__(self, n: int, fail: Callable[[Sequence[int]], None] = lambda _: None) -> None:
        self.groups: list[list[int]] = []
        self.n = n
        self.fail = fail
        self.grouping: GroupCommit[int, int] = GroupCommit(self.double)

    def double(self, calls: Sequence[int]) -> list[int]:
        while not self.groups and len(queue_of(self.grouping)) < self.n:
            time.sleep(0.001)
        self.groups.append(list(calls))
        self.fail(calls)
        return [2 * call for call in calls]

    def run(self) -> list[object]:
        return at_once([lambda i=i: self.grouping.run(i) for i in range(self.n + 1)])  # type: ignore[misc]


def test_who_waits_is_done_together() -> None:
    doubling = Doubling(7)
    assert doubling.run() == [2 * i for i in range(8)]
    first, second = doubling.groups
    assert len(first) == 1
    assert sorted(first + second) == list(range(8))
    assert not is_led(doubling.grouping)


def test_a_member_that_fails_does_not_harm_the_others() -> None:
    def refuse(calls: Sequence[int]) -> None:
        if 5 in calls:
            raise KeyError(5)

    results = Doubling(7, refuse).run()
    assert isinstance(results[5], KeyError)
    assert [result for i, result in enumerate(results) if i != 5] == [2 * i for i in range(8) if i != 5]


def test_an_error_of_the_database_reaches_all_in_one_attempt() -> None:
    def break_down(calls: Sequence[int]) -> None:
        if len(calls) > 1:
            raise storage.ServerUnreachableError("gone")

    doubling = Doubling(7, break_down)
    results = doubling.run()
    assert len(doubling.groups) == 2
    errors = [result for result in results if isinstance(result, storage.ServerUnreachableError)]
    assert len(errors) == len(set(map(id, errors))) == 7


def test_a_leader_that_is_interrupted_strands_nobody() -> None:
    interrupted = []

    def interrupt(calls: Sequence[int]) -> None:
        if len(calls) > 1 and not interrupted:
            interrupted.append(calls[0])
            raise KeyboardInterrupt

    doubling = Doubling(7, interrupt)
    results = doubling.run()
    assert isinstance(results[interrupted[0]], KeyboardInterrupt)
    others = [i for i in range(8) if i != interrupted[0]]
    assert [results[i] for i in others] == [2 * i for i in others]
    assert not is_led(doubling.grouping)


def test_threads_lose_and_double_nothing(world: World, url: str) -> None:
    def record(who: int) -> list[str]:
        ids = [f"{who}-{i}" for i in range(EACH)]
        for name in ids:
            assert world.store.decisions.record([world.decision(name)])[0].decision_id == name
            report = NewOutcome(decision_id=name, kind="click", value=1.0)
            assert world.store.outcomes.record([report], received_at=NOW)[0].status == "recorded"
        return ids

    results = at_once([lambda who=who: record(who) for who in range(N_THREADS)])  # type: ignore[misc]
    names = sorted(name for result in results for name in result)  # type: ignore[attr-defined]
    rows = fetch(url, "SELECT decision_id, click FROM decisions ORDER BY decision_id")
    assert rows == [(name, 1) for name in names]
    assert fetch(url, "SELECT count(*) FROM outcomes") == [(N_THREADS * EACH,)]
    assert world.store.check() == []


def test_one_id_from_many_threads_is_one_decision_or_a_conflict(world: World) -> None:
    def record(who: int) -> object:
        device = "mobile" if who % 2 else "desktop"
        return world.store.decisions.record([world.decision("d1", context={"device": device})])[0]

    results = at_once([lambda who=who: record(who) for who in range(N_THREADS)])  # type: ignore[misc]
    (stored,) = world.store.decisions.get(["d1"]).values()
    for who, result in enumerate(results):
        if stored.context == {"device": "mobile" if who % 2 else "desktop"}:
            assert result == stored
        else:
            assert isinstance(result, storage.DecisionConflictError)


def test_an_unknown_decision_among_reports_of_others(world: World) -> None:
    world.record(*(f"d{i}" for i in range(N_THREADS)))

    def report(name: str) -> object:
        new = NewOutcome(decision_id=name, kind="click", value=1.0)
        return world.store.outcomes.record([new], received_at=NOW)[0].status

    names = ["nobody", *(f"d{i}" for i in range(N_THREADS))]
    results = at_once([lambda name=name: report(name) for name in names])  # type: ignore[misc]
    assert isinstance(results[0], storage.UnknownDecisionError)
    assert results[1:] == ["recorded"] * N_THREADS
    with pytest.raises(storage.UnknownDecisionError, match="'nobody'"):
        report("nobody")
