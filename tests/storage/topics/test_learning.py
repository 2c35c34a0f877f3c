"""Learning: the learner's rows, its one transaction, and what it resumes from."""

import hashlib
import threading
from datetime import timedelta

import numpy as np
import pytest
from safetensors.numpy import save

import storage
from storage import ArmStates, ArmSummary, ContextCountRecord, HistoryCountRecord, Store
from tests.storage.conftest import MINUTE, NOW, World
from tests.storage.sql import fetch


def _settled_world(world: World, n_decisions: int = 6) -> tuple[World, int, list[str]]:
    """Record and settle decisions, every third with a click; return the lease and their ids too."""
    names = [f"d{number}" for number in range(n_decisions)]
    for number, name in enumerate(names):
        world.record(name, creative_id=world.creative_ids[number % 3])
        world.click(name, float(number % 3 == 0))
    lease = world.store.leases.acquire(world.model_id, "learner")
    assert lease is not None
    return world, lease, names


def _states(world: World, fill: float) -> ArmStates:
    n_arms = len(world.creative_ids)
    return ArmStates(
        creative_ids=np.array(world.creative_ids),
        u=np.full((n_arms, 4), fill) * [1.0, 1 / 3, -2.0, 1e-300],
        q=np.full(n_arms, 16 + fill),
        k=np.full(n_arms, -fill),
    )


def _snapshot(world: World, lease: int, step: int, state: bytes) -> None:
    world.store.learning.write_snapshot(
        world.model_id,
        lease=lease,
        step=step,
        state=state,
        arm_states=_states(world, 9.0),
        created_at=NOW,
    )


def test_rows_come_by_time_of_settling_and_id(world: World) -> None:
    for name, minutes in (("b", 1), ("c", 0), ("a", 1), ("B", 1)):
        world.record(name)
        world.click(name, at=NOW + minutes * MINUTE)
    world.record("unsettled")
    rows = world.store.learning.unlearnt(world.model_id)
    assert rows.decision_ids == ("c", "B", "a", "b")
    assert rows.contexts[rows.context[0]] == {"device": "mobile", "age": 33.5, "is_new": True}
    assert rows.clicks[0] == 1
    assert world.store.learning.unlearnt(world.model_id, limit=2) == rows.first(2)


def test_a_step_is_written_whole(world: World) -> None:
    world, lease, names = _settled_world(world)
    rows = world.store.learning.unlearnt(world.model_id)
    world.store.models.add_context_fields(world.model_id, {"device": "string"})
    snapshot = save({"P": np.eye(3)})
    step = world.step(
        lease,
        1,
        *names,
        parameters={"passes": 3, "chunk": [1, 2]},
        context_counts=(ContextCountRecord(field="device", level="mobile", decisions=6),),
        arm_states=_states(world, 1.5),
        snapshot=snapshot,
    )
    world.store.learning.write_step(step)
    learning = world.store.learning
    assert not learning.unlearnt(world.model_id)
    assert learning.rows_of_batch(world.model_id, 1) == rows
    assert learning.latest_step(world.model_id) == 1
    log = learning.log(world.model_id)
    assert [(row.step, row.kind, row.n_rows, row.logged_at) for row in log] == [(1, "batch", 6, NOW)]
    assert log[0].parameters == {"passes": 3, "chunk": [1, 2]}
    arms = learning.arm_rows(world.campaign_id, now=NOW)
    assert [(arm.impressions, arm.clicks) for arm in arms] == [(2, 2), (2, 0), (2, 0)]
    assert world.store.models.context_counts(world.model_id) == list(step.context_counts)
    assert learning.newest_snapshot(world.model_id) == storage.Snapshot(step=1, state=snapshot)
    assert world.store.check() == []


def test_arm_states_come_back_bit_for_bit(world: World) -> None:
    world, lease, _ = _settled_world(world)
    given = _states(world, 0.1)
    world.store.learning.write_step(world.step(lease, 1, kind="refit", arm_states=given))
    touched = ArmStates(given.creative_ids[1:2], given.u[1:2] * 2, given.q[1:2] * 2, given.k[1:2] * 2)
    world.store.learning.write_step(world.step(lease, 2, kind="forget", arm_states=touched))
    stored = world.store.learning.arm_states(world.model_id)
    scale = np.array([1.0, 2.0, 1.0])
    np.testing.assert_array_equal(stored.u, given.u * scale[:, None])
    np.testing.assert_array_equal(stored.q, given.q * scale)
    np.testing.assert_array_equal(stored.k, given.k * scale)
    np.testing.assert_array_equal(stored.steps, [1, 2, 1])
    later = world.store.learning.arm_states(world.model_id, after_step=1)
    np.testing.assert_array_equal(later.creative_ids, given.creative_ids[1:2])
    assert world.store.learning.arm_states(world.model_id, after_step=2).u.shape == (0, 0)


