"""10,000 campaigns of 20 creatives in one model: milliseconds a batch, seconds a refit, memory at the peak.

Run it with `make bench`, or `python -m tests.benchmarks.test_scale 3` for three contexts per creative. The
work is done in a process of its own, whose peak of memory is told.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from rich.console import Console

from bandit.features.content_tables import ContentTables
from bandit.features.design import N_CONTENT, N_CONTEXT, PriorScales, weight_prior
from bandit.jax_runtime import double_precision, keep_compiled_programs
from bandit.learning.kernels import CountedRows, apply_change, learn_batch
from bandit.learning.refit import fit_counts
from bandit.padding import room_for
from bandit.posterior import State, initial_state

pytestmark = pytest.mark.benchmark

N_CAMPAIGNS, ARMS_EACH, BATCH, ROUNDS = 10_000, 20, 256, 40
N_ARMS = N_CAMPAIGNS * ARMS_EACH
ROOM, CAMPAIGN_ROOM = room_for(N_ARMS, 256), room_for(N_CAMPAIGNS, 16)


@pytest.mark.parametrize("contexts_each", [1, 3])
def test_a_large_model(contexts_each: int) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.test_scale", str(contexts_each)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    Console().print(f"{contexts_each} row(s) per arm", told)
    assert told["peak_mb"] < 1700


def a_model() -> tuple[ContentTables, np.ndarray]:
    """Return contents of unit norm with their campaigns' means, and each arm's campaign."""
    random = np.random.default_rng(0)
    content = np.zeros((ROOM, N_CONTENT), np.float32)
    content[:N_ARMS] = random.standard_normal((N_ARMS, N_CONTENT), np.float32)
    content[:N_ARMS] /= np.linalg.norm(content[:N_ARMS], axis=1, keepdims=True)
    mean = np.zeros((CAMPAIGN_ROOM, N_CONTENT), np.float32)
    mean[:N_CAMPAIGNS] = content[:N_ARMS].reshape(N_CAMPAIGNS, ARMS_EACH, N_CONTENT).mean(axis=1)
    tables = jax.device_put(ContentTables(content.astype(float), mean.astype(float)))
    return tables, np.minimum(np.arange(ROOM) // ARMS_EACH, N_CAMPAIGNS - 1)


def learning(state: State, tables: ContentTables, arm_campaign: np.ndarray) -> tuple[State, dict[str, float]]:
    """Learn batches of arms all over the model; return the state and what that cost."""
    random = np.random.default_rng(1)
    computing, applying, processor, passes = [], [], [], []
    for _ in range(ROUNDS):
        arm = random.integers(0, N_ARMS, BATCH)
        context = (random.random((BATCH, N_CONTEXT)) < 0.3).astype(float)
        clicks = (random.random(BATCH) < 0.02).astype(float)
        rows = CountedRows(context, arm, arm_campaign[arm], np.ones(BATCH), clicks)
        began, began_processor = time.perf_counter(), time.process_time()
        change, info = jax.block_until_ready(learn_batch(state, tables, rows))
        computed = time.perf_counter()
        state = jax.block_until_ready(apply_change(state, change))
        computing.append(computed - began)
        applying.append(time.perf_counter() - computed)
        processor.append(time.process_time() - began_processor)
        passes.append(int(info.passes))
    half = ROUNDS // 2  # the first batches take more passes, and compile
    told = {"learn_ms": computing, "apply_ms": applying, "learn_and_apply_processor_ms": processor}
    costs = {name: 1000 * statistics.median(values[half:]) for name, values in told.items()}
    return state, costs | {"passes": statistics.mean(passes[half:])}


def refitting(tables: ContentTables, arm_campaign: np.ndarray, contexts_each: int) -> dict[str, float]:
    """Fit the model while another thread computes now and then, as selection does; return what that cost."""
    random = np.random.default_rng(2)
    n_rows = N_ARMS * contexts_each
    padding = room_for(n_rows, BATCH) - n_rows
    arm = np.pad(np.repeat(np.arange(N_ARMS), contexts_each), (0, padding))
    impressions = np.pad(random.integers(50, 2000, n_rows), (0, padding))
    context = np.zeros((len(arm), N_CONTEXT))
    if contexts_each > 1:
        context[:n_rows] = random.random((n_rows, N_CONTEXT)) < 0.3
    clicks = random.binomial(impressions, 0.02)
    rows = CountedRows(context, arm, arm_campaign[arm], impressions.astype(float), clicks.astype(float))
    waits: list[float] = []
    is_over = threading.Event()

    def select() -> None:
        while not is_over.wait(0.01):
            began = time.perf_counter()
            with double_precision():
                waits.append(time.perf_counter() - began)

    selecting = threading.Thread(target=select, daemon=True)
    selecting.start()
    with double_precision():
        prior = weight_prior(PriorScales())
    began, began_processor = time.perf_counter(), time.process_time()
    _, info = fit_counts(prior, tables, rows, arm_campaign, CAMPAIGN_ROOM, learns_scales=True)
    took, processor = time.perf_counter() - began, time.process_time() - began_processor
    is_over.set()
    selecting.join()
    return {
        "refit_s": took,
        "refit_processor_s": processor,
        "refit_passes": int(info.passes),
        "longest_wait_s": max(waits),
        "waits_over_half_a_second": sum(wait > 0.5 for wait in waits),
    }


def main(contexts_each: int) -> dict[str, float]:
    """Return all that is measured; the state that learnt stays, as selection needs it during a refit."""
    keep_compiled_programs()
    with double_precision():
        tables, arm_campaign = a_model()
        prior = weight_prior(PriorScales())
        state = jax.jit(initial_state, static_argnums=(1, 2))(prior, ROOM, CAMPAIGN_ROOM)
        state, told = learning(state, tables, arm_campaign)
    told |= refitting(tables, arm_campaign, contexts_each)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**told, "room": len(state.arm_precision), "peak_mb": peak, "load": os.getloadavg()[0]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: round(value, 3) for name, value in main(int(sys.argv[1])).items()}))
