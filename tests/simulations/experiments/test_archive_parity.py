"""The archive is played by compiled functions; the same tests through `Engine` give the same decisions."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bandit import Creative, Engine, HistoryRow, Outcome
from bandit import Request as EngineRequest
from bandit.features.design import PriorScales
from bandit.jax_runtime import double_precision
from bandit.padding import CANDIDATES, padded_size
from bandit.policy.quasi_random import N_POINTS
from bandit.policy.randomness import Uniforms, uniforms_of_ids
from bandit.policy.thompson import Choice
from bandit.posterior import Gaussian
from encoders import TextEncoder
from simulations.experiments.archive_run import encode_archive
from simulations.policies.base import Outcomes, Problems, Request
from simulations.policies.engine import LogitState, engine_on_logits
from simulations.worlds.archive import PastTest, archive_prior, problems, read_archive

N_HISTORY, N_PLAYED, PER_ARM, BATCH, MOST_ARMS = 60, 20, 40, 20, 8


def _history(tests: list[PastTest]) -> list[HistoryRow]:
    return [
        HistoryRow(
            campaign=test.test_id,
            creative=Creative(str(i), headline=headline),
            impressions=int(test.impressions[i]),
            clicks=int(test.clicks[i]),
        )
        for test in tests
        for i, headline in enumerate(test.headlines)
    ]


@pytest.mark.real_data
@pytest.mark.slow
def test_engine_and_compiled_play_decide_alike(data_dir: Path, tmp_path: Path) -> None:
    tests = [
        test
        for test in read_archive(data_dir / "upworthy" / "packages.csv.gz")[:200]
        if 2 <= len(test.headlines) <= MOST_ARMS
    ][: N_HISTORY + N_PLAYED]
    history, played = tests[:N_HISTORY], tests[N_HISTORY:]
    encoder = TextEncoder()
    vectors, components = encode_archive(tests, encoder, None)
    with double_precision():
        state = archive_prior(history, vectors, components, PriorScales())
        worlds = problems(played, state, vectors, components, MOST_ARMS, 0.02)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    rng = np.random.default_rng(0)
    warmed = tmp_path / "warmed.db"
    with Engine.open(warmed, learn="manual", clock=lambda: now, encoder=encoder) as engine:
        engine.warm_start(_history(history))
        engine.set_scale_learning(False)  # compiled play keeps the scales that the history taught
    compared: list[tuple[int, int]] = []
    for number, test in enumerate(played):
        # Every test starts from the history alone, not from the tests played before it.
        copied = shutil.copyfile(warmed, tmp_path / f"{number}.db")
        with Engine.open(copied, learn="manual", clock=lambda: now, encoder=encoder) as engine:
            world = jax.tree.map(lambda leaf, n=number: leaf[n], worlds)
            compared += list(_play_both(engine, test, world, rng))
    ties, decisions = np.sum(compared, axis=0)
    assert ties <= decisions / 1000, f"{ties} of {decisions} propensities differ"


def _play_both(
    engine: Engine, test: PastTest, world: Problems, rng: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """Play one test both ways; yield of each batch how many propensities differ by a tie, and its size."""
    n_arms = len(test.headlines)
    engine.add_campaign("played", horizon=n_arms * PER_ARM, attribution_window=0)
    engine.add_creatives(
        "played", [Creative(f"{i:02d}", headline=text) for i, text in enumerate(test.headlines)]
    )
    # The engine pads to the same number of arms, so both draw on the same points.
    size = padded_size(n_arms, CANDIDATES)
    with double_precision():
        prior = Gaussian(world.prior.mean[:size], world.prior.covariance[:size, :size])
        horizon = float(n_arms * PER_ARM)
        request = Request(jnp.zeros((size, 0)), world.eligible[:size])
        belief = engine_on_logits(prior, horizon).start
    for first in range(0, n_arms * PER_ARM, BATCH):
        ids = [f"{test.test_id}-{first + i}" for i in range(BATCH)]
        decisions = engine.select_many([EngineRequest(campaign="played", decision_id=i) for i in ids])
        with double_precision():
            choice = _choose(prior, horizon, belief, request, uniforms_of_ids(ids, 0))
        assert [decision.creative_id for decision in decisions] == [f"{int(i):02d}" for i in choice.chosen]
        given = np.array([list(decision.propensities.values()) for decision in decisions])
        apart = np.abs(given - np.asarray(choice.propensities)[:, :n_arms]).max(axis=1)
        # θ is float32: two candidates a few 1e-7 apart at a point may tie there in one program and not in the
        # other, which moves half a point or a whole one, on some processors and not on others.
        assert apart.max() < 1.001 / N_POINTS
        yield int((apart > 1e-9).sum()), BATCH
        clicks = rng.random(BATCH) < test.truth[np.asarray(choice.chosen)]
        engine.update_many([Outcome(decision_id=i, click=bool(c)) for i, c in zip(ids, clicks, strict=True)])
        assert engine.settle().learnt == BATCH
        with double_precision():
            seen = Outcomes(jnp.zeros((BATCH, 0)), choice.chosen, jnp.asarray(clicks, float))
            belief = _learn(prior, horizon, belief, seen)


@jax.jit
def _choose(
    prior: Gaussian, horizon: float, belief: LogitState, request: Request, uniforms: Uniforms
) -> Choice:
    choose = engine_on_logits(prior, horizon).choose
    return jax.vmap(choose, in_axes=(None, None, 0))(belief, request, uniforms)


@jax.jit
def _learn(prior: Gaussian, horizon: float, belief: LogitState, seen: Outcomes) -> LogitState:
    after: LogitState = engine_on_logits(prior, horizon).learn(belief, seen)
    return after
