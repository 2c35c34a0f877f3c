"""Processes that do not learn follow the one that does: by a thread, by snapshots, and told by PostgreSQL."""

import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from bandit import Engine
from bandit.errors import NoCandidatesError
from bandit.learning.snapshots import STEPS_AHEAD
from storage.errors import ServerUnreachableError
from tests.bandit.engines import (
    Engines,
    add_campaign,
    assert_same,
    creatives,
    happens_within,
    play,
    posterior,
    wait_for,
)
from tests.bandit.inspect import (
    background_of,
    clock_of,
    learner_of,
    model_of,
    replica_of,
    selector_of,
    store_of,
)
from tests.storage.sql import execute


def learn_without(follower: Engine, learner: Engine, what: str) -> None:
    """Learn more steps than a follower folds, and of the kind that is asked for."""
    play(learner, 60, start=100, learn_every=3)
    if what == "refit":
        learner.refit()
    if what == "forgetting":
        learner.set_forgetting(5.0)
        clock = clock_of(learner)
        clock.pass_(timedelta(hours=40))  # type: ignore[attr-defined]
        learner.settle()
    if what == "new creatives":
        learner.add_creatives("spring", creatives("x", "later"))
        play(learner, 30, start=300, learn_every=3)
    learner_of(learner).save()
    play(learner, 9, start=400, learn_every=3)


@pytest.mark.parametrize("what", ["batches", "refit", "forgetting", "new creatives"])
def test_a_snapshot_and_the_rest_of_the_log_are_the_log(
    engines_on_both: Engines, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("bandit.learning.learner.SNAPSHOT_EVERY_S", 1e9)  # only those that the test writes
    learner, follower = engines_on_both.open(), engines_on_both.open(role="select")
    add_campaign(learner)
    # Four arms have learnt before, one of them not afterwards: what is not read must be kept, or forgotten.
    play(learner, 12, learn_every=3)
    learner.pause("spring", "calm")
    selector_of(follower).catch_up()
    assert replica_of(follower).view.step == 4
    learn_without(follower, learner, what)
    folded: list[int] = []
    rows_of_batch = store_of(follower).learning.rows_of_batch
    monkeypatch.setattr(
        store_of(follower).learning,
        "rows_of_batch",
        lambda model_id, step: folded.append(step) or rows_of_batch(model_id, step),
    )
    ((snapshot,),) = engines_on_both.fetch("SELECT max(step) FROM posteriors")
    assert snapshot > 4 + STEPS_AHEAD
    selector_of(follower).catch_up()
    assert min(folded) == snapshot + 1
    assert_same(posterior(follower), posterior(learner))
    # It takes over from there, and what it writes is the log too.
    learner.close()
    follower.close()
    heir = engines_on_both.open()
    before = posterior(heir)
    engines_on_both.forget_states()
    assert_same(posterior(engines_on_both.open(role="select")), before)


def test_a_follower_that_took_a_snapshot_takes_over(engines_on_both: Engines) -> None:
    first, second = engines_on_both.open(), engines_on_both.open()
    add_campaign(first)
    second.select("spring", decision_id="early")
    play(first, 60, learn_every=3)
    first.close()
    second.update("early", click=True)
    assert second.settle().learnt == 1
    before = posterior(second)
    second.close()
    assert_same(posterior(engines_on_both.open(role="select")), before)
    engines_on_both.forget_states()
    assert_same(posterior(engines_on_both.open(role="select")), before)


@pytest.mark.parametrize("role", ["both", "select"])
def test_a_step_and_a_new_campaign_are_seen_without_any_call(engines_on_both: Engines, role: str) -> None:
    learner, follower = engines_on_both.open(), engines_on_both.open(role=role, learn="background")
    add_campaign(learner)
    wait_for(lambda: "spring" in replica_of(follower).view.catalog.campaigns)
    play(learner, 3)  # its programs are compiled by now
    wait_for(lambda: replica_of(follower).view.step == 1)

    def learn(number: int) -> Callable[[], bool]:
        play(learner, 3, start=3 * (number + 2))
        return lambda: replica_of(follower).view.step == number + 2

    assert happens_within(5.0, learn)
    assert_same(posterior(follower), posterior(learner))


def test_first_creatives_of_a_campaign_that_was_known_empty(engines: Engines) -> None:
    first, other = engines.open(), engines.open(role="select")
    first.add_campaign("spring", horizon=1_000)
    with pytest.raises(NoCandidatesError, match="'spring' has no creatives"):
        other.select("spring")
    first.add_creatives("spring", creatives("calm"))
    assert other.select("spring").creative_id == "calm"


def test_a_request_does_not_follow_where_a_thread_does(engines: Engines) -> None:
    learner, follower = engines.open(), engines.open(role="select", learn="background")
    add_campaign(learner)
    follower.select("spring")  # a name that is unknown here is looked for at once
    background_of(follower).stop()
    play(learner, 3)
    time.sleep(1.1)
    assert follower.select("spring").model_version == 0
    assert replica_of(follower).view.step == 0


@pytest.mark.postgres
def test_postgres_tells_of_a_step_and_the_listener_connects_again(postgres_engines: Engines) -> None:
    learner, follower = postgres_engines.open(), postgres_engines.open(role="select")
    add_campaign(learner)
    notices, model_id = store_of(follower).notices, model_of(follower).record.model_id
    assert not notices.wait(model_id, 0.01)
    play(learner, 3)
    began = time.monotonic()
    assert notices.wait(model_id, 5.0)
    assert time.monotonic() - began < 1.0
    assert not notices.wait(model_id + 1, 0.01)

    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
    execute(postgres_engines.url, kill)
    with pytest.raises(ServerUnreachableError):
        notices.wait(model_id, 5.0)
    assert not notices.wait(model_id, 0.01)
    play(learner, 3, start=3)
    assert notices.wait(model_id, 5.0)


def test_the_lease_is_kept_while_the_last_step_is_made(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A close that learns for long renews: nobody takes over in the middle of it."""
    monkeypatch.setattr("bandit.learning.workers.RENEW_S", 0.1)
    engine = engines.open(learn="background")
    add_campaign(engine)
    save = learner_of(engine).save
    seen: list[bool] = []

    def slow_save() -> None:
        engines.execute("UPDATE leases SET expires_at = '2000-01-01T00:00:00.000000Z'")
        time.sleep(1.0)
        seen.append(engines.open()._learner.lease is None)
        save()

    monkeypatch.setattr(learner_of(engine), "save", slow_save)
    engine.close()
    assert seen == [True]
