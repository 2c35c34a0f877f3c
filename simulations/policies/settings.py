"""Settings as data: which policies play the archive, the grids they are tuned on, and what was chosen.

Every rival is tuned on the tuning tests (the second fifth of the archive, prior from the first) by the same
number of settings: `creative-bandit simulate archive FILE --out DIR --tune`. The chosen setting is the one
with the highest share of the lift, averaged over the three lengths of a test.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import jax.numpy as jnp
from jax import Array

from bandit.policy.quasi_random import normal_points
from bandit.policy.thompson import KAPPA, NOISE, OPTIMISM, UNIFORM_SHARE
from simulations.policies.base import Policy, Problems, beta_thompson, thompson_on_logits, ucb1
from simulations.policies.logit_policies import (
    ab_then_commit,
    bayes_ucb,
    epsilon_greedy,
    informed_beta,
    kl_ucb,
    lola,
    scaled_thompson,
)

Numbers = Mapping[str, Array]
Maker = Callable[[Problems, Array, Numbers], Policy]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A policy with its settings, as data; the id traces a result row back to it.

    Attributes:
        policy: a key of `POLICIES`.
        numbers: (name, value) of what the policy can be tuned by.
        label: what else differs, in words.
    """

    policy: str
    numbers: tuple[tuple[str, float], ...] = ()
    label: str = ""

    @property
    def setting_id(self) -> str:
        """All that tells it from other settings of the policy."""
        return (
            " ".join([self.label] * bool(self.label) + [f"{name}={value:g}" for name, value in self.numbers])
            or "-"
        )


def setting(policy: str, label: str = "", **numbers: float) -> Setting:
    """Return a setting.

    Example:
        >>> setting("ucb1", scale=0.035).setting_id
        'scale=0.035'
    """
    return Setting(policy=policy, numbers=tuple(numbers.items()), label=label)


def _engine(problem: Problems, horizon: Array, numbers: Numbers) -> Policy:
    reach = jnp.where(numbers["endless"] > 0, jnp.inf, horizon)
    points = jnp.asarray(normal_points(problem.truth.shape[0]))
    names = ("kappa", "uniform", "optimism", "noise")
    return thompson_on_logits("thompson", problem.prior, reach, points, *(numbers[name] for name in names))


POLICIES: dict[str, Maker] = {
    "engine": _engine,
    "plain-thompson": _engine,
    "greedy": _engine,
    "scaled-thompson": lambda problem, horizon, x: scaled_thompson(problem.prior, x["scale"]),
    "bayes-ucb": lambda problem, horizon, x: bayes_ucb(problem.prior, x["scale"], x["power"], horizon),
    "epsilon-greedy": lambda problem, horizon, x: epsilon_greedy(problem.prior, x["epsilon"]),
    "lola": lambda problem, horizon, x: lola(problem.prior, x["strength"], x["scale"]),
    "beta-thompson": lambda problem, horizon, x: beta_thompson(problem.truth.shape[0]),
    "informed-beta": lambda problem, horizon, x: informed_beta(
        problem.truth.shape[0], x["clicks"], problem.past_rate
    ),
    "ucb1": lambda problem, horizon, x: ucb1(problem.truth.shape[0], x["scale"]),
    "kl-ucb": lambda problem, horizon, x: kl_ucb(problem.truth.shape[0], x["scale"]),
    "ab-then-commit": lambda problem, horizon, x: ab_then_commit(problem.truth.shape[0], x["share"], horizon),
}
WITHOUT_PRIOR = ("beta-thompson", "ucb1", "kl-ucb", "ab-then-commit")

_SHARES = (0.02, 0.05, 0.08, 0.1, 0.12, 0.15, 0.18, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8)
_SCALES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0)
_GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "engine": {
        "kappa": (KAPPA,),
        "uniform": (UNIFORM_SHARE,),
        "endless": (0.0,),
        "optimism": (0.0, 1.0, 1.5, 2.0),
        "noise": (0.1, 0.2, 0.4, 1.0),
    },
    "scaled-thompson": {"scale": _SCALES},
    "bayes-ucb": {"scale": (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0), "power": (0.0, 5.0)},
    "epsilon-greedy": {
        "epsilon": (0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3, 0.4, 0.5)
    },
    "lola": {"strength": (100.0, 300.0, 1000.0, 3000.0), "scale": (0.005, 0.01, 0.02, 0.04)},
    "informed-beta": {
        "clicks": (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0, 40.0, 60.0, 100.0)
    },
    "ucb1": {
        "scale": (0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.05, 0.06, 0.08,
                  0.1, 0.3)
    },
    "kl-ucb": {
        "scale": (0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.13, 0.17, 0.2, 0.3, 0.4, 0.6, 1.0)
    },
    "ab-then-commit": {"share": _SHARES},
}  # fmt: skip
GRID_SIZE = 16


def grid(policy: str) -> tuple[Setting, ...]:
    """Return the settings that a policy is tuned on."""
    values = _GRIDS[policy]
    return tuple(
        Setting(policy=policy, numbers=tuple(zip(values, numbers, strict=True)))
        for numbers in product(*values.values())
    )


TUNED = tuple(_GRIDS)
WORLD_TUNED = ("bayes-ucb", "ucb1", "kl-ucb", "ab-then-commit")  # in synthetic worlds, on the same grids


def engine_setting(
    label: str = "",
    policy: str = "engine",
    *,
    kappa: float = KAPPA,
    uniform: float = UNIFORM_SHARE,
    endless: float = 0,
    optimism: float = OPTIMISM,
    noise: float = NOISE,
) -> Setting:
    """Return a setting of the engine, its defaults but for what is named."""
    numbers = {"kappa": kappa, "uniform": uniform, "endless": endless, "optimism": optimism, "noise": noise}
    return setting(policy, label, **numbers)


ENGINE_SETTINGS = (
    engine_setting(),
    engine_setting(policy="plain-thompson", uniform=0, endless=1, kappa=1, optimism=0, noise=1),
    engine_setting(policy="greedy", kappa=0, uniform=0),
)
FIXED_SCALES = "engine-fixed-scales"
FORGETTING = "engine-forgetting"
HALF_LIFE = 7.0  # days; the engine forgets nothing unless it is told a half-life
WORLD_SETTINGS = (  # what plays synthetic worlds beside the rivals of `rivals`
    *ENGINE_SETTINGS,
    engine_setting(policy=FIXED_SCALES),
    Setting(policy=FORGETTING, numbers=(*engine_setting().numbers, ("half_life", HALF_LIFE))),
    setting("bayes-ucb", scale=0.2, power=0),
    setting("beta-thompson"),
    setting("ucb1", scale=0.03),
    setting("kl-ucb", scale=0.08),
    setting("ab-then-commit", share=0.18),
)
DEFAULT_SETTINGS = (
    *ENGINE_SETTINGS,
    setting("beta-thompson"),
    # Chosen by --tune on the shared part of the Upworthy archive, 16 settings each.
    setting("scaled-thompson", scale=0.2),
    setting("bayes-ucb", scale=0.15, power=5),
    setting("epsilon-greedy", epsilon=0.02),
    setting("lola", strength=1000, scale=0.01),
    setting("informed-beta", clicks=1),
    setting("ucb1", scale=0.035),
    setting("kl-ucb", scale=0.08),
    setting("ab-then-commit", share=0.15),
)
