"""Playing an archive of A/B tests by the protocol of `worlds.archive`; the share of the lift that is got."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from bandit.features.content_pca import Components
from bandit.features.design import PriorScales
from bandit.jax_runtime import double_precision, keep_compiled_programs
from simulations.errors import ArchiveError
from simulations.loop import Step, Traffic, play_total
from simulations.policies.base import Problems, Request
from simulations.policies.registry import ON_LOGITS, Campaign, Numbers, numbers_of, program_of
from simulations.policies.settings import PolicySetting
from simulations.sweep import HERE, Arrays, Workers, code_digest, run_cells
from simulations.worlds.archive import PastTest, archive_prior, click_rate, problems, split

BATCHES = {100: 20, 400: 50, 1000: 100}  # impressions per arm -> impressions between two updates
N_SEEDS = 6
CHUNK = 96  # runs compiled together: more do not fit the cache
PADDED_ARMS = (4, 8, 16, 32, 64)
Groups = list[tuple[np.ndarray, Problems]]  # from `prepared`


class Played(NamedTuple):
    """Expected clicks of every test, mean over seeds, [tests] each."""

    earned: Float[np.ndarray, "tests"]
    best: Float[np.ndarray, "tests"]
    uniform: Float[np.ndarray, "tests"]


def prepared(
    tests: list[PastTest],
    part: str,
    weeks: str,
    vectors: Mapping[str, np.ndarray],
    components: Components,
    scales: PriorScales | None = None,
) -> tuple[list[PastTest], list[tuple[np.ndarray, Problems]]]:
    """Fit the prior on the history and group the played tests by their padded number of arms.

    Args:
        tests: All tests in order.
        part: "tune" or "score", see `replay.split`.
        weeks: "all", or "sound" to leave out the weeks of faulty randomisation, in history and play.
        vectors: Embedding of each headline.
        components: The content components.
        scales: Prior scales before the history; None means the defaults.

    Returns:
        The played tests, and per group the indices of its tests and their problems.

    Raises:
        ArchiveError: nothing is left to learn from or to play, or a test has too many headlines.
    """
    history, played = split(tests, part)
    if weeks == "sound":
        history, played = ([test for test in some if not test.is_faulty] for some in (history, played))
    if not history or not played:
        raise ArchiveError(
            f"weeks {weeks}: of {len(tests)} tests, {len(history)} are history and {len(played)} later ones "
            "have two headlines that are new; at least one of each is needed"
        )
    sizes = np.array([padded_size(test) for test in played])
    state = archive_prior(history, vectors, components, scales or PriorScales())
    rate = click_rate(history)
    groups = []
    for size in np.unique(sizes):
        members = np.flatnonzero(sizes == size)
        members = members[np.argsort([len(played[i].headlines) for i in members], kind="stable")]
        groups.append(
            (members, problems([played[i] for i in members], state, vectors, components, int(size), rate))
        )
    return played, groups


def padded_size(test: PastTest) -> int:
    """Return the number of arms that a test is padded to.

    Raises:
        ArchiveError: it has too many headlines.
    """
    n_arms = len(test.headlines)
    if n_arms > PADDED_ARMS[-1]:
        raise ArchiveError(
            f"test {test.test_id!r}: expected at most {PADDED_ARMS[-1]} headlines, got {n_arms}; "
            "split it or leave it out"
        )
    return next(size for size in PADDED_ARMS if size >= n_arms)


def play_archive(
    groups: list[tuple[np.ndarray, Problems]],
    setting: PolicySetting,
    per_arm: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Played:
    """Let one policy play all tests for K·T impressions each, over all seeds.

    Args:
        groups: from `prepared`.
        setting: the policy.
        per_arm: T, a key of `BATCHES`.
        advance: told the number of finished runs (tests × seeds) now and then.

    Returns:
        Expected clicks per test.
    """
    n_tests = sum(len(members) for members, _ in groups)
    totals = np.zeros((3, n_tests))
    batch = BATCHES[per_arm]
    numbers = numbers_of(setting, ON_LOGITS)
    for members, group in groups:
        run = _compiled(program_of(setting.policy), batch)
        runs = np.repeat(np.arange(len(members)), N_SEEDS)
        seeds = np.tile(np.arange(N_SEEDS), len(members))
        for chosen in _chunks(len(runs)):
            index = runs[chosen]
            chunk = jax.tree.map(lambda leaf, index=index: leaf[index], group)
            step = run(numbers, per_arm, chunk, jnp.asarray(members[index]), jnp.asarray(seeds[chosen]))
            fresh = _is_first(chosen)
            for row, values in enumerate((step.earned, step.best, step.uniform)):
                np.add.at(totals[row], members[index][fresh], np.asarray(values)[fresh] / N_SEEDS)
            advance(int(fresh.sum()))
    return Played(*totals)


@cache
def _compiled(name: str, batch: int) -> Callable[..., Step]:
    def one(numbers: Numbers, per_arm: Array, problem: Problems, test: Array, seed: Array) -> Step:
        n_arms = problem.eligible.sum()
        campaign = Campaign(problem.prior, problem.past_rate, (n_arms * per_arm).astype(float))
        policy = ON_LOGITS[name].make(campaign, numbers)
        request = Request(jnp.zeros((1, problem.truth.shape[0], 0)), problem.eligible[None])
        traffic = Traffic(request, problem.truth[None], batch)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(per_arm), test), seed)
        return play_total(policy, lambda *_: traffic, n_arms * per_arm // batch, key)[1]

    return jax.jit(jax.vmap(one, in_axes=(None, None, 0, 0, 0)))


def _chunks(n_runs: int) -> Iterator[np.ndarray]:
    """Yield index arrays of one length; the last repeats its first run to fill up."""
    for start in range(0, n_runs, CHUNK):
        index = np.arange(start, min(start + CHUNK, n_runs))
        yield np.pad(index, (0, CHUNK - len(index)), constant_values=start)


def _is_first(index: np.ndarray) -> np.ndarray:
    """Return False for the repeats that fill up a chunk."""
    return np.r_[True, index[1:] != index[0]]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A row of results: one policy at one T.

    Attributes:
        policy: its name.
        setting: its settings.
        per_arm: T, impressions per headline.
        weeks: "all", or "sound" without the weeks of faulty randomisation, in history and play.
        tests: how many were played.
        clicks: expected clicks, mean over seeds.
        share_of_lift: (clicks − uniform's) / (oracle's − uniform's), a fraction.
        standard_error: of the share, by bootstrap over tests.
        behind_engine: the engine's share minus this one's.
        behind_engine_error: standard error of that difference, paired over tests.
    """

    policy: str
    setting: str
    per_arm: int
    weeks: str
    tests: int
    clicks: float
    share_of_lift: float
    standard_error: float
    behind_engine: float
    behind_engine_error: float


