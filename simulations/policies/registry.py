"""Who can play, what each reads and is tuned on: a table for campaigns without contexts, one for those with.

Baselines start from the base rate that the engine starts from, and see the same features.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from bandit.features.design import PriorScales
from bandit.posterior import Gaussian
from simulations.errors import PolicyError, unknown
from simulations.policies.base import Policy, beta_thompson, oracle, ucb1, uniform
from simulations.policies.engine import (
    ROOM,
    SHIPPED,
    Design,
    EngineNumbers,
    engine,
    engine_on_logits,
)
from simulations.policies.linear import (
    N_SLOTS,
    Basis,
    disjoint_basis,
    epsilon_greedy,
    hybrid_basis,
    lin_ts,
    lin_ucb,
    shared_basis,
)
from simulations.policies.logistic import logistic_ts
from simulations.policies.logit_policies import (
    ab_then_commit,
    bayes_ucb,
    bayes_ucb_in_contexts,
    epsilon_greedy_on_logits,
    informed_beta,
    kl_ucb,
    lola,
    scaled_thompson,
)
from simulations.policies.settings import (
    ENGINE,
    ENGINE_READS,
    FIXED_SCALES,
    FORGETTING,
    GREEDY,
    PLAIN_THOMPSON,
    PolicySetting,
    product_of,
    refuse_others,
)

Numbers = Mapping[str, Array]  # a setting's, traced: all settings of a policy are one compiled program


class Campaign(NamedTuple):
    """What a policy is told of a campaign without contexts before its first impression.

    Attributes:
        prior: joint logits of its arms, as the engine knows them from the past.
        past_rate: clicks per impression in the past.
        horizon: impressions in all.
    """

    prior: Gaussian
    past_rate: Float[Array, ""]
    horizon: Array | float


class Shop(NamedTuple):
    """What a policy is told of a campaign with contexts before its first impression.

    Attributes:
        design: the engine's model of it.
        horizon: impressions in all.
        content: content features of its arms; None where arms are told apart by name only.
        base_rate: click rate to be expected of an arm.
        per_day: impressions of a day.
        room: impressions in all at most, whatever the horizon; a program is compiled for it.
    """

    design: Design
    horizon: Array | float
    content: Float[Array, "arms content"] | None = None
    base_rate: float = PriorScales().base_rate
    per_day: Array | float | None = None
    room: int = ROOM

    @property
    def n_arms(self) -> int:
        """How many arms it has."""
        return self.design.loading.shape[0]

    @property
    def n_slots(self) -> int:
        """Length of x̃ = [1, x]."""
        return self.design.loading.shape[1]


class OnLogits(NamedTuple):
    """Who can play a campaign without contexts.

    Attributes:
        make: (campaign, the setting's numbers) -> the policy.
        reads: names of the numbers.
        grid: values of each that settings are tuned on; none where nothing is tuned.
        has_prior: whether what it plays depends on the past.
    """

    make: Callable[[Campaign, Numbers], Policy]
    reads: tuple[str, ...] = ()
    grid: Mapping[str, tuple[float, ...]] = {}
    has_prior: bool = True


class InContexts(NamedTuple):
    """Who can play a campaign with contexts.

    Attributes:
        make: (campaign, the setting's numbers) -> the policy.
        reads: names of the numbers.
        grid: values of each that settings are tuned on; none where nothing is tuned.
        counts_traffic: whether it chooses by how much traffic there was, learnt or not.
    """

    make: Callable[[Shop, Numbers], Policy]
    reads: tuple[str, ...] = ()
    grid: Mapping[str, tuple[float, ...]] = {}
    counts_traffic: bool = False


_SHARES = (0.02, 0.05, 0.08, 0.1, 0.12, 0.15, 0.18, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8)
_SCALES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0)
_EPSILONS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3, 0.4, 0.5)
_CLICKS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0, 40.0, 60.0, 100.0)
_UCB1 = (0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.05, 0.06, 0.08, 0.1, 0.3)
_KL_UCB = (0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.13, 0.17, 0.2, 0.3, 0.4, 0.6, 1.0)
_BAYES_UCB = {"scale": (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0), "power": (0.0, 5.0)}
# A click's standard deviation is 0.14 to 0.2 at these rates, so 0.2 is about one posterior sd.
_LINEAR = (0.01, 0.03, 0.1, 0.3)
_RIDGES = (1.0, 10.0, 100.0, 1000.0)
_LOGISTIC = {"scale": (0.1, 0.25, 0.5, 1.0), "ridge": (1.0, 10.0, 30.0, 100.0)}
GRID_SIZE = 16


def _engine_on_logits(campaign: Campaign, numbers: Numbers) -> Policy:
    return engine_on_logits(campaign.prior, campaign.horizon, EngineNumbers(**numbers))


ON_LOGITS: Mapping[str, OnLogits] = {
    ENGINE: OnLogits(
        _engine_on_logits,
        ENGINE_READS,
        {
            "kappa": (float(SHIPPED.kappa),),
            "uniform": (float(SHIPPED.uniform),),
            "endless": (0.0,),
            "optimism": (0.0, 1.0, 1.5, 2.0),
            "noise": (0.1, 0.2, 0.4, 1.0),
        },
    ),
    PLAIN_THOMPSON: OnLogits(_engine_on_logits, ENGINE_READS),
    GREEDY: OnLogits(_engine_on_logits, ENGINE_READS),
    "scaled-thompson": OnLogits(
        lambda campaign, x: scaled_thompson(campaign.prior, x["scale"]), ("scale",), {"scale": _SCALES}
    ),
    "bayes-ucb": OnLogits(
        lambda campaign, x: bayes_ucb(campaign.prior, x["scale"], x["power"], jnp.asarray(campaign.horizon)),
        ("scale", "power"),
        _BAYES_UCB,
    ),
    "epsilon-greedy": OnLogits(
        lambda campaign, x: epsilon_greedy_on_logits(campaign.prior, x["epsilon"]),
        ("epsilon",),
        {"epsilon": _EPSILONS},
    ),
    "lola": OnLogits(
        lambda campaign, x: lola(campaign.prior, x["strength"], x["scale"]),
        ("strength", "scale"),
        {"strength": (100.0, 300.0, 1000.0, 3000.0), "scale": (0.005, 0.01, 0.02, 0.04)},
    ),
    "informed-beta": OnLogits(
        lambda campaign, x: informed_beta(_arms(campaign), x["clicks"], campaign.past_rate),
        ("clicks",),
        {"clicks": _CLICKS},
    ),
    "beta-thompson": OnLogits(lambda campaign, x: beta_thompson(_arms(campaign)), has_prior=False),
    "ucb1": OnLogits(
        lambda campaign, x: ucb1(_arms(campaign), x["scale"]), ("scale",), {"scale": _UCB1}, has_prior=False
    ),
    "kl-ucb": OnLogits(
        lambda campaign, x: kl_ucb(_arms(campaign), x["scale"]),
        ("scale",),
        {"scale": _KL_UCB},
        has_prior=False,
    ),
    "ab-then-commit": OnLogits(
        lambda campaign, x: ab_then_commit(_arms(campaign), x["share"], jnp.asarray(campaign.horizon)),
        ("share",),
        {"share": _SHARES},
        has_prior=False,
    ),
}


def _arms(campaign: Campaign) -> int:
    return campaign.prior.mean.shape[0]


def _engine(*, learns_scales: bool = True, forgets: bool = False) -> Callable[[Shop, Numbers], Policy]:
    def make(shop: Shop, numbers: Numbers) -> Policy:
        return engine(
            *(shop.design, shop.horizon, EngineNumbers(**numbers)),
            room=shop.room,
            per_day=shop.per_day if forgets else None,
            learns_scales=learns_scales,
        )

    return make


def _linear(
    policy: Callable[..., Policy], basis: Callable[[Shop], Basis], reads: str = "scale"
) -> InContexts:
    def make(shop: Shop, numbers: Numbers) -> Policy:
        return policy(basis(shop), numbers[reads], numbers["ridge"], shop.base_rate)

    return InContexts(make, (reads, "ridge"), {reads: _LINEAR, "ridge": _RIDGES})


def _logistic(*, is_diagonal: bool) -> InContexts:
    def make(shop: Shop, numbers: Numbers) -> Policy:
        return logistic_ts(
            *(shop.n_arms, numbers["scale"], numbers["ridge"], shop.base_rate),
            is_diagonal=is_diagonal,
            n_slots=shop.n_slots,
        )

    return InContexts(make, tuple(_LOGISTIC), _LOGISTIC)


def _disjoint(shop: Shop) -> Basis:
    return disjoint_basis(shop.n_arms, shop.n_slots)


def _with_contents(basis: Callable[[Array], Basis]) -> Callable[[Shop], Basis]:
    def make(shop: Shop) -> Basis:
        assert shop.content is not None and shop.n_slots == N_SLOTS  # noqa: PT018, S101  labels have no such policy
        return basis(shop.content)

    return make


IN_CONTEXTS: Mapping[str, InContexts] = {
    ENGINE: InContexts(_engine(), ENGINE_READS, counts_traffic=True),
    PLAIN_THOMPSON: InContexts(_engine(), ENGINE_READS, counts_traffic=True),
    GREEDY: InContexts(_engine(), ENGINE_READS, counts_traffic=True),
    FIXED_SCALES: InContexts(_engine(learns_scales=False), ENGINE_READS, counts_traffic=True),
    FORGETTING: InContexts(_engine(forgets=True), EngineNumbers._fields, counts_traffic=True),
    "bayes-ucb": InContexts(
        lambda shop, x: bayes_ucb_in_contexts(shop.design, shop.horizon, x["scale"], x["power"], shop.room),
        ("scale", "power"),
        _BAYES_UCB,
        counts_traffic=True,
    ),
    "beta-thompson": InContexts(lambda shop, x: beta_thompson(shop.n_arms)),
    "ucb1": InContexts(lambda shop, x: ucb1(shop.n_arms, x["scale"]), ("scale",), {"scale": _UCB1}),
    "kl-ucb": InContexts(lambda shop, x: kl_ucb(shop.n_arms, x["scale"]), ("scale",), {"scale": _KL_UCB}),
    "ab-then-commit": InContexts(
        lambda shop, x: ab_then_commit(shop.n_arms, x["share"], jnp.asarray(shop.horizon)),
        ("share",),
        {"share": _SHARES},
    ),
    "lin-ucb": _linear(lin_ucb, _disjoint, "alpha"),
    "lin-ts": _linear(lin_ts, _disjoint),
    "logistic-ts": _logistic(is_diagonal=False),
    "logistic-ts-diagonal": _logistic(is_diagonal=True),
    "epsilon-greedy": _linear(epsilon_greedy, _disjoint, "epsilon"),
    "shared-lin-ucb": _linear(lin_ucb, _with_contents(shared_basis), "alpha"),
    "shared-lin-ts": _linear(lin_ts, _with_contents(shared_basis)),
    "hybrid-lin-ucb": _linear(lin_ucb, _with_contents(hybrid_basis), "alpha"),
    "hybrid-lin-ts": _linear(lin_ts, _with_contents(hybrid_basis)),
    "uniform": InContexts(lambda shop, x: uniform(shop.n_arms)),
    "oracle": InContexts(lambda shop, x: oracle()),
}


def numbers_of(one: PolicySetting, table: Mapping[str, OnLogits] | Mapping[str, InContexts]) -> Numbers:
    """Return a setting's numbers as arrays.

    Raises:
        PolicyError: nobody in the table has that name, or it reads other numbers.
    """
    if one.policy not in table:
        raise PolicyError(unknown("policy", one.policy, list(table)))
    reads, given = table[one.policy].reads, dict(one.numbers)
    refuse_others(one.policy, given, reads)
    if missing := [name for name in reads if name not in given]:
        raise PolicyError(
            f"{one.policy} reads {', '.join(reads)}; {', '.join(missing)} is missing in {one.setting_id!r}"
        )
    return {name: jnp.asarray(value, float) for name, value in one.numbers}


def program_of(policy: str) -> str:
    """Return the name of the policy whose compiled program plays this one; some differ in numbers only."""
    return ENGINE if policy in (PLAIN_THOMPSON, GREEDY) else policy


def grid_of(
    policy: str, table: Mapping[str, OnLogits] | Mapping[str, InContexts]
) -> tuple[PolicySetting, ...]:
    """Return the settings that a policy is tuned on, `GRID_SIZE` of them; none where nothing is tuned."""
    return product_of(policy, table[policy].grid)
