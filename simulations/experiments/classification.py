"""Policies on tables with labels: the loop, compiled, over orders of the rows."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from bandit.features.design import PriorScales
from bandit.jax_runtime import double_precision
from bandit.learning.schedule import SCALES_EVERY
from bandit.policy.quasi_random import normal_points
from bandit.policy.thompson import KAPPA, UNIFORM_SHARE
from bandit.posterior import Prior, initial_state, learn_scales
from simulations.errors import unknown
from simulations.loop import Step, Traffic, play, steady
from simulations.policies.base import (
    ContextualState,
    Outcomes,
    Policy,
    Request,
    beta_thompson,
    thompson_on_weights,
    ucb1,
    uniform,
)
from simulations.policies.linear import disjoint_basis, epsilon_greedy, lin_ts, lin_ucb
from simulations.policies.logistic import logistic_ts
from simulations.policies.rivals import RivalNumbers, RivalSetting
from simulations.reports.scores import Played, played_of
from simulations.worlds.labelled import LabelError, Labelled


class Shape(NamedTuple):
    """What a policy is told of the table: its labels, the length of x̃, the rows to come, and a batch's."""

    n_arms: int
    n_slots: int
    horizon: int
    batch: int


def design_rows(context: Float[Array, "slots"], n_arms: int) -> Float[Array, "arms dim"]:
    """Return φ of every arm: x̃, which all share, then x̃ in the arm's own place."""
    own = jnp.einsum("ab,s->abs", jnp.eye(n_arms), context).reshape(n_arms, -1)
    return jnp.concatenate([jnp.broadcast_to(context, (n_arms, len(context))), own], axis=1)


def engine(numbers: RivalNumbers, shape: Shape) -> Policy:
    """Return the engine's posterior and draw on φ, its prior centred on a label in n_arms.

    Weights that all labels share have the prior scale of contexts, a label's own that of interactions; both
    are learnt as the engine learns them.
    """
    scales = PriorScales()
    parts = np.array([1, shape.n_slots - 1, shape.n_arms * shape.n_slots])
    scale = np.repeat([scales.intercept, scales.context, scales.interaction], parts)
    mean = np.zeros(len(scale))
    mean[0] = -np.log(shape.n_arms - 1)
    prior = Prior(*map(jnp.asarray, (mean, scale, scales.campaign, scales.arm)))
    groups = jnp.asarray(np.repeat(np.eye(3)[:, 1:], parts, axis=0).T)
    policy = thompson_on_weights(
        "engine",
        initial_state(prior, shape.n_arms, 1),
        jnp.asarray(float(shape.horizon)),
        jnp.asarray(normal_points(shape.n_arms)),
        numbers.exploration,
        UNIFORM_SHARE,
    )

    def learn(state: ContextualState, outcomes: Outcomes) -> ContextualState:
        after: ContextualState = policy.learn(state, outcomes)
        posterior = jax.lax.cond(
            after.so_far % (SCALES_EVERY * shape.batch) == 0,
            lambda known: learn_scales(known, prior, groups, jnp.zeros(shape.n_arms, int)),
            lambda known: known,
            after.posterior,
        )
        return after._replace(posterior=posterior)

    return policy._replace(learn=learn)


def _linear(policy: Callable[..., Policy]) -> Callable[[RivalNumbers, Shape], Policy]:
    def make(numbers: RivalNumbers, shape: Shape) -> Policy:
        basis = disjoint_basis(shape.n_arms, shape.n_slots)
        return policy(basis, numbers.exploration, numbers.ridge, 1 / shape.n_arms)

    return make


def _logistic(numbers: RivalNumbers, shape: Shape) -> Policy:
    return logistic_ts(
        *(shape.n_arms, numbers.exploration, numbers.ridge, 1 / shape.n_arms),
        is_diagonal=False,
        n_slots=shape.n_slots,
    )


