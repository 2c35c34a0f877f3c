"""The numerical core: decisions with all propensities, and outcomes learnt with their passes, a second.

Run it with `pytest tests/benchmarks/test_core.py -s`. Medians of rounds in which contenders take turns of a
few batches each; ratios are what counts on a shared machine. The first one that selects predicts every
request's candidates from the weights: a triangular system of 209 unknowns for each request.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from bandit.features.content_tables import ContentTables, design
from bandit.features.design import N_CONTENT, N_CONTEXT, PriorScales, design_row, weight_prior
from bandit.jax_runtime import double_precision
from bandit.learning.replica import ROWS
from bandit.padding import CANDIDATES, padded_size
from bandit.policy.kernels import (
    Batch,
    CandidateGroups,
    draw_from_table,
    maps_of,
    select_batch,
    slots_of,
    tabulate,
)
from bandit.policy.propensity import Limits
from bandit.policy.randomness import Uniforms, uniforms_of_ids
from bandit.policy.thompson import Choice, Exploration, choose
from bandit.posterior import Rows, State, initial_state, learn, predict, update
from bandit.serving.groups import device_points

pytestmark = pytest.mark.benchmark

BATCH, ARMS, ROUNDS, TURN = 256, 10, 60, 5
SIZE = padded_size(ARMS, CANDIDATES)
SETTINGS = (100_000.0, 500.0, 0.3, 0.01, float(ARMS), 0.0)


@jax.jit
def predict_and_choose(
    state: State, tables: ContentTables, context: Any, points: Any, uniforms: Uniforms
) -> Choice:
    arm, eligible = jnp.arange(SIZE), jnp.arange(SIZE) < ARMS
    limits = Limits(jnp.zeros(SIZE), jnp.ones(SIZE))

    def one(context: Any, uniforms: Uniforms) -> Choice:
        features = design(tables, context, arm, jnp.asarray(0))
        logits = predict(state, features, arm, jnp.zeros_like(arm))
        exploration = Exploration(*map(jnp.asarray, SETTINGS))
        return choose(logits, exploration, eligible, points, uniforms, limits)

    return jax.vmap(one)(context, uniforms)


def learnt(rng: np.random.Generator, tables: ContentTables) -> State:
    arm = rng.integers(0, ARMS, 256)
    context = rng.normal(size=(256, N_CONTEXT))
    features = jax.jit(jax.vmap(lambda x, a: design(tables, x, a[None], jnp.asarray(0))[0]))(context, arm)
    clicks = (rng.random(256) < 0.05).astype(float)
    rows = Rows(features, *map(jnp.asarray, (arm, np.zeros(256, int), np.ones(256), clicks)))
    start = jax.jit(initial_state, static_argnums=(1, 2))(weight_prior(PriorScales()), 256, 16)
    state: State = jax.jit(update)(start, rows)[0]
    return state


def selecting() -> dict[str, Callable[[], Any]]:
    rng = np.random.default_rng(0)
    content = np.zeros((256, N_CONTENT))
    content[:ARMS] = 0.1 * rng.normal(size=(ARMS, N_CONTENT))
    tables = ContentTables(jnp.asarray(content), jnp.asarray(np.tile(content[:ARMS].mean(axis=0), (16, 1))))
    state, points = learnt(rng, tables), device_points(SIZE)
    uniforms = uniforms_of_ids([str(i) for i in range(BATCH)], 0)
    context, group = rng.normal(size=(BATCH, N_CONTEXT)), np.zeros(BATCH, np.int64)
    slots = slots_of(state)
    arm = np.arange(SIZE)[None] % ARMS
    maps = maps_of(state, slots, tables, arm, np.zeros(1, np.int64))
    eligible: Any = np.arange(SIZE)[None] < ARMS
    limits: list[Any] = [np.zeros((1, SIZE)), np.ones((1, SIZE))]
    numbers: list[Any] = [np.full(1, value) for value in SETTINGS]
    groups = CandidateGroups(eligible, Exploration(*numbers), Limits(*limits))
    some: list[Any] = [context, group]
    none: list[Any] = [np.zeros_like(context), group]
    table = tabulate(slots, maps, groups, points)
    return {
        "predict each request, d = 209": lambda: predict_and_choose(state, tables, context, points, uniforms),
        "maps, a context each, d = 209": lambda: select_batch(
            slots, maps, groups, Batch(some[0], some[1], uniforms), points
        ),
        "maps, no context": lambda: select_batch(
            slots, maps, groups, Batch(none[0], none[1], uniforms), points
        ),
        "table, no context": lambda: draw_from_table(table, uniforms),
        "(once a posterior: slots and maps)": lambda: maps_of(
            state, slots_of(state), tables, arm, np.zeros(1, np.int64)
        ),
        "(once a posterior: table)": lambda: tabulate(slots, maps, groups, points),
    }


def learning() -> dict[str, Callable[[], Any]]:
    """Return contenders that learn 256 outcomes; those alike are one row, as the engine has it."""
    rng = np.random.default_rng(1)
    content, clicks = 0.1 * rng.normal(size=(ARMS, N_CONTENT)), rng.random(BATCH) < 0.03
    arm, mean = rng.integers(0, ARMS, BATCH), content.mean(axis=0)
    # As many levels as two string fields have, three and four; then a number as well.
    levels = np.eye(7)[rng.integers(0, 3, BATCH)] + np.eye(7)[3 + rng.integers(0, 4, BATCH)]
    pooled = np.zeros((BATCH, N_CONTEXT))
    pooled[:, :7] = levels
    distinct = pooled.copy()
    distinct[:, 7] = rng.normal(size=BATCH)
    works = {}
    for name, context, with_context in (
        ("256 outcomes all different, d = 209", distinct, True),
        ("256 outcomes all different, d = 129", distinct, False),
        ("256 outcomes in 12 contexts, d = 209", pooled, True),
    ):
        kinds, kind = np.unique(np.column_stack([arm, context]), axis=0, return_inverse=True)
        size = padded_size(len(kinds), ROWS)
        counts = np.zeros((2, size))
        np.add.at(counts[0], kind, 1)
        np.add.at(counts[1], kind, clicks)
        shown = np.zeros(size, int)
        shown[: len(kinds)] = kinds[:, 0]
        vectors = np.zeros((size, N_CONTEXT))
        vectors[: len(kinds)] = kinds[:, 1:]
        used = vectors if with_context else vectors[:, :0]
        features = jax.vmap(design_row, in_axes=(0, 0, None))(used, content[shown], mean)
        rows = Rows(features, *map(jnp.asarray, (shown, np.zeros(size, int), *counts)))
        start = jax.jit(initial_state, static_argnums=(1, 2))(
            weight_prior(PriorScales(), with_context=with_context), 256, 16
        )
        state: State = jax.jit(update)(start, rows)[0]
        works[f"{name}: {size} rows"] = partial(jax.jit(learn), state, rows)
    return works


def test_core_selection() -> None:
    with double_precision():
        print_times(f"{ARMS} candidates", "decisions/s", selecting())


def test_core_learning() -> None:
    with double_precision():
        print_times(f"{ARMS} creatives", "outcomes/s", learning())


def print_times(what: str, rate: str, works: dict[str, Callable[[], Any]]) -> None:
    """Let the contenders take turns, and print what a batch took of each."""
    for work in works.values():
        jax.device_get(work())
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            began = time.perf_counter()
            for _ in range(TURN):
                jax.block_until_ready(work())
            times[name].append((time.perf_counter() - began) / TURN)
    table = Table(title=f"batches of {BATCH}, {what}, medians of {ROUNDS} rounds")
    for column in ("contender", "ms a batch", rate, "speed-up over the first"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    first = next(iter(times))
    for name, own in times.items():
        median = statistics.median(own)
        ratio = statistics.median(a / b for a, b in zip(times[first], own, strict=True))
        table.add_row(name, f"{1e3 * median:.2f}", f"{BATCH / median:,.0f}", f"{ratio:.1f}")
    Console(width=110).print(table)