def scored(
    outcomes: Mapping[PolicySetting, Played], per_arm: int, weeks: str, n_bootstrap: int = 1000
) -> list[Score]:
    """Return the scores of all policies at one T, with paired differences from the first one.

    Args:
        outcomes: per setting, the engine first.
        per_arm: T.
        weeks: which tests were used, for the rows.
        n_bootstrap: resamples of tests.
    """
    reference = next(iter(outcomes.values()))
    n_tests = len(reference.earned)
    resamples = np.random.default_rng(per_arm).multinomial(
        n_tests, np.full(n_tests, 1 / n_tests), n_bootstrap
    )
    weights = np.vstack([np.ones(n_tests), resamples])

    def shares(earned: np.ndarray) -> np.ndarray:
        lift = weights @ (reference.best - reference.uniform)
        return np.asarray(weights @ (earned - reference.uniform) / lift)

    engine = shares(reference.earned)

    def score(policy: str, setting: str, earned: np.ndarray) -> Score:
        share = shares(earned)
        behind = engine - share
        return Score(
            policy=policy,
            setting=setting,
            per_arm=per_arm,
            weeks=weeks,
            tests=n_tests,
            clicks=float(earned.sum()),
            share_of_lift=float(share[0]),
            standard_error=float(share[1:].std(ddof=1)),
            behind_engine=float(behind[0]),
            behind_engine_error=float(behind[1:].std(ddof=1)),
        )

    rows = [score(setting.policy, setting.setting_id, played.earned) for setting, played in outcomes.items()]
    bounds = [score("uniform", "-", reference.uniform), score("oracle", "-", reference.best)]
    return rows + bounds


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One policy at one T.

    Attributes:
        groups: the tests, with the beliefs that they start from.
        setting: the policy.
        per_arm: T, impressions per headline.
    """

    groups: Groups
    setting: PolicySetting
    per_arm: int

    @property
    def identity(self) -> Mapping[str, object]:
        """All that its numbers depend on."""
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(self.groups):
            array = np.asarray(leaf)
            digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
        return {
            "tests": digest.hexdigest(),
            "policy": self.setting.policy,
            "setting": asdict(self.setting),
            "per_arm": self.per_arm,
            "jax": jax.__version__,
            "code": code_digest(),
        }


def play_cell(cell: Cell) -> Arrays:
    """Play one cell; its arrays are those of an `archive.Played`."""
    keep_compiled_programs()
    with double_precision():
        return play_archive(cell.groups, cell.setting, cell.per_arm)._asdict()


def play_cells(
    cells: Sequence[Cell],
    *,
    workers: Workers = HERE,
    kept: Path | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Played]:
    """Play cells, or read what an earlier call has finished; arguments and errors as in `cells.run_cells`."""
    # Arrays of this process's device cannot be sent to another.
    sent = [
        Cell(groups=jax.tree.map(np.asarray, cell.groups), setting=cell.setting, per_arm=cell.per_arm)
        for cell in cells
    ]
    found = run_cells(play_cell, sent, workers=workers, kept=kept, advance=advance)
    return [Played(**arrays) for arrays in found]
