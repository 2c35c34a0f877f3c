"""A log of uniform choices that the engine on a database would all have made is accepted to the last line.

Every line is a request that the engine decided, learnt from before the next one; the replay is given the same
uniform numbers, and takes 600 lines to 600 batches, a refit and all steps of learning the scales.
"""

from datetime import UTC, datetime

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from bandit import Creative, Engine
from bandit.decision_log.logs import Log
from bandit.features.context import context_vector
from bandit.jax_runtime import double_precision
from bandit.policy.randomness import Uniforms, uniforms_of_ids
from encoders import TextEncoder
from simulations.experiments.log_replay import SETTINGS, replay_log
from tests.bandit.inspect import model_of, replica_of
from tests.paths import TINY

N_LINES, N_ARMS, SEED = 600, 4, 5
TEXTS = ("free returns", "flash sale", "warm winter shoes", "buy now")
RATES = np.array([0.1, 0.3, 0.2, 0.15])


def decided(url: str) -> tuple[Log, int]:
    """Let the engine decide line after line; return its log, and the steps of its own."""
    rng = np.random.default_rng(1)
    now = datetime(2026, 3, 1, tzinfo=UTC)
    action, reward, vectors = np.zeros(N_LINES, int), np.zeros(N_LINES), np.zeros((N_LINES, 16))
    encoder = TextEncoder(TINY, dtype="float32")
    with Engine.open(url, learn="manual", clock=lambda: now, encoder=encoder) as engine:
        engine.add_campaign("spring", horizon=N_LINES // N_ARMS, attribution_window=0)
        engine.add_creatives(
            "spring", [Creative(f"{i}", headline=headline) for i, headline in enumerate(TEXTS)]
        )
        for line in range(N_LINES):
            context: dict[str, str | bool | float] = {"device": str(rng.choice(["a", "b"]))}
            context["weekend"] = bool(rng.random() < 0.3)
            decision = engine.select("spring", context=context, decision_id=f"{line}")
            vectors[line] = context_vector(context, model_of(engine).schema)
            action[line] = int(decision.creative_id)
            reward[line] = rng.random() < RATES[action[line]]
            engine.update(f"{line}", click=bool(reward[line]))
            assert engine.settle().learnt == 1
        content = np.array(model_of(engine).catalog.content, float)[:N_ARMS]
        steps = replica_of(engine).step
    even = np.full((N_LINES, N_ARMS), 1 / N_ARMS)
    return (
        Log(
            tuple("0123"),
            content,
            np.arange(N_LINES).astype(str),
            action,
            reward,
            even[:, 0],
            even,
            even > 0,
            np.zeros(N_LINES, int),
            np.column_stack([np.ones(N_LINES), vectors]),
        ),
        steps,
    )


@pytest.mark.slow
def test_every_line_that_the_engine_decided_is_accepted(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, steps = decided(sqlite_url)
    assert steps > N_LINES + 30, "scales were learnt, and there was a refit"
    assert len(set(log.action.tolist())) == N_ARMS
    with double_precision():
        key_order, _ = jax.random.split(jax.random.key(SEED))
        order = np.asarray(jax.random.permutation(key_order, N_LINES))
    back = np.argsort(order)  # the replay takes line `order[i]` as its i-th

    def same_numbers(key: Array, size: int) -> Uniforms:
        return jax.tree.map(jnp.asarray, uniforms_of_ids([f"{line}" for line in range(size)], 0))

    monkeypatch.setattr("simulations.experiments.log_replay.uniforms_of_key", same_numbers)
    mixed = log._replace(
        **{name: getattr(log, name)[back] for name in ("decision", "action", "reward", "context")}
    )
    replayed = replay_log(mixed, SETTINGS["engine"], seeds=[SEED])
    assert replayed.accepted.tolist() == [N_LINES]
    assert replayed.clicks.tolist() == [log.reward.sum()]
    greedy = replay_log(mixed, SETTINGS["beta-thompson"], seeds=[SEED])
    assert greedy.accepted[0] < N_LINES / 2, "another policy sees few of these lines"
