"""Policies on tables with labels: the loop, compiled, over orders of the rows."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bandit.jax_runtime import double_precision
from simulations.errors import unknown
from simulations.loop import Step, Traffic, play, steady
from simulations.policies.base import Request
from simulations.policies.engine import design_of_labels
from simulations.policies.registry import IN_CONTEXTS, Numbers, Shop, numbers_of, program_of
from simulations.policies.settings import PolicySetting, engine_setting, product_of, setting
from simulations.reports.scores import Played, played_of
from simulations.worlds.labelled import LabelError, Labelled


class Shape(NamedTuple):
    """What a policy is told of the table: its labels, the length of x̃, the rows to come, and a batch's."""

    n_arms: int
    n_slots: int
    horizon: int
    batch: int


# A click of probability 1/K to 1 has a standard deviation of up to ½: α and v are about half of one.
SETTINGS: Mapping[str, PolicySetting] = {
    one.policy: one
    for one in (
        engine_setting(),
        setting("lin-ucb", alpha=0.25, ridge=1),
        setting("lin-ts", scale=0.25, ridge=1),
        setting("logistic-ts", scale=0.5, ridge=1),
        setting("epsilon-greedy", epsilon=0.05, ridge=1),
        setting("beta-thompson"),
        setting("ucb1", scale=0.5),
        setting("uniform"),
    )
}

POLICIES = tuple(SETTINGS)

_SCALES, _RIDGES = (0.03, 0.1, 0.25, 0.5), (0.1, 1.0, 10.0, 100.0)
_BONUSES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
_VALUES: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "lin-ucb": {"alpha": _SCALES, "ridge": _RIDGES},
    "lin-ts": {"scale": _SCALES, "ridge": _RIDGES},
    "logistic-ts": {"scale": (0.1, 0.25, 0.5, 1.0), "ridge": _RIDGES},
    "epsilon-greedy": {"epsilon": (0.01, 0.03, 0.05, 0.1), "ridge": _RIDGES},
    "ucb1": {"scale": _BONUSES},
}
# Sixteen settings for every policy that has any; the engine plays as it is shipped.
GRIDS: Mapping[str, tuple[PolicySetting, ...]] = {
    policy: product_of(policy, values) for policy, values in _VALUES.items()
}


def play_labelled(
    table: Labelled,
    setting: PolicySetting,
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
        PolicyError: the setting has a number that the policy does not read, or lacks one.
    """
    if setting.policy not in POLICIES:
        raise LabelError(unknown("policy", setting.policy, POLICIES))
    n_rows, n_columns = table.features.shape
    if not 1 <= batch <= impressions <= n_rows:
        raise LabelError(
            f"expected 1 <= batch <= impressions <= {n_rows:,}, the rows of the table, "
            f"got batch={batch}, impressions={impressions}"
        )
    shape = Shape(len(table.labels), 1 + n_columns, impressions, batch)
    run = _compiled(program_of(setting.policy), shape)
    steps = []
    with double_precision():
        numbers = numbers_of(setting, IN_CONTEXTS)
        contexts = jnp.asarray(np.column_stack([np.ones(n_rows), table.features]))
        label = jnp.asarray(table.label)
        for seed in seeds:
            steps.append(jax.device_get(run(numbers, contexts, label, jax.random.key(seed))))
            advance(1)
    return played_of(setting, batch, steps, impressions // batch)


@cache
def _compiled(name: str, shape: Shape) -> Callable[..., Step]:
    def one(numbers: Numbers, contexts: Array, label: Array, key: Array) -> Step:
        key_order, key_play = jax.random.split(key)
        order = jax.random.permutation(key_order, len(label))
        design = design_of_labels(shape.n_arms, shape.n_slots)

        def traffic_at(number: Array, _: Array) -> Traffic:
            rows = jax.lax.dynamic_slice(order, (number * shape.batch,), (shape.batch,))
            features = jnp.einsum("ns,asd->nad", contexts[rows], design.loading)
            eligible = jnp.ones((shape.batch, shape.n_arms), bool)
            return Traffic(
                Request(features, eligible),
                jax.nn.one_hot(label[rows], shape.n_arms, dtype=float),
                shape.batch,
            )

        shop = Shop(design, float(shape.horizon), base_rate=1 / shape.n_arms, room=shape.horizon)
        policy, n_batches = IN_CONTEXTS[name].make(shop, numbers), shape.horizon // shape.batch
        return play(policy, steady(traffic_at), n_batches, key_play)[1]

    return jax.jit(one)
