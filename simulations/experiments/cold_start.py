"""Cold start: an engine without any history plays all tests of an archive in order and learns across them.

What a finished test taught stays in the weights: its arms and its campaign's effect are eliminated exactly,
so the state never grows.
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
from bandit.policy.quasi_random import normal_points
from bandit.policy.thompson import KAPPA, UNIFORM_SHARE
from bandit.posterior import (
    Prior,
    Rows,
    Sites,
    State,
    absorb,
    find_sites,
    grow,
    initial_state,
    learn_weight_scales,
    predict,
    rescale_weights,
)
from simulations.experiments.archive import BATCHES, N_SEEDS, Played, padded_size
from simulations.loop import Step, Traffic, play_total
from simulations.policies.base import LogitState, Outcomes, Policy, Request, no_counts, thompson_on_logits
from simulations.worlds.archive import PastTest, design, split

TESTS_PER_LEARNING = 20  # tests between two steps of the weights' scales


class Learning(NamedTuple):
    """The engine's belief inside a test, and the sites of its arms so far."""

    belief: LogitState
    sites: Sites


def learning_policy(engine: Policy) -> Policy:
    """Return the engine's policy on logits, keeping what it learns for the weights."""
    n_arms = engine.start.logits.mean.shape[0]
    nothing = Sites(jnp.zeros(n_arms), jnp.zeros(n_arms))

    def learn(state: Learning, outcomes: Outcomes) -> Learning:
        counts = no_counts(n_arms).plus(outcomes)
        sites, logits, _ = find_sites(state.belief.logits, *counts)
        so_far = state.belief.so_far + outcomes.clicks.shape[0]
        return Learning(LogitState(logits, so_far), jax.tree.map(jnp.add, state.sites, sites))

    return Policy(
        engine.name,
        Learning(engine.start, nothing),
        lambda state, request, uniforms: engine.choose(state.belief, request, uniforms),
        learn,
    )


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


def play_test(state: State, contest: Contest, per_arm: Array, batch: int, key: Array) -> tuple[State, Step]:
    """Play one test as a new campaign of new arms, and keep what it taught.

    Args:
        state: what the weights know; its one arm and its one campaign are new.
        contest: the test.
        per_arm: T, impressions per headline.
        batch: impressions between two updates.
        key: all randomness of the test.

    Returns:
        The state after, with a new arm and campaign again, and what the test earned.
    """
    size = contest.truth.shape[0]
    arms, campaign = jnp.arange(size), jnp.zeros(size, int)
    state = grow(state, size, 1)
    prior = predict(state, contest.features, arms, campaign)
    n_arms = contest.eligible.sum()
    horizon, points = (n_arms * per_arm).astype(float), jnp.asarray(normal_points(size))
    engine = thompson_on_logits("engine", prior, horizon, points, KAPPA, UNIFORM_SHARE)
    request = Request(jnp.zeros((1, size, 0)), contest.eligible[None])
    traffic = Traffic(request, contest.truth[None], batch)
    n_batches = n_arms * per_arm // batch
    last, step = play_total(learning_policy(engine), lambda *_: traffic, n_batches, key)
    shown = jnp.where(contest.eligible, step.shown, 0.0)
    rows = Rows(contest.features, arms, campaign, shown, jnp.zeros(size))
    return closed(absorb(state, rows, last.sites)), step


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
        is_learning_scales: whether the weights' scales are learnt on the way.
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
    earned: list[tuple[float, ...]] = []
    for number, test in enumerate(history + scored):
        place = number - len(history)
        k, size = len(test.headlines), padded_size(test)
        padding = size - k
        contest = Contest(
            jnp.asarray(np.pad(test.truth, (0, padding))),
            jnp.asarray(np.arange(size) < k),
            jnp.asarray(np.pad(design(test, vectors, components).astype(float), ((0, padding), (0, 0)))),
        )
        # Tests before the scored ones have uniform numbers of their own.
        index = place if place >= 0 else len(tests) + number
        states, step = _compiled(BATCHES[per_arm])(states, contest, jnp.asarray(per_arm), index)
        if is_learning_scales and (number + 1) % TESTS_PER_LEARNING == 0:
            states = _learn_scales(states, alone.prior, groups)
        if place >= 0:
            earned.append(tuple(float(np.mean(leaf)) for leaf in (step.earned, step.best, step.uniform)))
            advance(N_SEEDS)
    return Played(*np.asarray(earned).T)


@cache
def _compiled(batch: int) -> Callable[..., tuple[State, Step]]:
    def one(state: State, contest: Contest, per_arm: Array, test: Array, seed: Array) -> tuple[State, Step]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(per_arm), test), seed)
        return play_test(state, contest, per_arm, batch, key)

    def all_seeds(states: State, contest: Contest, per_arm: Array, test: Array) -> tuple[State, Step]:
        played = jax.vmap(one, in_axes=(0, None, None, None, 0))
        return played(states, contest, per_arm, test, jnp.arange(N_SEEDS))

    return jax.jit(all_seeds)


@jax.jit
def _learn_scales(states: State, initial: Prior, groups: Array) -> State:
    def one(state: State) -> State:
        return rescale_weights(state, learn_weight_scales(state, initial, groups))

    return jax.vmap(one)(states)
