"""Creatives arrive, retire and are heard of late: the compiled engine decides as `Engine` does on a database.

A thousand requests with contexts, whose levels and moments the engine gets to know on the way. Once as it is
shipped, with scales learnt and a refit; there contexts have no numbers, for a refit takes their moments as
they are by then, and the loop has each vector as it was at first. And once with numbers, without a refit. Ids
arrive in order and the last one retires, so that the candidates of both lie on the same places of the point
sets, and there are five to eight, which the engine pads to eight.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from bandit import Creative, Engine, Outcome
from bandit import Request as EngineRequest
from bandit.features.context import context_vector
from bandit.features.design import DIM, N_CONTEXT, design_row
from bandit.jax_runtime import double_precision
from bandit.policy.quasi_random import N_POINTS
from bandit.policy.randomness import Uniforms, uniforms_of_ids
from bandit.policy.thompson import Choice
from encoders import TextEncoder
from simulations.delayed_feedback import Waiting, delayed
from simulations.experiments.synthetic import policy_in_world, traffic_as_of
from simulations.policies.base import Outcomes, Policy, Request
from simulations.policies.registry import IN_CONTEXTS, numbers_of
from simulations.policies.settings import ENGINE, FIXED_SCALES, engine_setting
from simulations.worlds.drift import Changes, draw_course, eligible_at
from simulations.worlds.shop import World, launch_mean
from tests.bandit.inspect import model_of, replica_of
from tests.paths import TINY

N_ARMS, BATCH, N_BATCHES, HORIZON = 8, 40, 25, 10_000
ARRIVES = np.array([0, 0, 0, 0, 0, 6, 12, np.inf])  # in batches, as the next
RETIRES = np.array([np.inf, np.inf, np.inf, np.inf, np.inf, np.inf, 18, np.inf])
RATES = np.array([0.04, 0.06, 0.05, 0.06, 0.05, 0.08, 0.1, 0])
TEXTS = ("free returns", "flash sale", "warm winter shoes", "buy now", "new", "free shoes", "sale", "warm")
START = datetime(2026, 3, 1, tzinfo=UTC)


class Seen(NamedTuple):
    """What the engine did: decisions, propensities by creative, clicks, contexts' vectors, and steps."""

    chosen: np.ndarray
    propensities: np.ndarray
    clicks: np.ndarray
    contexts: np.ndarray
    content: np.ndarray
    steps: int


def play_engine(url: str, encoder: TextEncoder, wait: int, has_numbers: bool) -> Seen:
    """Let the engine decide a batch a minute; a window of half a minute more than the wait settles them."""
    now = [START]
    chosen = np.zeros((N_BATCHES, BATCH), int)
    propensities = np.zeros((N_BATCHES, BATCH, N_ARMS))
    vectors = np.zeros((N_BATCHES, BATCH, N_CONTEXT))
    rng = np.random.default_rng(5)
    uniforms = rng.random((N_BATCHES, BATCH))
    with Engine.open(url, learn="manual", clock=lambda: now[0], encoder=encoder) as engine:
        engine.set_scale_learning(not has_numbers)
        window = 60 * wait - 30 if wait else 0
        engine.add_campaign("spring", horizon=HORIZON, attribution_window=window)
        for batch in range(N_BATCHES):
            arrived = [Creative(f"{i}", headline=TEXTS[i]) for i in np.flatnonzero(batch == ARRIVES)]
            if arrived:
                engine.add_creatives("spring", arrived)
            for i in np.flatnonzero(batch == RETIRES):
                engine.retire("spring", f"{i}")
            ids, contexts = ids_of(batch), contexts_of(rng, has_numbers)
            decisions = engine.select_many(
                [
                    EngineRequest(campaign="spring", decision_id=i, context=context)
                    for i, context in zip(ids, contexts, strict=True)
                ]
            )
            vectors[batch] = [context_vector(context, model_of(engine).schema) for context in contexts]
            chosen[batch] = [int(decision.creative_id) for decision in decisions]
            for place, decision in enumerate(decisions):
                for name, share in decision.propensities.items():
                    propensities[batch, place, int(name)] = share
            clicks = uniforms[batch] < RATES[chosen[batch]]
            engine.update_many(
                [Outcome(decision_id=i, click=bool(c)) for i, c in zip(ids, clicks, strict=True)]
                if not wait
                else [Outcome(decision_id=i, click=True) for i, c in zip(ids, clicks, strict=True) if c]
            )
            assert engine.settle().learnt == (BATCH if batch >= wait else 0)
            now[0] += timedelta(minutes=1)
        steps = replica_of(engine).step
        content = np.array(model_of(engine).catalog.content, float)[: N_ARMS - 1]
    padded = np.concatenate([content, np.zeros((1, content.shape[1]))])  # the eighth never arrives
    return Seen(chosen, propensities, (uniforms < RATES[chosen]).astype(float), vectors, padded, steps)


