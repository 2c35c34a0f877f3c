"""Resume equals never stopped: reopened, replayed or rebuilt without the engine, one posterior."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bandit import Creative, Engine, HistoryRow, Outcome, Request
from bandit.features.content_pca import components_from_bytes
from bandit.features.context import context_vector
from bandit.features.design import PriorScales, scale_groups, weight_prior
from bandit.jax_runtime import double_precision
from bandit.learning.aggregation import count_distinct, leading_rows
from bandit.policy.propensity import propensities_of
from bandit.policy.quasi_random import normal_points
from bandit.policy.thompson import NOISE, OPTIMISM, best_shares, is_best, lookahead
from bandit.posterior import Rows, State, initial_state, predict, refit, update
from encoders import TextEncoder, encode_fields
from storage import LearnRows
from tests.bandit.engines import (
    MINUTE,
    Engines,
    add_campaign,
    assert_same,
    creatives,
    play,
    posterior,
)
from tests.bandit.inspect import learner_of, replica_of, store_of
from tests.bandit.posterior.small import named_arrays

TOLERANCE = 1e-9  # of a posterior sd
UPDATE = jax.jit(update)
REFIT = jax.jit(refit, static_argnums=3)


def reopened(engines: Engines, engine: Engine) -> dict[str, np.ndarray]:
    engine.close()
    return posterior(engines.open())


def replayed(engines: Engines, engine: Engine) -> dict[str, np.ndarray]:
    """Return the posterior after a replay of the whole log."""
    engine.close()
    engines.forget_states()
    return posterior(engines.open(role="select"))


def history(*counts: tuple[str, int, int], campaign: str = "old") -> list[HistoryRow]:
    """Return counts, half of them in no context and half on a device."""
    return [
        HistoryRow(
            campaign=campaign,
            creative=Creative(name, headline=f"warm {name}"),
            impressions=n // 2,
            clicks=c // 2,
            context=context,
        )
        for name, n, c in counts
        for context in ({}, {"device": "mobile", "is_new": True})
    ]


def test_a_clean_close_and_a_replay_give_the_posterior_back(engines_on_both: Engines) -> None:
    engine = engines_on_both.open()
    add_campaign(engine)
    play(engine, 60, learn_every=7)
    before = posterior(engine)
    assert before["step"] == 9
    assert_same(reopened(engines_on_both, engine), before, TOLERANCE)
    assert_same(replayed(engines_on_both, engine), before, TOLERANCE)


def test_steps_after_the_last_snapshot_are_folded(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    play(engine, 20, learn_every=5)
    learner_of(engine).save()
    play(engine, 20, start=20, learn_every=5)
    before = posterior(engine)
    (snapshot,) = engines.fetch("SELECT max(step) FROM posteriors")[0]
    assert 0 < snapshot < before["step"]
    assert_same(posterior(engines.open(role="select")), before, TOLERANCE)


@pytest.mark.slow
def test_a_backlog_is_learnt_in_larger_steps(engines_on_both: Engines) -> None:
    engine = engines_on_both.open()
    add_campaign(engine, attribution_window=0)
    devices = ("mobile", "desktop", "tablet")
    requests = [Request(campaign="spring", context={"device": devices[i % 3]}) for i in range(5_000)]
    engine.update_many(
        [
            Outcome(decision_id=decision.id, click=i % 9 == 0)
            for i, decision in enumerate(engine.select_many(requests))
        ]
    )
    assert engine.settle().learnt == 5_000
    sizes = [
        n for (n,) in engines_on_both.fetch("SELECT n_rows FROM learn_log WHERE kind = 'batch' ORDER BY step")
    ]
    assert sizes[:4] == [256] * 4
    assert all(size <= max(256, sum(sizes[:n]) // 4) for n, size in enumerate(sizes))
    assert max(sizes) > 512
    before = posterior(engine)
    assert_same(replayed(engines_on_both, engine), before, TOLERANCE)


def test_a_large_step_holds_few_kinds_of_outcomes() -> None:
    contexts = [{"is_new": True}, {"is_new": False}]

    def rows(numbers: list[int]) -> LearnRows:
        return LearnRows(
            decision_ids=[f"d{i}" for i in numbers],
            campaign_ids=[1] * len(numbers),
            creative_ids=[i % 300 // 2 for i in numbers],
            slots_versions=[1] * len(numbers),
            clicks=[int(i % 3 == 0) for i in numbers],
            context=[i % 2 for i in numbers],
            contexts=contexts,
        )

    assert leading_rows(rows([*range(400)]), 256) == rows([*range(256)])
    assert len(leading_rows(rows([*range(256)] * 3), 256)) == 768
    assert len(leading_rows(LearnRows(), 256)) == 0
    counted = count_distinct(rows([*range(400)]))
    assert [each[:3] for each in counted] == [(i // 2, contexts[i % 2], 1) for i in range(300)]
    assert [each.impressions for each in counted] == [2] * 100 + [1] * 200
    assert [each.clicks for each in counted[:4]] == [2, 0, 0, 2]


def test_slots_given_on_the_way_do_not_move_what_was_learnt_before(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    play(engine, 200, learn_every=25)
    versions = {row[0] for row in engines.fetch("SELECT DISTINCT slots_version FROM decisions")}
    levels = {row[0] for row in engines.fetch("SELECT level FROM context_slots WHERE level IS NOT NULL")}
    assert len(versions) > 2
    assert levels == {"mobile", "desktop", "tablet"}
    before = posterior(engine)
    assert_same(replayed(engines, engine), before, TOLERANCE)


@pytest.mark.slow
def test_a_refit_history_and_creatives_added_later(engines: Engines) -> None:
    engine = engines.open()
    engine.warm_start(history(("a", 400, 12), ("b", 500, 4)))
    add_campaign(engine)
    play(engine, 30, learn_every=10)
    engine.refit()
    engine.add_creatives("spring", creatives("later", "latest"))
    play(engine, 30, start=30, learn_every=10)
    engine.warm_start(history(("a", 100, 3), ("c", 200, 1)))
    engine.add_creatives("old", creatives("d"))
    play(engine, 20, campaign="old")
    engines.clock.pass_(30 * MINUTE)
    assert engine.settle().learnt == 20
    before = posterior(engine)
    kinds = [kind for (kind,) in engines.fetch("SELECT kind FROM learn_log ORDER BY step")]
    assert kinds.count("refit") == 3
    assert kinds[-1] == "batch"
    assert_same(reopened(engines, engine), before, TOLERANCE)
    assert_same(replayed(engines, engine), before, TOLERANCE)


def test_a_step_that_cannot_be_stored_changes_nothing(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    play(engine, 20, learn_every=10)
    before = posterior(engine)
    refuse = "CREATE TRIGGER refuse BEFORE INSERT ON learn_log BEGIN SELECT RAISE(ABORT, 'no room'); END"
    engines.execute(refuse)
    with pytest.raises(Exception, match="no room"):
        play(engine, 10, start=20)
    assert_same(posterior(engine), before, TOLERANCE)
    assert engine.select("spring").model_version == before["step"]
    engines.execute("DROP TRIGGER refuse")
    assert engine.settle().learnt == 10
    assert_same(reopened(engines, engine), posterior(engine), TOLERANCE)


def test_states_lost_and_written_anew_are_whole(engines: Engines) -> None:
    engine = engines.open()
    engine.warm_start(history(("a", 400, 12), ("b", 500, 4)))
    add_campaign(engine)
    play(engine, 10)
    before = posterior(engine)
    engine.close()
    engines.forget_states()
    assert_same(reopened(engines, engines.open()), before, TOLERANCE)


def test_a_lost_snapshot_is_not_mixed_with_newer_arms(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    for start in (0, 10):
        play(engine, 10, start=start)
        learner_of(engine).save()
    before = posterior(engine)
    engine.close()
    assert len(engines.fetch("SELECT step FROM posteriors")) == 2
    engines.execute("DELETE FROM posteriors WHERE step = (SELECT max(step) FROM posteriors)")
    assert_same(posterior(engines.open()), before, TOLERANCE)


@pytest.mark.slow
def test_growth_beyond_256_creatives_and_16_campaigns(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine, "calm", "urgent")
    play(engine, 20, learn_every=10)
    # The same text again costs no encoding.
    engine.add_campaign("wide", attribution_window=0)
    engine.add_creatives("wide", [Creative(f"c{i}", headline=f"sale {i % 5}") for i in range(260)])
    for i in range(17):
        engine.add_campaign(f"extra-{i}", attribution_window=0)
        engine.add_creatives(f"extra-{i}", creatives("x", "y"))
    play(engine, 12, campaign="extra-16", learn_every=6)
    for i in range(8):
        decision = engine.select("wide", eligible=["c0", "c257", "c259"])
        engine.update(decision.id, click=i == 0)
    engine.settle()
    before = posterior(engine)
    assert replica_of(engine).view.state.arm_precision.shape == (512,)
    assert replica_of(engine).view.state.campaign_precision.shape == (32,)
    assert_same(reopened(engines, engine), before, TOLERANCE)
    assert_same(replayed(engines, engine), before, TOLERANCE)


class Independent:
    """The posterior from SQL and `bandit.posterior` alone, one unpadded row after another."""

    def __init__(self, engines: Engines, encoder: TextEncoder) -> None:
        self.engines = engines
        ((stored, settings),) = engines.fetch("SELECT components, settings FROM models")
        self.scales = PriorScales(**json.loads(settings)["scales"])
        rows = engines.fetch("SELECT creative_id, campaign_id, content FROM creatives ORDER BY creative_id")
        embeddings = encode_fields(encoder, [json.loads(content) for _, _, content in rows])
        contents = components_from_bytes(stored).project(embeddings)
        self.arm = {row[0]: i for i, row in enumerate(rows)}
        self.content = {row[0]: contents[i].astype(float) for i, row in enumerate(rows)}
        self.campaign_of = {row[0]: row[1] for row in rows}
        campaigns = engines.fetch("SELECT campaign_id, mean_content FROM campaigns ORDER BY campaign_id")
        self.campaign = {row[0]: i for i, row in enumerate(campaigns)}
        self.mean = {row[0]: np.frombuffer(row[1], "<f4").astype(float) for row in campaigns}
        self.schema = engines.open(role="select")._model.schema
        self.arm_campaign = jnp.asarray([self.campaign[row[1]] for row in rows])

    def features(self, context: str, slots_version: int, creative: int) -> np.ndarray:
        vector = context_vector(json.loads(context), self.schema, slots_version)
        content, mean = self.content[creative], self.mean[self.campaign_of[creative]]
        interactions = np.outer(vector, content[:4]).ravel()
        return np.concatenate([[1.0], vector, content, mean, interactions])

    def rows(self, query: str) -> Rows:
        found = self.engines.fetch(query)
        creative = [row[2] for row in found]
        return Rows(
            features=jnp.asarray(np.stack([self.features(*row[:3]) for row in found])),
            arm=jnp.asarray([self.arm[i] for i in creative]),
            campaign=jnp.asarray([self.campaign[self.campaign_of[i]] for i in creative]),
            impressions=jnp.asarray([float(row[3]) for row in found]),
            clicks=jnp.asarray([float(row[4]) for row in found]),
        )

    def state(self, up_to_step: int) -> State:
        prior = weight_prior(self.scales)
        state = initial_state(prior, len(self.arm), len(self.campaign))
        log = self.engines.fetch(f"SELECT step, kind FROM learn_log WHERE step <= {up_to_step} ORDER BY step")
        for step, kind in log:
            if kind == "refit":
                rows = self.rows(
                    "SELECT context, slots_version, creative_id, impressions, clicks FROM history_counts "
                    "UNION ALL "
                    "SELECT context, slots_version, creative_id, 1, click FROM decisions "
                    f"WHERE learnt_batch <= {step}"
                )
                groups = jnp.asarray(scale_groups())
                state, _ = REFIT(prior, rows, self.arm_campaign, len(self.campaign), groups)
            else:
                rows = self.rows(
                    "SELECT context, slots_version, creative_id, 1, click FROM decisions "
                    f"WHERE learnt_batch = {step} ORDER BY decision_id DESC"
                )
                state, _ = UPDATE(state, rows)
        return state


@pytest.fixture
def played(engines: Engines) -> Engine:
    """An engine whose log has batches, slots given on the way and a refit with history."""
    engine = engines.open()
    engine.warm_start(history(("a", 400, 12), ("b", 500, 4)))
    add_campaign(engine, horizon=400)
    play(engine, 120, learn_every=40)
    return engine


@pytest.mark.slow
def test_the_engine_has_the_posterior_of_the_same_rows(
    engines: Engines, played: Engine, tiny_encoder: TextEncoder
) -> None:
    before = posterior(played)
    with double_precision():
        independent = Independent(engines, tiny_encoder)
        state = independent.state(int(before["step"]))
    theirs = named_arrays(state)
    # A refit's rows come one by one here and summed there: its fixed point is reached to its tolerance.
    assert_same({**theirs, "step": before["step"]}, before, 1e-6)


@pytest.mark.slow
def test_the_engine_has_the_posterior_of_the_same_batches(
    engines: Engines, tiny_encoder: TextEncoder
) -> None:
    engine = engines.open()
    add_campaign(engine)
    play(engine, 60, learn_every=20)
    before = posterior(engine)
    with double_precision():
        state = Independent(engines, tiny_encoder).state(int(before["step"]))
    theirs = named_arrays(state)
    assert_same({**theirs, "step": before["step"]}, before, TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("horizon", [400, None, "auto"])
def test_a_logged_decision_gives_its_propensities_again(
    engines: Engines, tiny_encoder: TextEncoder, horizon: int | None
) -> None:
    engine = engines.open()
    add_campaign(engine, horizon=horizon, uniform_share=0.05)
    play(engine, 60, learn_every=20)
    engine.select("spring", {"device": "mobile"}, decision_id="last", exclude=["calm"])
    ids = ["spring-5", "spring-45", "last"]
    with double_precision():
        independent = Independent(engines, tiny_encoder)
        for decision_id in ids:
            row = store_of(engine).decisions.get([decision_id])[decision_id]
            state = independent.state(row.model_version)
            candidates = row.candidate_creative_ids
            context = json.dumps(row.context)
            features = np.stack([independent.features(context, row.slots_version, c) for c in candidates])
            arms = jnp.asarray([independent.arm[c] for c in candidates])
            logits = jax.jit(predict)(state, features, arms, jnp.zeros_like(arms))
            remaining = 1e9 if row.horizon is None else row.horizon
            points = normal_points(4)[row.point_set][: len(candidates)]
            eligible = jnp.ones(len(candidates), bool)
            is_plain = row.horizon is None
            spread = lookahead(logits, remaining, row.kappa)
            lift = 0.0 if is_plain else OPTIMISM * jnp.sqrt(jnp.sum(spread**2, axis=0))
            best = is_best(
                logits.mean + lift, spread if is_plain else NOISE * spread, jnp.asarray(points), eligible
            )
            again = propensities_of(best_shares(best), eligible, 0.05).capped
            np.testing.assert_allclose(again, row.propensities, rtol=0, atol=1e-12)
    assert {store_of(engine).decisions.get(ids)[i].model_version for i in ids} == {0, 2, 3}
