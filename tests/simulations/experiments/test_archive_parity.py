"""The archive is played by compiled functions; the same tests through `Engine` give the same decisions.

From the history, and from nothing: there the experiment does at the end of a test what falls due inside it.
"""

import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bandit import Creative, Engine, HistoryRow, Outcome
from bandit import Request as EngineRequest
from bandit.features.content_pca import Components
from bandit.features.design import PriorScales, scale_groups, weight_prior
from bandit.jax_runtime import double_precision
from bandit.learning.schedule import FIRST_REFIT
from bandit.padding import CANDIDATES, padded_size
from bandit.policy.quasi_random import N_POINTS
from bandit.policy.randomness import Uniforms, uniforms_of_ids
from bandit.policy.thompson import Choice
from bandit.posterior import Gaussian, Rows, absorb, grow, initial_state, predict
from encoders import TextEncoder
from simulations.experiments.archive_run import encode_archive
from simulations.experiments.cold_start import Maintenance, Taught, closed
from simulations.policies.base import Outcomes, Problems, Request
from simulations.policies.engine import LogitState, engine_on_logits
from simulations.worlds.archive import PastTest, archive_prior, design, problems, read_archive
from tests.bandit.inspect import replica_of

N_HISTORY, N_PLAYED, PER_ARM, BATCH, MOST_ARMS = 60, 20, 40, 20, 8
NOW = datetime(2026, 1, 1, tzinfo=UTC)


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


class Prepared(NamedTuple):
    """The first tests of the archive, encoded."""

    tests: list[PastTest]
    encoder: TextEncoder
    vectors: Mapping[str, np.ndarray]
    components: Components


@pytest.fixture(scope="module")
def prepared(data_dir: Path) -> Prepared:
    tests = [
        test
        for test in read_archive(data_dir / "upworthy" / "packages.csv.gz")[:200]
        if 2 <= len(test.headlines) <= MOST_ARMS
    ][: N_HISTORY + N_PLAYED]
    encoder = TextEncoder()
    return Prepared(tests, encoder, *encode_archive(tests, encoder, None))


