"""Scales that are learnt and outcomes that are forgotten are steps of the log like any other."""

import json
from datetime import timedelta

import numpy as np
import pytest

from bandit import Engine, Outcome, Request
from bandit.errors import InvalidSettingError
from bandit.features.design import PriorScales
from bandit.learning.schedule import scales_of
from bandit.posterior.empirical_bayes import LARGEST_SCALE
from storage import StorageError
from tests.bandit.engine.test_replay import history
from tests.bandit.engines import Engines, add_campaign, assert_same, play, posterior
from tests.bandit.inspect import learner_of, lock_of, model_of, replica_of, store_of

DAY = timedelta(days=1)
SCALES_STEP = 20


def kinds(engines: Engines) -> list[str]:
    return [kind for (kind,) in engines.fetch("SELECT kind FROM learn_log ORDER BY step")]


def sites_of(engine: Engine) -> dict[str, np.ndarray]:
    """Return what data alone have put into the posterior."""
    state = replica_of(engine).view.state
    return {
        "precision": np.asarray(state.precision) - np.diag(np.asarray(state.prior.scale) ** -2.0),
        "arm_cross": np.asarray(state.arm_cross),
        "arm_precision": np.asarray(state.arm_precision) - float(state.prior.arm_scale) ** -2,
        "arm_information": np.asarray(state.arm_information),
    }


def learn_steps(engine: Engine, n_steps: int, start: int = 0) -> None:
    for i in range(start, start + n_steps):
        play(engine, 2, start=2 * i)


def test_every_twentieth_step_learns_the_scales(engines_on_both: Engines) -> None:
    engine = engines_on_both.open()
    add_campaign(engine)
    learn_steps(engine, 21)
    assert [i + 1 for i, kind in enumerate(kinds(engines_on_both)) if kind == "scales"] == [SCALES_STEP]
    after = posterior(engine)
    scales = store_of(engine).learning.log(model_of(engine).record.model_id)[SCALES_STEP - 1].parameters
    initial = PriorScales()._asdict()
    assert set(scales) == {"context", "content", "campaign_mean", "interaction", "campaign", "arm"}
    assert all(0 < scales[name] != initial[name] for name in ("context", "content", "campaign"))
    assert float(after["prior_arm_scale"]) == scales["arm"]
    told = store_of(engine).learning.model_log(model_of(engine).record.model_id, limit=1)[0].info
    assert told["scales"] == pytest.approx(scales)
    engine.close()
    assert_same(posterior(engines_on_both.open()), after)  # from the snapshot
    engines_on_both.forget_states()
    assert_same(posterior(engines_on_both.open()), after)  # from the log


