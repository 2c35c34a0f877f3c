"""What the engine is compared with in worlds with contexts: published policies and grids of their settings.

All start from the base rate that the engine starts from, and see the same features: the context, and the
shared and hybrid ones the engine's own φ.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from jax import Array
from jaxtyping import Float

from bandit.features.design import PriorScales
from simulations.policies.base import Policy
from simulations.policies.linear import (
    Basis,
    disjoint_basis,
    epsilon_greedy,
    hybrid_basis,
    lin_ts,
    lin_ucb,
    shared_basis,
)
from simulations.policies.logistic import logistic_ts

BASE_RATE = PriorScales().base_rate


@dataclass(frozen=True, kw_only=True)
class RivalSetting:
    """A rival with its settings, as data; the id traces a result row back to it.

    Attributes:
        policy: a key of `RIVALS`.
        exploration: α of LinUCB, v of LinTS, factor on the standard deviation of logistic Thompson, ε; κ of
            the engine, factor on UCB1's bonus.
        ridge: λ, the prior precision of a weight, in impressions for linear models; 0 where there is none.
    """

    policy: str
    exploration: float
    ridge: float

    @property
    def setting_id(self) -> str:
        """The settings, in words."""
        numbers = {"exploration": self.exploration, "ridge": self.ridge}
        return " ".join(f"{name}={value:g}" for name, value in numbers.items() if value) or "-"


class RivalNumbers(NamedTuple):
    """A setting's numbers, traced: all settings of a policy are one compiled program."""

    exploration: Array
    ridge: Array


Maker = Callable[[Float[Array, "arms content"], RivalNumbers], Policy]


def _linear(policy: Callable[..., Policy], basis: Callable[[Array], Basis]) -> Maker:
    return lambda content, numbers: policy(basis(content), numbers.exploration, numbers.ridge, BASE_RATE)


def _logistic(*, is_diagonal: bool) -> Maker:
    return lambda content, numbers: logistic_ts(
        len(content), numbers.exploration, numbers.ridge, BASE_RATE, is_diagonal=is_diagonal
    )


def _disjoint(content: Array) -> Basis:
    return disjoint_basis(len(content))


RIVALS: Mapping[str, Maker] = {
    "lin-ucb": _linear(lin_ucb, _disjoint),
    "lin-ts": _linear(lin_ts, _disjoint),
    "logistic-ts": _logistic(is_diagonal=False),
    "logistic-ts-diagonal": _logistic(is_diagonal=True),
    "epsilon-greedy": _linear(epsilon_greedy, _disjoint),
    "shared-lin-ucb": _linear(lin_ucb, shared_basis),
    "shared-lin-ts": _linear(lin_ts, shared_basis),
    "hybrid-lin-ucb": _linear(lin_ucb, hybrid_basis),
    "hybrid-lin-ts": _linear(lin_ts, hybrid_basis),
}

# A click's standard deviation is 0.14 to 0.2 at these rates, so exploration 0.2 is about one posterior sd.
_LINEAR = tuple(product((0.01, 0.03, 0.1, 0.3), (1.0, 10.0, 100.0, 1000.0)))
_LOGISTIC = tuple(product((0.1, 0.25, 0.5, 1.0), (1.0, 10.0, 30.0, 100.0)))
GRIDS: Mapping[str, tuple[RivalSetting, ...]] = {
    policy: tuple(
        RivalSetting(policy=policy, exploration=exploration, ridge=ridge)
        for exploration, ridge in (_LOGISTIC if policy.startswith("logistic") else _LINEAR)
    )
    for policy in RIVALS
}

# The first three are the best of their grids by `simulate synthetic --base-rate 0.04 --residual 0.4 --tune`;
# the others are plain middles. Settings differ much by the kind of world: tune before judging a rival.
TUNED: Mapping[str, RivalSetting] = {
    policy: RivalSetting(policy=policy, exploration=exploration, ridge=ridge)
    for policy, exploration, ridge in (
        ("lin-ucb", 0.01, 1.0),
        ("lin-ts", 0.03, 100.0),
        ("logistic-ts", 0.5, 10.0),
        ("logistic-ts-diagonal", 0.5, 10.0),
        ("epsilon-greedy", 0.03, 10.0),
        ("shared-lin-ucb", 0.03, 10.0),
        ("shared-lin-ts", 0.03, 10.0),
        ("hybrid-lin-ucb", 0.03, 10.0),
        ("hybrid-lin-ts", 0.03, 10.0),
    )
}