def test_arm_states_of_different_lengths_are_reported(sqlite_world: World) -> None:
    world, lease, _ = _settled_world(sqlite_world)
    long = _states(world, 1.0)
    short = ArmStates(long.creative_ids[:1], long.u[:1, :2], long.q[:1], long.k[:1])
    world.store.learning.write_step(world.step(lease, 1, kind="refit", arm_states=long))
    world.store.learning.write_step(world.step(lease, 2, kind="refit", arm_states=short))
    with pytest.raises(storage.DatabaseDamagedError, match=r"\[16, 32\] bytes"):
        world.store.learning.arm_states(world.model_id)


@pytest.mark.parametrize("step", [0, 2])
def test_a_step_must_follow_the_newest(world: World, step: int) -> None:
    world, lease, names = _settled_world(world)
    with pytest.raises(storage.StepConflictError, match=f"expected step 1, got {step}"):
        world.store.learning.write_step(world.step(lease, step, *names))


@pytest.mark.parametrize("wrong", ["unsettled", "learnt", "nowhere", "twice"])
def test_a_decision_that_cannot_be_learnt_undoes_the_step(world: World, wrong: str) -> None:
    world, lease, names = _settled_world(world)
    world.record("unsettled")
    world.record("learnt")
    world.click("learnt")
    world.store.learning.write_step(world.step(lease, 1, "learnt"))
    bad = names[-1] if wrong == "twice" else wrong
    with pytest.raises(storage.StepConflictError, match=f"the first '{bad}'"):
        world.store.learning.write_step(world.step(lease, 2, *names, bad))
    assert len(world.store.learning.unlearnt(world.model_id)) == len(names)
    assert world.store.learning.latest_step(world.model_id) == 1
    assert world.store.check() == []


def test_a_decision_of_another_model_is_not_learnt(world: World) -> None:
    world, _, names = _settled_world(world)
    other = world.store.models.get_or_create("other", seed=2, encoder_fingerprint="encoder", settings={})
    lease = world.store.leases.acquire(other.model_id, "learner")
    assert lease is not None
    assert not world.store.learning.unlearnt(other.model_id)
    with pytest.raises(storage.StepConflictError, match=f"model {other.model_id}, step 1: 1 of"):
        world.store.learning.write_step(world.step(lease, 1, names[0], model_id=other.model_id))


def test_without_the_lease_nothing_is_written(world: World) -> None:
    world, lease, names = _settled_world(world)
    assert world.store.leases.release(world.model_id, lease)
    assert world.store.leases.acquire(world.model_id, "successor") == lease + 1
    with pytest.raises(storage.LeaseLostError, match=rf"'successor' \(number {lease + 1}\) holds it"):
        world.store.learning.write_step(world.step(lease, 1, *names))
    with pytest.raises(storage.LeaseLostError, match=f"number {lease} is lost"):
        world.store.learning.write_snapshot(
            world.model_id, lease=lease, step=0, state=b"", arm_states=_states(world, 9.0), created_at=NOW
        )
    assert len(world.store.learning.unlearnt(world.model_id)) == len(names)


