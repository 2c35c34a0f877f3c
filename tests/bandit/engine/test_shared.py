"""Several engines on one database, and several threads on one engine."""

import threading
import time
from collections.abc import Callable

import pytest

from bandit import Creative, Engine, HistoryRow, Outcome, Request
from bandit.errors import LearnerElsewhereError
from tests.bandit.engines import (
    Engines,
    add_campaign,
    assert_same,
    creatives,
    happens_within,
    learnt,
    play,
    posterior,
    wait_for,
)
from tests.bandit.inspect import follow_at_once, learner_of, replica_of, store_of

HISTORY = [HistoryRow(campaign="old", creative=Creative("a", headline="warm"), impressions=100, clicks=3)]


def lets_go_of_time(engine: Engine) -> None:
    """Let the next call look for changes at once, as it would a second later."""
    follow_at_once(engine)


def test_one_learns_and_the_other_follows(engines_on_both: Engines) -> None:
    engines = engines_on_both
    first, second = engines.open(), engines.open()
    add_campaign(first)
    play(first, 20, learn_every=5)
    # The campaign is found at once; the posterior follows within a second.
    assert second.select("spring").model_version in {0, 4}
    lets_go_of_time(second)
    assert second.select("spring").model_version == 4
    assert_same(posterior(second), posterior(first))

    second.update(second.select("spring", decision_id="by the second").id, click=True)
    assert second.settle().learnt == 0
    assert first.settle().learnt == 1


def test_changes_are_seen_within_a_second(engines: Engines) -> None:
    first, second = engines.open(), engines.open()
    add_campaign(first)
    second.select("spring")
    first.pause("spring", "calm")
    first.add_creatives("spring", creatives("x", "later"))
    wait_for(lambda: set(second.select("spring").propensities) == {"urgent", "plain", "x", "later"})

    def add(number: int) -> Callable[[], bool]:
        first.add_creatives("spring", creatives(f"new {number}"))
        return lambda: f"new {number}" in second.select("spring").propensities

    assert happens_within(1.5, add)
    first.pause("spring")
    lets_go_of_time(second)
    with pytest.raises(RuntimeError, match="campaign 'spring' is paused"):
        second.select("spring")


def test_a_decision_of_a_creative_that_is_not_known_here_yet(engines: Engines) -> None:
    first, second = engines.open(), engines.open()
    add_campaign(first)
    second.select("spring")
    first.add_creatives("spring", creatives("x", "later"))
    decision = first.select("spring", eligible=["later"], decision_id="a")
    assert second.select("spring", eligible=["later"], decision_id="a") == decision


@pytest.mark.parametrize("role", ["both", "select"])
def test_what_another_process_added_is_learnt_as_it_was_chosen(engines: Engines, role: str) -> None:
    """The learner, or who takes over, has no campaign, no mean content, no slots and no creative of these."""
    learner = engines.open()
    selector = engines.open(role=role)
    add_campaign(selector)
    selector.select("spring", {"device": "mobile"}, decision_id="a")
    selector.update("a", click=True)
    assert learner.settle().learnt == 1
    selector.add_creatives("spring", creatives("x", "later"))
    selector.select("spring", {"device": "mobile", "age": 7.0}, eligible=["later"], decision_id="b")
    selector.update("b", click=True)
    assert learner.settle().learnt == 1
    before = posterior(learner)
    assert abs(before["arm_cross"][4]).max() > 0
    lets_go_of_time(selector)
    selector.select("spring")
    assert_same(posterior(selector), before)
    learner.close()
    engines.forget_states()
    assert_same(posterior(engines.open(role="select")), before)


@pytest.mark.parametrize("unknown", ["mean content", "context field"])
def test_what_the_learner_has_not_read_yet_is_read_before_it_learns(
    engines: Engines, monkeypatch: pytest.MonkeyPatch, unknown: str
) -> None:
    monkeypatch.setattr("bandit.serving.selector.FOLLOW_EVERY_S", 1e9)  # no second passes between two calls
    learner, selector = engines.open(), engines.open(role="select")
    add_campaign(selector)
    if unknown == "context field":
        selector.select("spring", decision_id="first")
    learner.arms("spring")  # from here on it knows all creatives
    context = {"device": "mobile"} if unknown == "context field" else {}
    selector.select("spring", context, decision_id="a")
    selector.update("a", click=True)
    assert learner.settle().learnt == 1
    before = posterior(learner)
    learner.close()
    engines.forget_states()
    assert_same(posterior(engines.open(role="select")), before)