def test_stopping_does_not_move_the_step_that_learns_scales(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    for i in range(21):
        learn_steps(engine, 1, start=i)
        if i % 6 == 5:
            engine.close()
            engine = engines.open()
    assert kinds(engines).index("scales") == SCALES_STEP - 1


def test_fixed_scales_stay(engines: Engines) -> None:
    engine = engines.open()
    engine.set_scale_learning(False)
    add_campaign(engine)
    learn_steps(engine, 21)
    assert set(kinds(engines)) == {"batch"}
    assert float(replica_of(engine).view.state.prior.arm_scale) == PriorScales().arm


def test_a_refit_keeps_scales_that_are_no_longer_learnt(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    play(engine, 40)
    engine.refit()
    learnt = scales_of(replica_of(engine).view.state.prior)
    assert learnt["arm"] != PriorScales().arm
    engine.set_scale_learning(False)
    play(engine, 20, start=40)
    engine.refit()
    assert scales_of(replica_of(engine).view.state.prior) == learnt
    after = posterior(engine)
    engine.close()
    engines.forget_states()
    assert_same(posterior(engines.open()), after)  # from the log


def test_what_was_learnt_fades_by_the_clock(engines_on_both: Engines) -> None:
    engine = engines_on_both.open()
    engine.set_forgetting(2.0)
    add_campaign(engine)
    play(engine, 30)
    before = sites_of(engine)
    engines_on_both.clock.pass_(timedelta(minutes=59))
    engine.settle()
    assert kinds(engines_on_both) == ["batch"]
    engines_on_both.clock.pass_(2 * DAY - timedelta(minutes=59))
    engine.settle()
    assert kinds(engines_on_both) == ["batch", "forget"]
    for name, half in sites_of(engine).items():
        np.testing.assert_allclose(half, before[name] / 2, rtol=1e-9, atol=1e-9, err_msg=name)
    play(engine, 10, start=30)
    after = posterior(engine)
    engine.close()
    assert_same(posterior(engines_on_both.open()), after)
    engines_on_both.forget_states()
    assert_same(posterior(engines_on_both.open()), after)


def test_arms_that_rest_fade_too(engines: Engines) -> None:
    """States of arms are written when they learn; what is forgotten since is taken off when they are read."""
    engine = engines.open()
    engine.set_forgetting(1.0)
    add_campaign(engine, name="resting")
    add_campaign(engine, name="busy")
    play(engine, 12, campaign="resting")
    learner_of(engine).save()
    for day in range(3):
        engines.clock.pass_(DAY)
        play(engine, 5, campaign="busy", start=5 * day)
        learner_of(engine).save()
    after = posterior(engine)
    assert kinds(engines).count("forget") == 3
    engine.close()
    assert_same(posterior(engines.open()), after)


def test_a_refit_weighs_outcomes_by_their_age(engines: Engines) -> None:
    engine = engines.open()
    engine.set_scale_learning(False)
    engine.set_forgetting(1.0)
    add_campaign(engine)
    play(engine, 60)
    engines.clock.pass_(2 * DAY)
    play(engine, 60, start=60)
    online = np.asarray(replica_of(engine).view.state.arm_precision)
    engine.refit()
    refitted = np.asarray(replica_of(engine).view.state.arm_precision)
    np.testing.assert_allclose(refitted, online, rtol=0.1)
    before = posterior(engine)
    engine.close()
    engines.forget_states()
    again = engines.open()
    assert_same(posterior(again), before)
    again.settle()
    assert kinds(engines).count("forget") == 1  # what lies behind the refit is not forgotten twice


def test_a_forgetting_that_was_not_stored_is_done_again(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engines.open()
    engine.set_forgetting(1.0)
    add_campaign(engine)
    play(engine, 20)
    engines.clock.pass_(DAY)

    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as failing:
        failing.setattr(store_of(engine).learning, "write_step", full)
        with pytest.raises(StorageError, match="full"):
            engine.settle()
    engine.settle()
    ((parameters,),) = engines.fetch("SELECT parameters FROM learn_log WHERE kind = 'forget'")
    assert json.loads(parameters)["kept"] == pytest.approx(0.5)


def test_a_follower_forgets_with_the_learner(engines: Engines) -> None:
    engine = engines.open()
    follower = engines.open(role="select")
    engine.set_forgetting(1.0)
    add_campaign(engine)
    play(engine, 20)
    engines.clock.pass_(DAY)
    engine.settle()
    with lock_of(follower):
        replica_of(follower).catch_up()
    assert_same(posterior(follower), posterior(engine))


@pytest.mark.parametrize("half_life", [0, -1.0, float("inf"), float("nan"), "7", True])
def test_half_lives_that_cannot_be_are_refused(engines: Engines, half_life: object) -> None:
    engine = engines.open()
    with pytest.raises(InvalidSettingError, match=f"got {half_life!r}"):
        engine.set_forgetting(half_life)  # type: ignore[arg-type]  # what a caller without types may pass
    assert model_of(engine).settings.half_life_days is None


def test_settings_of_two_processes_do_not_undo_each_other(engines: Engines) -> None:
    first, second = engines.open(), engines.open(role="select")
    first.set_forgetting(5.0)
    second.set_scale_learning(False)
    model_of(first).mark_refit(is_due=True)
    stored = store_of(first).models.settings(model_of(first).record.model_id)
    assert (stored["half_life_days"], stored["learn_scales"], stored["refit_due"]) == (5.0, False, True)


def test_imported_history_fades_too(engines: Engines) -> None:
    engine = engines.open()
    engine.set_scale_learning(False)
    engine.set_forgetting(2.0)
    engine.warm_start(history(("a", 4000, 120), ("b", 5000, 40)))
    before = sites_of(engine)["arm_precision"]
    engines.clock.pass_(2 * DAY)
    engine.settle()
    np.testing.assert_allclose(sites_of(engine)["arm_precision"], before / 2, rtol=1e-9)
    engine.refit()
    np.testing.assert_allclose(sites_of(engine)["arm_precision"], before / 2, rtol=0.2)


def test_the_posterior_is_refitted_whenever_what_was_learnt_has_doubled(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine, horizon=None)
    requests = [Request(campaign="spring", decision_id=f"d-{i}") for i in range(2200)]
    for start in range(0, len(requests), 100):
        made = engine.select_many(requests[start : start + 100])
        engine.update_many([Outcome(decision_id=d.id, click=i % 40 == 0) for i, d in enumerate(made)])
        engine.settle()
        if start == 700:  # what was counted survives
            engine.close()
            engine = engines.open()
    refits = engines.fetch(
        "SELECT (SELECT sum(n_rows) FROM learn_log b WHERE b.step < a.step) "
        "FROM learn_log a WHERE kind = 'refit' ORDER BY step"
    )
    assert [learnt for (learnt,) in refits] == [600, 1200]
    before = posterior(engine)
    engine.close()
    engines.forget_states()
    assert_same(posterior(engines.open()), before)


@pytest.mark.slow
def test_a_context_that_decides_every_click_is_learnt(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    for start in range(0, 600, 50):
        requests = [
            Request(
                campaign="spring",
                context={"device": ("mobile", "desktop", "tablet")[i % 3], "hour": float(i % 24)},
                decision_id=f"d{i}",
            )
            for i in range(start, start + 50)
        ]
        engine.select_many(requests)
        engine.update_many(
            [
                Outcome(decision_id=f"d{i}", click=request.context["device"] == "mobile")
                for i, request in enumerate(requests, start)
            ]
        )
        engine.settle()
    engine.refit()
    told = store_of(engine).learning.model_log(model_of(engine).record.model_id, limit=1)[0].info
    assert told["largest_step"] < 1e-4
    assert told["scales"]["context"] == LARGEST_SCALE
    rates = [
        engine.explain("spring", engine.arms("spring")[0].creative_id, {"device": device}).ctr
        for device in ("mobile", "desktop")
    ]
    assert rates[0] > 0.9
    assert rates[1] < 0.1