def test_two_learners_learn_each_decision_once(world: World, url: str) -> None:
    """Two threads with the same lease number (a learner that was believed dead): one of each pair loses."""
    world, lease, names = _settled_world(world, 60)
    lost: list[Exception] = []

    def learn() -> None:
        with Store.open(url) as store:
            while rows := store.learning.unlearnt(world.model_id, limit=7):
                step = store.learning.latest_step(world.model_id) + 1
                try:
                    store.learning.write_step(world.step(lease, step, *rows.decision_ids))
                except storage.StepConflictError as error:
                    lost.append(error)

    threads = [threading.Thread(target=learn) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = world.store.learning.log(world.model_id)
    assert sum(row.n_rows for row in log) == len(names)
    assert world.store.check() == []


def test_snapshots_keep_the_newest_two(world: World, url: str) -> None:
    world, lease, _ = _settled_world(world)
    for step in (1, 2, 3):
        world.store.learning.write_step(world.step(lease, step, kind="scales", snapshot=b"%d" % step))
    world.store.learning.write_snapshot(
        world.model_id, lease=lease, step=3, state=b"again", arm_states=_states(world, 9.0), created_at=NOW
    )
    newest = world.store.learning.newest_snapshot(world.model_id)
    assert newest == storage.Snapshot(step=3, state=b"again")
    assert fetch(url, "SELECT step FROM posteriors ORDER BY step") == [(2,), (3,)]
    assert world.store.learning.arm_states(world.model_id).q.tolist() == [25.0, 25.0, 25.0]
    with pytest.raises(storage.StepConflictError, match="as of step 4, but the log ends at 3"):
        world.store.learning.write_snapshot(
            world.model_id, lease=lease, step=4, state=b"", arm_states=_states(world, 9.0), created_at=NOW
        )


def test_counts_for_a_refit(world: World) -> None:
    contexts = [{"device": "mobile"}, {"device": "mobile"}, {"device": "desktop"}, {"device": "mobile"}]
    for number, context in enumerate(contexts):
        world.record(f"d{number}", context=context, slots_version=number // 3)
        world.click(f"d{number}", float(number == 1))
    lease = world.store.leases.acquire(world.model_id, "learner")
    assert lease is not None
    world.store.learning.write_step(world.step(lease, 1, "d0", "d1", "d2"))
    world.store.learning.write_step(world.step(lease, 2, "d3"))
    rows = world.store.learning.counts(world.model_id, up_to_step=1)
    assert [(row.context, row.slots_version, row.impressions, row.clicks) for row in rows] == [
        ({"device": "desktop"}, 0, 1, 0),
        ({"device": "mobile"}, 0, 2, 1),
    ]
    (row,) = world.store.learning.counts(world.model_id, after_step=1, up_to_step=2)
    assert (row.slots_version, row.impressions) == (1, 1)
    later = world.store.learning.counts(world.model_id, up_to_step=2)
    assert [(row.context, row.slots_version, row.impressions) for row in later[2:]] == [
        ({"device": "mobile"}, 1, 1)
    ]


def test_recent_contexts_are_learnt_and_newest_first(world: World) -> None:
    for number in range(4):
        world.record(f"d{number}", context={"n": number}, activated_at=NOW + number * MINUTE)
        world.click(f"d{number}")
    lease = world.store.leases.acquire(world.model_id, "learner")
    assert lease is not None
    world.store.learning.write_step(world.step(lease, 1, "d0", "d1", "d2"))
    assert world.store.learning.recent_contexts(world.campaign_id, limit=2) == [{"n": 2}, {"n": 1}]


def test_history_adds_up(world: World) -> None:
    calm, urgent, _ = world.creative_ids

    def add(import_id: str, *rows: tuple[int, int, int, dict[str, str]]) -> bool:
        records = [
            HistoryCountRecord(creative_id=i, impressions=n, clicks=c, context=x) for i, n, c, x in rows
        ]
        return world.store.learning.add_history(
            world.model_id, records, import_id=import_id, slots_version=4, imported_at=NOW
        )

    # Longer than PostgreSQL lets a key be, and random enough not to be packed.
    long = {f"field {n}": hashlib.sha256(str(n).encode()).hexdigest() for n in range(100)}
    assert add("a", (urgent, 100, 3, {}), (calm, 10, 0, {}), (urgent, 50, 1, {}), (calm, 7, 1, long))
    assert add("b", (calm, 5, 5, {}), (calm, 3, 1, long))
    history = world.store.learning.history_counts(world.model_id)
    found = {(row.creative_id, row.impressions, row.clicks, len(row.context)) for row in history}
    assert found == {
        (calm, 10, 0, 0),
        (calm, 7, 1, 100),
        (calm, 5, 5, 0),
        (calm, 3, 1, 100),
        (urgent, 150, 4, 0),
    }
    assert {(row.slots_version, row.imported_at) for row in history} == {(4, NOW)}
    arms = world.store.learning.arm_rows(world.campaign_id, now=NOW)
    assert [(arm.history_impressions, arm.history_clicks) for arm in arms] == [(25, 7), (150, 4), (0, 0)]
    assert world.store.learning.imported_at(world.model_id, "b") == NOW
    assert not add("b", (calm, 5, 5, {}))
    with pytest.raises(storage.UnknownCreativeError, match="creative_id 98, 99"):
        add("c", (99, 1, 0, {}), (calm, 1, 0, {}), (98, 1, 0, {}))
    with pytest.raises(storage.InvalidValueError, match="got 4 clicks of 3 impressions"):
        add("c", (calm, 3, 4, {}))
    assert world.store.learning.imported_at(world.model_id, "c") is None
    assert world.store.learning.history_counts(world.model_id) == history


def test_impressions_count_what_was_shown(world: World) -> None:
    world, lease, names = _settled_world(world)
    world.record("shown")
    world.record("deferred", activated_at=None)
    assert world.store.learning.impressions(world.model_id) == {world.campaign_id: len(names) + 1}
    world.store.learning.write_step(world.step(lease, 1, *names))
    assert world.store.learning.impressions(world.model_id) == {world.campaign_id: len(names) + 1}


def test_readouts_pending_and_share(world: World) -> None:
    world, lease, names = _settled_world(world)
    old = NOW - timedelta(hours=25)
    world.record("old", activated_at=old, decided_at=old, creative_id=world.creative_ids[2])
    world.record("extra")
    summary = ArmSummary(
        creative_id=world.creative_ids[0],
        ctr=0.02,
        ctr_low=0.01,
        ctr_high=0.04,
        p_best=0.75,
        expected_loss=0.001,
        value_remaining=0.05,
        version=1,
    )
    world.store.learning.write_step(world.step(lease, 1, *names[:3]))
    world.store.learning.refresh_statistics([summary], refreshed_at=NOW)
    arms = world.store.learning.arm_rows(world.campaign_id, now=NOW)
    assert [(arm.ctr, arm.ctr_low, arm.p_best, arm.value_remaining, arm.version) for arm in arms] == [
        (0.02, 0.01, 0.75, 0.05, 1),
        (None,) * 5,
        (None,) * 5,
    ]
    assert [arm.pending_impressions for arm in arms] == [2, 1, 2]
    assert [arm.pending_clicks for arm in arms] == [1, 0, 0]
    assert [arm.share for arm in arms] == pytest.approx([3 / 7, 2 / 7, 2 / 7])
    later = world.store.learning.arm_rows(world.campaign_id, now=NOW + timedelta(hours=30))
    assert [arm.share for arm in later] == [None, None, None]


def test_readouts_are_stored_with_pending_and_share(world: World, url: str) -> None:
    world, _, _ = _settled_world(world)
    summaries = [
        ArmSummary(
            creative_id=creative_id,
            ctr=0.02,
            ctr_low=0.01,
            ctr_high=0.04,
            p_best=1 / 3,
            expected_loss=0.0,
            value_remaining=0.0,
            version=0,
        )
        for creative_id in world.creative_ids[::-1]
    ]
    world.store.learning.refresh_statistics(summaries, refreshed_at=NOW)
    query = "SELECT creative, pending, share_pct, p_best_pct FROM arm_report ORDER BY creative"
    rows = [(name, pending, float(share), float(best)) for name, pending, share, best in fetch(url, query)]
    assert rows == [(name, 2, 33.333, 33.333) for name in ("calm", "plain", "urgent")]


class TestLeases:
    """One learner a model, by the database's clock."""

    def test_one_holds_it_until_it_is_released(self, world: World) -> None:
        leases = world.store.leases
        first = leases.acquire(world.model_id, "one")
        assert first == 1
        assert leases.acquire(world.model_id, "two") is None
        assert leases.renew(world.model_id, first)
        assert leases.release(world.model_id, first)
        assert leases.acquire(world.model_id, "two") == 2
        assert not leases.renew(world.model_id, first)
        assert not leases.release(world.model_id, first)
        assert leases.acquire(world.model_id, "one") is None

    def test_an_expired_one_is_taken_over(self, world: World) -> None:
        leases = world.store.leases
        assert leases.acquire(world.model_id, "one", ttl_s=0.0) == 1
        assert leases.acquire(world.model_id, "two", ttl_s=30.0) == 2
        assert not leases.renew(world.model_id, 1)

    def test_an_expired_one_that_nobody_took_can_be_renewed(self, world: World) -> None:
        assert world.store.leases.acquire(world.model_id, "one", ttl_s=-5.0) == 1
        assert world.store.leases.renew(world.model_id, 1)
        assert world.store.leases.acquire(world.model_id, "two") is None

    def test_of_many_who_ask_at_once_one_gets_it(self, world: World) -> None:
        barrier, numbers = threading.Barrier(8), []

        def ask(owner: int) -> None:
            barrier.wait()
            numbers.append(world.store.leases.acquire(world.model_id, f"owner {owner}"))

        threads = [threading.Thread(target=ask, args=(owner,)) for owner in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(number for number in numbers if number is not None) == [1]
        assert len(numbers) == 8
