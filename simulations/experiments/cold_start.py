"""Cold start: an engine without any history plays all tests of an archive in order and learns across them.

What a finished test taught stays in the weights: its arms and its campaign's effect are eliminated exactly,
so the state never grows. Steps that the engine takes between batches are taken at the end of the test in
which they fall due; effects' scales are learnt by refits only, which know the arms that are gone.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from bandit.features.content_pca import Components
from bandit.features.design import PriorScales, scale_groups, weight_prior
from bandit.learning.schedule import LAST_REFIT, SCALES_EVERY, is_refit_due
from bandit.posterior import (
    Prior,
    Rows,
    State,
    absorb,
    grow,
    initial_state,
    learn_weight_scales,
    predict,
    refit,
    rescale_weights,
)
from simulations.experiments.archive import BATCHES, N_SEEDS, Played, padded_size
from simulations.loop import Step, Traffic, play_total
from simulations.policies.base import Counts, Request
from simulations.policies.engine import engine_on_logits
from simulations.worlds.archive import PastTest, design, split


def closed(state: State) -> State:
    """Return what a state knows of its weights, with one arm and one campaign, both new; exact.

    Eliminated arms and campaigns are in the reduced equations, which become the weights' own.
    """
    return initial_state(state.prior, 1, 1)._replace(
        precision=state.reduced_precision,
        information=state.reduced_information,
        reduced_precision=state.reduced_precision,
        reduced_information=state.reduced_information,
        factor=state.factor,
        weights=state.weights,
    )


class Contest(NamedTuple):
    """One test to play, padded.

    Attributes:
        truth: click rates, 0 for padding.
        eligible: False for padding.
        features: design rows φ.
    """

    truth: Float[Array, "arms"]
    eligible: Bool[Array, "arms"]
    features: Float[Array, "arms dim"]


def play_test(
    state: State, contest: Contest, per_arm: Array, batch: int, key: Array
) -> tuple[State, Step, Counts]:
    """Play one test as a new campaign of new arms, and keep what it taught.

    Args:
        state: what the weights know; its one arm and its one campaign are new.
        contest: the test.
        per_arm: T, impressions per headline.
        batch: impressions between two updates.
        key: all randomness of the test.

    Returns:
        The state after, with a new arm and campaign again, what the test earned, and its arms' counts.
    """
    size = contest.truth.shape[0]
    arms, campaign = jnp.arange(size), jnp.zeros(size, int)
    state = grow(state, size, 1)
    prior = predict(state, contest.features, arms, campaign)
    n_arms = contest.eligible.sum()
    engine = engine_on_logits(prior, (n_arms * per_arm).astype(float), refits=False)
    request = Request(jnp.zeros((1, size, 0)), contest.eligible[None])
    traffic = Traffic(request, contest.truth[None], batch)
    n_batches = n_arms * per_arm // batch
    last, step = play_total(engine, lambda *_: traffic, n_batches, key)
    shown = jnp.where(contest.eligible, step.shown, 0.0)
    rows = Rows(contest.features, arms, campaign, shown, jnp.zeros(size))
    return closed(absorb(state, rows, last.sites)), step, last.counts


class Taught(NamedTuple):
    """What one finished test taught, over all seeds."""

    features: Float[np.ndarray, "arms dim"]
    shown: Float[np.ndarray, "seeds arms"]
    clicks: Float[np.ndarray, "seeds arms"]


class Maintenance:
    """The steps that the engine takes between batches, by its own schedule: scales are learnt, and refits.

    Args:
        prior: before any data.
        groups: which weights share a scale that is learnt; None where no scale is.

    Attributes:
        step: steps of the engine's log so far.
    """

    def __init__(self, prior: Prior, groups: Array | None) -> None:
        self._prior, self._groups = prior, groups
        self.step = self._learnt = self._at_refit = 0
        self._taught: list[Taught] = []

    def after(self, states: State, test: Taught, n_batches: int, batch: int) -> State:
        """Return the states of all seeds after what fell due in a test."""
        n_scales = 0
        for _ in range(n_batches):
            is_due = (self.step + 1) % SCALES_EVERY == 0
            n_scales += is_due
            self.step += 1 + is_due
        self._learnt += n_batches * batch
        if 2 * self._at_refit <= LAST_REFIT:
            self._taught.append(test)
        if is_refit_due(self._learnt, self._at_refit):
            self.step, self._at_refit = self.step + 1, self._learnt
            return self._refit()
        if self._groups is not None:
            for _ in range(n_scales):
                states = _learn_scales(states, self._prior, self._groups)
        return states

    def _refit(self) -> State:
        n_rows = sum(len(test.features) for test in self._taught)
        padding = (1 << (n_rows - 1).bit_length()) - n_rows  # few sizes, for each has a program of its own
        campaign = np.repeat(np.arange(len(self._taught)), [len(test.features) for test in self._taught])
        features, shown, clicks = zip(*self._taught, strict=True)
        return _refitted(
            self._prior,
            self._groups,
            np.pad(np.concatenate(features), ((0, padding), (0, 0))),
            np.pad(campaign, (0, padding)),
            np.pad(np.concatenate(shown, axis=1), ((0, 0), (0, padding))),
            np.pad(np.concatenate(clicks, axis=1), ((0, 0), (0, padding))),
        )


def play_cold(
    tests: list[PastTest],
    vectors: Mapping[str, np.ndarray],
    components: Components,
    part: str,
    is_learning_scales: bool,
    per_arm: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Played:
    """Play all tests in order from no history at all, over all seeds.

    Args:
        tests: all tests in order.
        vectors: embedding of each headline.
        components: the content components.
        part: which tests are scored, the last to be played: "score" or "tune", see `replay.split`.
        is_learning_scales: whether the prior's scales are learnt on the way.
        per_arm: T, a key of `BATCHES`.
        advance: told the number of finished runs of scored tests now and then.

    Returns:
        Expected clicks of the scored tests, in the order of `replay.split`; a test is met with the same
        uniform numbers as by the other policies.
    """
    before, scored = split(tests, part)
    history = [test for test in before if len(test.headlines) > 1]
    prior = weight_prior(PriorScales(), with_context=False, n_content=components.basis.shape[1])
    groups = jnp.asarray(scale_groups(with_context=False, n_content=components.basis.shape[1]))
    alone = initial_state(prior, 1, 1)
    states = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (N_SEEDS, *leaf.shape)), alone)
    maintenance = Maintenance(prior, groups if is_learning_scales else None)
    batch = BATCHES[per_arm]
    earned: list[tuple[float, ...]] = []
    for number, test in enumerate(history + scored):
        place = number - len(history)
        k, size = len(test.headlines), padded_size(test)
        features = design(test, vectors, components).astype(float)
        padding = size - k
        contest = Contest(
            jnp.asarray(np.pad(test.truth, (0, padding))),
            jnp.asarray(np.arange(size) < k),
            jnp.asarray(np.pad(features, ((0, padding), (0, 0)))),
        )
        # Tests before the scored ones have uniform numbers of their own.
        index = place if place >= 0 else len(tests) + number
        states, step, counts = _compiled(batch)(states, contest, jnp.asarray(per_arm), index)
        taught = Taught(features, *(np.asarray(leaf)[:, :k] for leaf in counts))
        states = maintenance.after(states, taught, k * per_arm // batch, batch)
        if place >= 0:
            earned.append(tuple(float(np.mean(leaf)) for leaf in (step.earned, step.best, step.uniform)))
            advance(N_SEEDS)
    return Played(*np.asarray(earned).T)


@cache
def _compiled(batch: int) -> Callable[..., tuple[State, Step, Counts]]:
    def one(
        state: State, contest: Contest, per_arm: Array, test: Array, seed: Array
    ) -> tuple[State, Step, Counts]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(per_arm), test), seed)
        return play_test(state, contest, per_arm, batch, key)

    def all_seeds(states: State, contest: Contest, per_arm: Array, test: Array) -> tuple[State, Step, Counts]:
        played = jax.vmap(one, in_axes=(0, None, None, None, 0))
        return played(states, contest, per_arm, test, jnp.arange(N_SEEDS))

    return jax.jit(all_seeds)


@jax.jit
def _learn_scales(states: State, initial: Prior, groups: Array) -> State:
    def one(state: State) -> State:
        return rescale_weights(state, learn_weight_scales(state, initial, groups))

    return jax.vmap(one)(states)


@jax.jit
def _refitted(
    prior: Prior, groups: Array | None, features: Array, campaign: Array, shown: Array, clicks: Array
) -> State:
    def one(shown: Array, clicks: Array) -> State:
        arms = jnp.arange(len(campaign))
        rows = Rows(features, arms, campaign, shown, clicks)
        return closed(refit(prior, rows, campaign, len(campaign), groups)[0])

    return jax.vmap(one)(shown, clicks)
