"""Compiled play against the same play written step by step in NumPy, and what is made of its results."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bandit.features.content_pca import Components
from bandit.features.design import N_CONTENT
from bandit.posterior import Gaussian
from simulations.errors import ArchiveError, PolicyError
from simulations.experiments.archive import BATCHES, CHUNK, N_SEEDS, Played, play_archive, prepared, scored
from simulations.experiments.archive_tuning import TUNED
from simulations.policies.base import Problems
from simulations.policies.registry import GRID_SIZE, ON_LOGITS, grid_of, numbers_of
from simulations.policies.settings import (
    ARCHIVE_SETTINGS,
    ENGINE_SETTINGS,
    PolicySetting,
    engine_setting,
    setting,
)
from simulations.worlds.archive import PastTest
from tests.bandit.posterior.dense import Dense, learn_in_weight_space

N_TESTS, N_ARMS, PER_ARM = 20, 4, 100
BATCH = BATCHES[PER_ARM]
GREEDY = engine_setting(policy="greedy", kappa=0, uniform=0)
UCB1 = setting("ucb1", scale=0.2)

Group = tuple[np.ndarray, Problems]


@pytest.fixture(scope="module")
def group(double_precision: None) -> Group:
    """Tests of 2 to 4 headlines in an order of their own, in more runs than are compiled together."""
    assert N_TESTS * N_SEEDS > CHUNK
    random = np.random.default_rng(0)
    n_arms = np.sort(random.integers(2, N_ARMS + 1, N_TESTS))
    eligible = np.arange(N_ARMS) < n_arms[:, None]
    # Rates far above an ad's, so that clicks decide within a hundred impressions.
    truth = np.where(eligible, random.uniform(0.05, 0.4, (N_TESTS, N_ARMS)), 0.0)
    factor = random.normal(size=(N_TESTS, N_ARMS, N_ARMS)) / 3
    covariance = factor @ factor.swapaxes(1, 2) + 0.3 * np.eye(N_ARMS)
    prior = Gaussian(*map(jnp.asarray, (random.normal(-1.5, 0.3, (N_TESTS, N_ARMS)), covariance)))
    rates = jnp.full(N_TESTS, 0.2)
    return random.permutation(N_TESTS), Problems(jnp.asarray(truth), jnp.asarray(eligible), prior, rates)


@jax.jit
def uniforms(test: int, seed: int) -> jax.Array:
    """Return the uniform numbers that decide each impression's click, [batches, BATCH]."""

    def of_batch(number: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(PER_ARM), test), seed)
        _, key_play = jax.random.split(jax.random.fold_in(key, number))
        _, key_clicks = jax.random.split(key_play)
        return jax.random.uniform(key_clicks, (BATCH,), float)

    return jax.vmap(of_batch)(jnp.arange(N_ARMS * PER_ARM // BATCH))


def play_by_hand(
    truth: np.ndarray, numbers: np.ndarray, best_arm: Callable[[np.ndarray, np.ndarray], int]
) -> float:
    """Play one run of a policy that keeps to one arm during a batch; return its expected clicks."""
    history: list[tuple[np.ndarray, np.ndarray]] = []
    earned = 0.0
    for batch in numbers:
        arm = best_arm(np.array([n for n, _ in history]), np.array([c for _, c in history]))
        impressions, clicks = np.zeros((2, len(truth)))
        impressions[arm], clicks[arm] = BATCH, (batch < truth[arm]).sum()
        history.append((impressions, clicks))
        earned += BATCH * truth[arm]
    return earned


def ucb1_arm(scale: float, n_arms: int) -> Callable[[np.ndarray, np.ndarray], int]:
    def best(impressions: np.ndarray, clicks: np.ndarray) -> int:
        n, c = (values.reshape(-1, n_arms).sum(axis=0) for values in (impressions, clicks))
        if (n == 0).any():
            return int(np.argmax(n == 0))
        return int(np.argmax(c / n + scale * np.sqrt(2 * np.log(n.sum()) / n)))

    return best


def greedy_arm(mean: np.ndarray, covariance: np.ndarray) -> Callable[[np.ndarray, np.ndarray], int]:
    def best(impressions: np.ndarray, clicks: np.ndarray) -> int:
        precision = np.linalg.inv(covariance)
        belief = Dense(precision, precision @ mean)
        for n, c in zip(impressions, clicks, strict=True):
            belief, _, _ = learn_in_weight_space(belief, np.eye(len(mean)), n, c, tolerance=0.02, passes=8)
        return int(np.argmax(belief.mean))

    return best


@pytest.mark.parametrize("policy", [UCB1, GREEDY], ids=lambda s: s.policy)
def test_play_is_that_of_a_slow_loop(group: Group, policy: PolicySetting) -> None:
    members, problems = group
    played = play_archive([group], policy, PER_ARM)
    for place in (0, 7, 12, 19):  # in both chunks, with two, three and four arms
        k = int(problems.eligible[place].sum())
        truth = np.asarray(problems.truth[place, :k])
        prior = (problems.prior.mean[place, :k], problems.prior.covariance[place, :k, :k])
        best = greedy_arm(*map(np.asarray, prior)) if policy is GREEDY else ucb1_arm(0.2, k)
        by_hand = [
            play_by_hand(truth, np.asarray(uniforms(members[place], seed))[: k * PER_ARM // BATCH], best)
            for seed in range(N_SEEDS)
        ]
        assert played.earned[members[place]] == pytest.approx(np.mean(by_hand), rel=1e-12)


def test_bounds_are_exact_and_no_run_counts_twice(group: Group) -> None:
    members, problems = group
    finished: list[int] = []
    played = play_archive([group], GREEDY, PER_ARM, finished.append)
    assert sum(finished) == N_TESTS * N_SEEDS
    for place, member in enumerate(members):
        truth = np.asarray(problems.truth[place])[np.asarray(problems.eligible[place])]
        assert played.best[member] == pytest.approx(len(truth) * PER_ARM * truth.max(), rel=1e-12)
        assert played.uniform[member] == pytest.approx(len(truth) * PER_ARM * truth.mean(), rel=1e-12)
    assert (played.earned <= played.best + 1e-9).all()


def test_engine_earns_more_than_uniform_and_its_horizon_matters(group: Group) -> None:
    # One program for all three: the settings are numbers in it.
    engine, plain, greedy = (play_archive([group], one, PER_ARM) for one in ENGINE_SETTINGS)
    again = play_archive([group], ENGINE_SETTINGS[0], PER_ARM)
    np.testing.assert_array_equal(engine.earned, again.earned)
    assert engine.uniform.sum() < plain.earned.sum() < engine.earned.sum() < engine.best.sum()
    assert not np.array_equal(engine.earned, greedy.earned)
    np.testing.assert_array_equal(engine.best, plain.best)


def some_played(seed: int, n: int = 50) -> Played:
    random = np.random.default_rng(seed)
    uniform = np.linspace(10, 60, n)
    best = uniform * 1.5
    return Played(uniform + (best - uniform) * random.uniform(0, 1, n), best, uniform)


def test_scores_are_shares_of_the_oracles_lift() -> None:
    engine, other = some_played(1), some_played(2)
    first, second = ENGINE_SETTINGS[:2]
    rows = {row.policy: row for row in scored({first: engine, second: other}, 400, "all")}
    assert list(rows) == ["engine", "plain-thompson", "uniform", "oracle"]
    lift = (engine.best - engine.uniform).sum()
    for name, earned in (("engine", engine.earned), ("plain-thompson", other.earned)):
        share = (earned - engine.uniform).sum() / lift
        assert rows[name].share_of_lift == pytest.approx(share)
        assert rows[name].clicks == pytest.approx(earned.sum())
        assert rows[name].behind_engine == pytest.approx(rows["engine"].share_of_lift - share)
    assert (rows["uniform"].share_of_lift, rows["uniform"].standard_error) == (0, 0)
    assert (rows["oracle"].share_of_lift, rows["oracle"].standard_error) == pytest.approx((1, 0))
    assert (rows["engine"].behind_engine, rows["engine"].behind_engine_error) == (0, 0)
    assert rows["oracle"].clicks == pytest.approx(engine.best.sum())
    assert {(row.per_arm, row.weeks, row.tests) for row in rows.values()} == {(400, "all", 50)}


def test_standard_errors_are_those_of_a_ratio_of_sums_and_differences_are_paired() -> None:
    engine = some_played(1)
    lift = engine.best - engine.uniform
    # A baseline that is behind by a tenth of the lift in every test: sure, whatever the tests.
    baseline = engine._replace(earned=engine.earned - 0.1 * lift)
    outcomes = {ENGINE_SETTINGS[0]: engine, ENGINE_SETTINGS[2]: baseline}
    rows = {row.policy: row for row in scored(outcomes, 100, "all", n_bootstrap=4_000)}
    gain = engine.earned - engine.uniform
    residual = gain - gain.sum() / lift.sum() * lift
    delta_method = np.sqrt((residual**2).sum()) / lift.sum()
    assert rows["engine"].standard_error == pytest.approx(delta_method, rel=0.1)
    assert rows["greedy"].behind_engine == pytest.approx(0.1)
    assert rows["greedy"].behind_engine_error == pytest.approx(0, abs=1e-12)
    assert rows["greedy"].standard_error == pytest.approx(rows["engine"].standard_error, rel=1e-6)


def test_settings_name_what_differs() -> None:
    assert GREEDY.setting_id == "kappa=0 uniform=0 endless=0 optimism=1.5 noise=0.4"
    assert setting("bayes-ucb", scale=0.25, power=5).setting_id == "scale=0.25 power=5"
    assert setting("engine", label="without text", kappa=0.3).setting_id == "without text kappa=0.3"
    assert setting("beta-thompson").setting_id == "-"


@pytest.mark.parametrize("policy", TUNED)
def test_baselines_are_tuned_by_the_same_budget_and_play_what_was_chosen(policy: str) -> None:
    tried = grid_of(policy, ON_LOGITS)
    assert len({one.setting_id for one in tried}) == len(tried) == GRID_SIZE
    assert ARCHIVE_SETTINGS[policy] in tried


def test_every_setting_names_all_numbers_that_its_policy_reads() -> None:
    assert set(ARCHIVE_SETTINGS) == set(ON_LOGITS)
    for name, one in ARCHIVE_SETTINGS.items():
        assert {*numbers_of(one, ON_LOGITS)} == {*ON_LOGITS[name].reads}, name
    with pytest.raises(PolicyError, match="ucb1 does not read kappa: its numbers are scale"):
        play_archive([], setting("ucb1", scale=0.1, kappa=1), PER_ARM)


VECTORS = {str(i): np.random.default_rng(i).normal(size=70).astype(np.float32) / 9 for i in range(200)}
COMPONENTS = Components(np.zeros(70, np.float32), np.eye(70, N_CONTENT, dtype=np.float32))


def a_test(test_id: str, first: int, n: int, week: int = 201501) -> PastTest:
    headlines = tuple(str(first + i) for i in range(n))
    return PastTest(test_id, week, headlines, np.full(n, 1000.0), np.full(n, 20.0))


@pytest.mark.usefixtures("double_precision")
def test_prepared_tests_are_grouped_by_their_padded_size() -> None:
    sizes = [2, 2, 2, 2, 5, 3, 4, 2, 7, 2]
    tests = [a_test(f"t{i}", 10 * i, n) for i, n in enumerate(sizes)]
    played, groups = prepared(tests, "score", "all", VECTORS, COMPONENTS)
    assert [len(test.headlines) for test in played] == [5, 3, 4, 2, 7, 2]
    assert [problems.truth.shape for _, problems in groups] == [(4, 4), (2, 8)]
    assert sorted(np.concatenate([members for members, _ in groups])) == list(range(6))
    for members, problems in groups:
        # Runs of like length together: a compiled loop takes as long as its longest.
        assert [int(n) for n in problems.eligible.sum(axis=1)] == sorted(
            len(played[i].headlines) for i in members
        )
        for place, member in enumerate(members):
            known = np.asarray(problems.eligible[place])
            np.testing.assert_array_equal(np.asarray(problems.truth[place])[known], played[member].truth)


@pytest.mark.usefixtures("double_precision")
def test_faulty_weeks_are_left_out_of_history_and_play() -> None:
    # The faulty test of the history clicked always: had it been learnt, all would be expected to.
    tests = [a_test(f"t{i}", 10 * i, 2, week=201401 if i in (1, 7) else 201501) for i in range(12)]
    tests[1] = tests[1]._replace(impressions=np.full(2, 1e6), clicks=np.full(2, 1e6))
    sound, ((_, problems),) = prepared(tests, "score", "sound", VECTORS, COMPONENTS)
    assert [test.test_id for test in sound] == ["t5", "t6", "t8", "t9", "t10", "t11"]
    assert (np.asarray(problems.prior.mean)[np.asarray(problems.eligible)] < -3).all()
    with pytest.raises(ArchiveError, match=r"weeks sound: of 12 tests, 0 are history and 0 later ones"):
        prepared([test._replace(week=201350) for test in tests], "score", "sound", VECTORS, COMPONENTS)


def test_what_cannot_be_played_is_refused() -> None:
    alone = [a_test(f"t{i}", 10 * i, 1) for i in range(10)]
    with pytest.raises(ArchiveError, match=r"weeks all: of 10 tests, 4 are history and 0 later ones"):
        prepared(alone, "score", "all", VECTORS, COMPONENTS)
    with pytest.raises(ArchiveError, match=r"test 'big': expected at most 64 headlines, got 65"):
        prepared([*alone, a_test("big", 100, 65)], "score", "all", VECTORS, COMPONENTS)