def contexts_of(rng: np.random.Generator, has_numbers: bool) -> list[dict[str, str | bool | float]]:
    """Draw the contexts of a batch: two texts, a boolean, and a number or none."""
    return [
        {
            "device": str(rng.choice(["mobile", "desktop", "tablet"], p=[0.6, 0.3, 0.1])),
            "segment": str(rng.choice(["new", "loyal"])),
            "weekend": bool(rng.random() < 0.3),
            **({"basket": round(float(rng.uniform(5, 95)), 2)} if has_numbers else {}),
        }
        for _ in range(BATCH)
    ]


def ids_of(batch: int) -> list[str]:
    return [f"{batch}-{place}" for place in range(BATCH)]


@pytest.mark.slow
@pytest.mark.parametrize(("wait", "has_numbers"), [(0, True), (2, True), (0, False), (2, False)])
def test_engine_and_compiled_play_decide_alike(
    url: str, wait: int, has_numbers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = FIXED_SCALES if has_numbers else ENGINE
    if has_numbers:
        monkeypatch.setattr("bandit.learning.schedule.FIRST_REFIT", 2 * N_BATCHES * BATCH)
    seen = play_engine(url, TextEncoder(TINY, dtype="float32"), wait, has_numbers)
    assert set(seen.chosen.ravel().tolist()) == set(range(N_ARMS - 1))
    assert len(set(seen.chosen[18:].ravel().tolist())) > 2
    slots = np.unique(np.nonzero(seen.contexts)[2])
    assert len(slots) >= 5, "levels and moments were learnt on the way"
    assert (len(np.unique(seen.contexts[-1], axis=0)) == BATCH) == has_numbers
    ties = 0
    with double_precision():
        course = draw_course(jax.random.key(0), Changes(per_day=BATCH), N_ARMS, N_BATCHES * BATCH)
        nothing = jnp.zeros(N_ARMS)
        world = World(
            content=jnp.asarray(seen.content),
            base=jnp.zeros(()),
            context=jnp.zeros(N_CONTEXT),
            appeal=nothing,
            interaction=jnp.zeros((N_ARMS, N_CONTEXT)),
            course=course._replace(arrives=jnp.asarray(ARRIVES), retires=jnp.asarray(RETIRES)),
        )
        state = policy_of(name, world, wait).start
        choose, learn = compiled(name, wait)
        for batch in range(N_BATCHES):
            choice = choose(
                world, state, jnp.asarray(batch), seen.contexts[batch], uniforms_of_ids(ids_of(batch), 0)
            )
            np.testing.assert_array_equal(choice.chosen, seen.chosen[batch])
            apart = np.abs(np.asarray(choice.propensities) - seen.propensities[batch]).max(axis=1)
            # θ is float32: near ties may fall otherwise in another program, see test_engine_parity.
            assert apart.max() < 1.001 / N_POINTS
            ties += int((apart > 1e-9).sum())
            state = learn(world, state, seen.contexts[batch], choice.chosen, jnp.asarray(seen.clicks[batch]))
    assert ties <= N_BATCHES * BATCH / 100, f"{ties} propensities differ"
    known = state.known if wait else state
    assert int(known.step) == seen.steps
    n_refits, n_scales = (0, 0) if has_numbers else (1, 1)
    assert seen.steps == N_BATCHES - wait + n_refits + n_scales


@cache
def compiled(name: str, wait: int) -> tuple[Callable[..., Choice], Callable[..., Waiting]]:
    return jax.jit(partial(choices, name, wait)), jax.jit(partial(learnt, name, wait))


def policy_of(name: str, world: World, wait: int) -> Policy:
    numbers = numbers_of(engine_setting(policy=name), IN_CONTEXTS)
    policy = policy_in_world(name, world, HORIZON, numbers, room=N_BATCHES * BATCH)
    return delayed(policy, wait, BATCH, DIM, traffic_as_of)


def rows_of(world: World, contexts: Array) -> Array:
    """Return the design rows of every request and creative."""
    rows = jax.vmap(design_row, in_axes=(None, 0, None))
    return jax.vmap(lambda context: rows(context, world.content, launch_mean(world)))(contexts)


def choices(
    name: str, wait: int, world: World, state: Waiting, batch: Array, contexts: Array, uniforms: Uniforms
) -> Choice:
    assert world.course is not None
    there = jnp.broadcast_to(eligible_at(world.course, batch * BATCH), (BATCH, N_ARMS))
    request = Request(rows_of(world, contexts), there)
    return jax.vmap(policy_of(name, world, wait).choose, in_axes=(None, 0, 0))(state, request, uniforms)


def learnt(
    name: str, wait: int, world: World, state: Waiting, contexts: Array, chosen: Array, clicks: Array
) -> Waiting:
    seen = Outcomes(rows_of(world, contexts)[jnp.arange(BATCH), chosen], chosen, clicks)
    after: Waiting = policy_of(name, world, wait).learn(state, seen)
    return after