def test_who_takes_over_folds_creatives_that_it_has_never_seen(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bandit.serving.selector.FOLLOW_EVERY_S", 1e9)  # no second passes between two calls
    first, second = engines.open(), engines.open()
    add_campaign(first)
    second.select("spring")
    first.add_creatives("spring", creatives("x", "later"))
    first.select("spring", eligible=["later"], decision_id="a")
    first.update("a", click=True)
    first.settle()
    before = posterior(first)
    first.close()
    second.settle()
    assert_same(posterior(second), before)


def test_a_follower_that_takes_over_learns_with_newer_slots(engines: Engines) -> None:
    first, second = engines.open(), engines.open()
    add_campaign(first)
    second.select("spring", decision_id="early")
    play(first, 160, learn_every=80)
    first.select("spring", {"device": "mobile", "age": 21.0}, decision_id="after")
    first.update("after", click=True)
    first.close()
    assert second.settle().learnt == 1
    before = posterior(second)
    second.close()
    engines.forget_states()
    assert_same(posterior(engines.open(role="select")), before)


def test_select_only_never_learns(engines: Engines) -> None:
    engine = engines.open(role="select", learn="background")
    add_campaign(engine)
    engine.update(engine.select("spring").id, click=True)
    assert engine.settle().learnt == 0
    time.sleep(1.3)
    engine.close()
    assert learnt(engines) == []
    assert engines.fetch("SELECT * FROM leases") == []


@pytest.mark.parametrize(
    "call",
    [lambda engine: engine.refit(), lambda engine: engine.warm_start(HISTORY)],
    ids=["refit", "warm_start"],
)
@pytest.mark.parametrize("role", ["both", "select"])
def test_what_only_the_learner_may_do(engines: Engines, role: str, call: Callable[[Engine], object]) -> None:
    first, second = engines.open(), engines.open(role=role)
    add_campaign(first)
    before = engines.row_counts()
    with pytest.raises(LearnerElsewhereError, match=r"needs the learner of .*ads\.db.*role='select'"):
        call(second)
    assert engines.row_counts() == before
    first.close()
    if role == "both":
        call(second)
        assert engines.fetch("SELECT kind FROM learn_log") == [("refit",)]


def test_the_lease_is_handed_over_at_close(engines_on_both: Engines) -> None:
    first, second = engines_on_both.open(), engines_on_both.open()
    add_campaign(first)
    play(first, 10)
    second.select("spring", decision_id="a")
    second.update("a", click=True)
    assert second.settle().learnt == 0
    before = posterior(first)
    first.close()
    assert second.settle().learnt == 1
    assert posterior(second)["step"] == before["step"] + 1
    assert engines_on_both.fetch("SELECT number FROM leases") == [(2,)]


def test_a_learner_whose_lease_was_taken_stops_and_follows(engines: Engines) -> None:
    first = engines.open()
    add_campaign(first)
    play(first, 10)
    engines.execute("UPDATE leases SET expires_at = '2000-01-01T00:00:00.000000Z'")
    second = engines.open()
    for name in ("a", "b"):
        first.select("spring", decision_id=name)
        first.update(name, click=True)
    assert second.settle().learnt == 2
    first.select("spring", decision_id="c")
    first.update("c", click=False)
    assert first.settle().learnt == 0
    assert learner_of(first).lease is None
    assert_same(posterior(first), posterior(second))
    assert second.settle().learnt == 1


def test_traffic_of_other_processes_is_counted(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bandit.serving.selector.RECOUNT_EVERY_S", 0.0)
    first, second = engines.open(), engines.open()
    add_campaign(first)
    play(first, 8)
    first.select("spring", decision_id="deferred", defer_activation=True)
    first.activate("deferred")
    for engine in (first, second):
        lets_go_of_time(engine)
        engine.select("spring")
    ((campaign_id,),) = engines.fetch("SELECT campaign_id FROM campaigns")
    assert replica_of(first).view.so_far[campaign_id] == 9
    assert replica_of(second).view.so_far[campaign_id] == 10


def test_a_snapshot_that_moves_while_it_is_read(engines: Engines) -> None:
    """A learner writes between the two reads of one that opens; the halves must not be mixed."""
    first = engines.open()
    add_campaign(first)
    play(first, 10)
    learner_of(first).save()
    second = engines.open(role="select")
    read = store_of(second).learning.newest_snapshot

    def interrupted(model_id: int, **settings: int):  # type: ignore[no-untyped-def]  as the one it stands for
        snapshot = read(model_id, **settings)
        if snapshot is not None and snapshot.step == 1:
            play(first, 10, start=10)
            learner_of(first).save()
        return snapshot

    store_of(second).learning.newest_snapshot = interrupted  # type: ignore[method-assign]
    replica_of(second).resume()
    assert_same(posterior(second), posterior(first))


def test_an_interrupted_warm_start_is_finished_by_the_next_learner(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = engines.open()
    add_campaign(first)
    play(first, 10)
    with monkeypatch.context() as patched:
        # What a process leaves that is killed after the counts were committed and before the refit.
        patched.setattr(learner_of(first), "refit", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            first.warm_start(HISTORY)
    first.close()
    second = engines.open()
    kinds = [kind for (kind,) in engines.fetch("SELECT kind FROM learn_log ORDER BY step")]
    assert kinds == ["batch", "refit"]
    before = posterior(second)
    second.close()
    assert engines.open()._learner.replica.view.step == 2
    engines.forget_states()
    assert_same(posterior(engines.open(role="select")), before)


def test_readouts_in_sql_keep_up_with_steady_traffic(engines: Engines) -> None:
    engine = engines.open(learn="inline")
    add_campaign(engine, "only")
    engine.update(engine.select("spring").id, click=True)

    def is_read_out() -> bool:
        engine.update(engine.select("spring").id, click=False)
        ((version,),) = engines.fetch("SELECT version FROM arm_statistics")
        return version is not None and version > 3

    wait_for(is_read_out)


def test_eight_threads_on_one_engine(engines_on_both: Engines) -> None:
    engine = engines_on_both.open(learn="background")
    add_campaign(engine)
    engine.update(engine.select("spring", {"device": "mobile"}).id, click=True)
    errors: list[BaseException] = []
    n_threads, n_each = 8, 15

    def work(number: int) -> None:
        try:
            for i in range(n_each):
                decision = engine.select(
                    "spring", {"device": ("mobile", "desktop")[i % 2], f"f{number}": 1.0}
                )
                engine.update(decision.id, click=i % 5 == 0, conversion=i % 5 == 0)
                if number == 0 and i == 5:
                    engine.add_creatives("spring", creatives("later"))
                if number == 1 and i == 10:
                    engine.refit()
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    engine.settle()
    arms = engine.arms("spring")
    assert len(arms) == 4
    assert sum(arm.impressions for arm in arms) == n_threads * n_each + 1
    assert sum(arm.clicks for arm in arms) == n_threads * n_each // 5 + 1
    assert sum(arm.conversions for arm in arms) == n_threads * n_each // 5
    assert store_of(engine).check() == []
    before = posterior(engine)
    engine.close()
    engines_on_both.forget_states()
    assert_same(posterior(engines_on_both.open(role="select")), before)


@pytest.mark.slow
def test_threads_that_compute_at_once_do_not_wait_for_ever(engines: Engines) -> None:
    """Two threads inside LAPACK at once stopped jaxlib 0.10.2 for good on two cores within a few rounds."""
    engine = engines.open(learn="background")
    engine.add_campaign("wide", horizon=100_000, attribution_window=0)
    engine.add_creatives("wide", [Creative(f"{i:02d}", headline=f"free {i}") for i in range(20)])

    def work() -> None:
        for _ in range(6):
            requests = [Request(campaign="wide", context={"x": float(i)}) for i in range(250)]
            decisions = engine.select_many(requests)
            reports = [Outcome(decision_id=d.id, click=i % 30 == 0) for i, d in enumerate(decisions)]
            engine.update_many(reports)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads)
    engine.settle()
    assert sum(arm.impressions for arm in engine.arms("wide")) == 2 * 6 * 250