POLICIES: Mapping[str, Callable[[RivalNumbers, Shape], Policy]] = {
    "engine": engine,
    "lin-ucb": _linear(lin_ucb),
    "lin-ts": _linear(lin_ts),
    "logistic-ts": _logistic,
    "epsilon-greedy": _linear(epsilon_greedy),
    "beta-thompson": lambda numbers, shape: beta_thompson(shape.n_arms),
    "ucb1": lambda numbers, shape: ucb1(shape.n_arms, numbers.exploration),
    "uniform": lambda numbers, shape: uniform(shape.n_arms),
}
# A click of probability 1/K to 1 has a standard deviation of up to ½: α and v are about half of one.
SETTINGS: Mapping[str, RivalSetting] = {
    one.policy: one
    for one in (
        RivalSetting(policy="engine", exploration=KAPPA, ridge=0),
        RivalSetting(policy="lin-ucb", exploration=0.25, ridge=1.0),
        RivalSetting(policy="lin-ts", exploration=0.25, ridge=1.0),
        RivalSetting(policy="logistic-ts", exploration=0.5, ridge=1.0),
        RivalSetting(policy="epsilon-greedy", exploration=0.05, ridge=1.0),
        RivalSetting(policy="beta-thompson", exploration=0, ridge=0),
        RivalSetting(policy="ucb1", exploration=0.5, ridge=0),
        RivalSetting(policy="uniform", exploration=0, ridge=0),
    )
}

_LINEAR = tuple(product((0.03, 0.1, 0.25, 0.5), (0.1, 1.0, 10.0, 100.0)))
_BONUSES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
# Sixteen settings for every policy that has any; the engine plays as it is shipped.
GRIDS: Mapping[str, tuple[RivalSetting, ...]] = {
    policy: tuple(RivalSetting(policy=policy, exploration=one, ridge=ridge) for one, ridge in pairs)
    for policy, pairs in {
        "lin-ucb": _LINEAR,
        "lin-ts": _LINEAR,
        "logistic-ts": tuple(product((0.1, 0.25, 0.5, 1.0), (0.1, 1.0, 10.0, 100.0))),
        "epsilon-greedy": tuple(product((0.01, 0.03, 0.05, 0.1), (0.1, 1.0, 10.0, 100.0))),
        "ucb1": tuple((bonus, 0.0) for bonus in _BONUSES),
    }.items()
}


def play_labelled(
    table: Labelled,
    setting: RivalSetting,
    impressions: int,
    *,
    seeds: Sequence[int],
    batch: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Played:
    """Let one policy play a table, each row at most once, in an order that the seed draws.

    Args:
        table: the table.
        setting: the policy.
        impressions: rows of each run, in whole batches; also the horizon that the policy is told.
        seeds: one per run; the same one gives every policy the same rows and uniform numbers.
        batch: rows between two updates.
        advance: told the number of finished runs now and then.

    Raises:
        LabelError: the policy is unknown, or there are fewer rows than impressions, or than one batch.
    """
    if setting.policy not in POLICIES:
        raise LabelError(unknown("policy", setting.policy, list(POLICIES)))
    n_rows, n_columns = table.features.shape
    if not 1 <= batch <= impressions <= n_rows:
        raise LabelError(
            f"expected 1 <= batch <= impressions <= {n_rows:,}, the rows of the table, "
            f"got batch={batch}, impressions={impressions}"
        )
    shape = Shape(len(table.labels), 1 + n_columns, impressions, batch)
    run = _compiled(setting.policy, shape)
    steps = []
    with double_precision():
        numbers = RivalNumbers(jnp.asarray(setting.exploration), jnp.asarray(setting.ridge))
        contexts = jnp.asarray(np.column_stack([np.ones(n_rows), table.features]))
        label = jnp.asarray(table.label)
        for seed in seeds:
            steps.append(jax.device_get(run(numbers, contexts, label, jax.random.key(seed))))
            advance(1)
    return played_of(setting, batch, steps, impressions // batch)


@cache
def _compiled(name: str, shape: Shape) -> Callable[..., Step]:
    def one(numbers: RivalNumbers, contexts: Array, label: Array, key: Array) -> Step:
        key_order, key_play = jax.random.split(key)
        order = jax.random.permutation(key_order, len(label))

        def traffic_at(number: Array, _: Array) -> Traffic:
            rows = jax.lax.dynamic_slice(order, (number * shape.batch,), (shape.batch,))
            features = jax.vmap(partial(design_rows, n_arms=shape.n_arms))(contexts[rows])
            eligible = jnp.ones((shape.batch, shape.n_arms), bool)
            return Traffic(
                Request(features, eligible),
                jax.nn.one_hot(label[rows], shape.n_arms, dtype=float),
                shape.batch,
            )

        policy, n_batches = POLICIES[name](numbers, shape), shape.horizon // shape.batch
        return play(policy, steady(traffic_at), n_batches, key_play)[1]

    return jax.jit(one)