@pytest.fixture(scope="module")
def warmed(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database that has learnt the history."""
    path = tmp_path_factory.mktemp("archive") / "warmed.db"
    with Engine.open(path, learn="manual", clock=lambda: NOW, encoder=prepared.encoder) as engine:
        engine.warm_start(_history(prepared.tests[:N_HISTORY]))
        engine.set_scale_learning(False)  # compiled play keeps the scales that the history taught
    return path


@pytest.fixture(scope="module")
def worlds(prepared: Prepared) -> Problems:
    """Return the later tests as the archive's experiment has them."""
    tests, _, vectors, components = prepared
    with double_precision():
        state = archive_prior(tests[:N_HISTORY], vectors, components, PriorScales())
        return problems(tests[N_HISTORY:], state, vectors, components, MOST_ARMS, 0.02)


@pytest.mark.real_data
@pytest.mark.slow
def test_engine_and_compiled_play_decide_alike(
    prepared: Prepared, warmed: Path, worlds: Problems, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    ties = decisions = 0
    for number, test in enumerate(prepared.tests[N_HISTORY:]):
        # Every test starts from the history alone, not from the tests played before it.
        copied = shutil.copyfile(warmed, tmp_path / f"{number}.db")
        with Engine.open(copied, learn="manual", clock=lambda: NOW, encoder=prepared.encoder) as engine:
            world = jax.tree.map(lambda leaf, n=number: leaf[n], worlds)
            for batch in _play_both(engine, test, world, rng, PER_ARM):
                assert batch.is_same.all()
                # θ is float32: two candidates a few 1e-7 apart at a point may tie there in one program and
                # not in the other, which moves half a point or a whole one, on some processors.
                assert batch.apart.max() < 1.001 / N_POINTS
                ties += int((batch.apart > 1e-9).sum())
                decisions += len(batch.apart)
    assert ties <= decisions / 1000, f"{ties} of {decisions} propensities differ"


@pytest.mark.real_data
@pytest.mark.slow
def test_after_a_refit_they_stay_close(
    prepared: Prepared, warmed: Path, worlds: Problems, tmp_path: Path
) -> None:
    """The engine's refit fits the history anew as well, the experiment's the test alone."""
    rng = np.random.default_rng(1)
    before, after = list[Both](), list[Both]()
    for number, test in enumerate(prepared.tests[N_HISTORY : N_HISTORY + 5]):
        copied = shutil.copyfile(warmed, tmp_path / f"{number}.db")
        with Engine.open(copied, learn="manual", clock=lambda: NOW, encoder=prepared.encoder) as engine:
            world = jax.tree.map(lambda leaf, n=number: leaf[n], worlds)
            for place, batch in enumerate(_play_both(engine, test, world, rng, 400)):
                (before if place * BATCH < FIRST_REFIT else after).append(batch)
    assert all(batch.is_same.all() for batch in before)
    same, apart = (np.concatenate([getattr(batch, name) for batch in after]) for name in Both._fields)
    # Measured: all choices alike, propensities 0.0001 apart on average and 0.008 at most.
    assert same.mean() > 0.999
    assert apart.mean() < 0.0005
    assert apart.max() < 0.03


@pytest.mark.real_data
@pytest.mark.slow
def test_a_cold_start_stays_close(prepared: Prepared, tmp_path: Path) -> None:
    tests, encoder, vectors, components = prepared
    rng, per_arm, n_tests = np.random.default_rng(2), 100, 16
    n_content = components.basis.shape[1]
    found = list[Both]()
    with double_precision():
        prior = weight_prior(PriorScales(), with_context=False, n_content=n_content)
        groups = jnp.asarray(scale_groups(with_context=False, n_content=n_content))
        state = initial_state(prior, 1, 1)
        maintenance = Maintenance(prior, groups)
    with Engine.open(tmp_path / "cold.db", learn="manual", clock=lambda: NOW, encoder=encoder) as engine:
        for test in tests[:n_tests]:
            k = len(test.headlines)
            size = padded_size(k, CANDIDATES)
            with double_precision():
                features = design(test, vectors, components).astype(float)
                padded = jnp.asarray(np.pad(features, ((0, size - k), (0, 0))))
                arms, campaign = jnp.arange(size), jnp.zeros(size, int)
                grown = grow(state, size, 1)
                logits = jax.jit(predict)(grown, padded, arms, campaign)
            world = Problems(jnp.zeros(size), arms < k, logits, jnp.asarray(0.02))
            last: list[LogitState] = []
            found += _play_both(engine, test, world, rng, per_arm, refits=False, last=last)
            with double_precision():
                sites, counts = last[-1].sites, last[-1].counts
                rows = Rows(padded, arms, campaign, counts.impressions, jnp.zeros(size))
                taught = Taught(features, *(np.asarray(leaf)[None, :k] for leaf in counts))
                states = jax.tree.map(lambda leaf: leaf[None], closed(jax.jit(absorb)(grown, rows, sites)))
                states = maintenance.after(states, taught, k * per_arm // BATCH, BATCH)
                state = jax.tree.map(lambda leaf: leaf[0], states)
        n_steps = replica_of(engine).step
        arm_scale = float(replica_of(engine).view.state.prior.arm_scale)
    assert n_steps == maintenance.step
    assert arm_scale == pytest.approx(float(state.prior.arm_scale), rel=0.01)
    same, apart = (np.concatenate([getattr(batch, name) for batch in found]) for name in Both._fields)
    # Measured: 98.5 % of the choices alike, propensities 0.014 apart on average.
    assert same.mean() > 0.97
    assert apart.mean() < 0.025


class Both(NamedTuple):
    """A batch that both decided: whether they chose alike, and the largest difference of a propensity."""

    is_same: np.ndarray
    apart: np.ndarray


def _play_both(
    engine: Engine,
    test: PastTest,
    world: Problems,
    rng: np.random.Generator,
    per_arm: int,
    *,
    refits: bool = True,
    last: list[LogitState] | None = None,
) -> Iterator[Both]:
    """Play one test both ways; both learn from what the engine showed. `last` is told each belief."""
    n_arms = len(test.headlines)
    engine.add_campaign(test.test_id, horizon=n_arms * per_arm, attribution_window=0)
    engine.add_creatives(
        test.test_id, [Creative(f"{i:02d}", headline=text) for i, text in enumerate(test.headlines)]
    )
    # The engine pads to the same number of arms, so both draw on the same points.
    size = padded_size(n_arms, CANDIDATES)
    with double_precision():
        prior = Gaussian(world.prior.mean[:size], world.prior.covariance[:size, :size])
        horizon = float(n_arms * per_arm)
        request = Request(jnp.zeros((size, 0)), world.eligible[:size])
        belief = engine_on_logits(prior, horizon).start
    for first in range(0, n_arms * per_arm, BATCH):
        ids = [f"{test.test_id}-{first + i}" for i in range(BATCH)]
        decisions = engine.select_many([EngineRequest(campaign=test.test_id, decision_id=i) for i in ids])
        with double_precision():
            choice = _choose(prior, horizon, belief, request, uniforms_of_ids(ids, 0))
        shown = np.array([int(decision.creative_id) for decision in decisions])
        given = np.array([list(decision.propensities.values()) for decision in decisions])
        yield Both(
            shown == np.asarray(choice.chosen),
            np.abs(given - np.asarray(choice.propensities)[:, :n_arms]).max(axis=1),
        )
        clicks = rng.random(BATCH) < test.truth[shown]
        engine.update_many([Outcome(decision_id=i, click=bool(c)) for i, c in zip(ids, clicks, strict=True)])
        assert engine.settle().learnt == BATCH
        with double_precision():
            seen = Outcomes(jnp.zeros((BATCH, 0)), jnp.asarray(shown), jnp.asarray(clicks, float))
            belief = _learn(prior, horizon, belief, seen, refits)
        if last is not None:
            last.append(belief)


@jax.jit
def _choose(
    prior: Gaussian, horizon: float, belief: LogitState, request: Request, uniforms: Uniforms
) -> Choice:
    choose = engine_on_logits(prior, horizon).choose
    return jax.vmap(choose, in_axes=(None, None, 0))(belief, request, uniforms)


@partial(jax.jit, static_argnames="refits")
def _learn(prior: Gaussian, horizon: float, belief: LogitState, seen: Outcomes, refits: bool) -> LogitState:
    after: LogitState = engine_on_logits(prior, horizon, refits=refits).learn(belief, seen)
    return after
