"""What plays, as data: a setting names a policy and every number that it reads, no more and no fewer.

So what a row of results shows is what was played. Who reads what stands in `registry`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from simulations.errors import PolicyError
from simulations.policies.engine import SHIPPED, EngineNumbers

ENGINE = "engine"
PLAIN_THOMPSON = "plain-thompson"
GREEDY = "greedy"
FIXED_SCALES = "engine-fixed-scales"
FORGETTING = "engine-forgetting"
HALF_LIFE = 7.0  # days; the engine forgets nothing unless it is told a half-life
ENDS = ("uniform", "oracle")  # of the scale between which a policy can be


@dataclass(frozen=True, kw_only=True)
class PolicySetting:
    """A policy with its settings, as data; the id traces a result row back to it.

    Attributes:
        policy: a name in the table of those who play.
        numbers: (name, value) of all that the policy reads.
        label: what else differs, in words.
    """

    policy: str
    numbers: tuple[tuple[str, float], ...] = ()
    label: str = ""

    @property
    def setting_id(self) -> str:
        """All that tells it from other settings of the policy."""
        words = [self.label] * bool(self.label) + [f"{name}={value:g}" for name, value in self.numbers]
        return " ".join(words) or "-"


def setting(policy: str, label: str = "", **numbers: float) -> PolicySetting:
    """Return a setting.

    Example:
        >>> setting("ucb1", scale=0.035).setting_id
        'scale=0.035'
    """
    return PolicySetting(policy=policy, numbers=tuple(numbers.items()), label=label)


ENGINE_READS = tuple(name for name in EngineNumbers._fields if name != "half_life")


def engine_setting(label: str = "", policy: str = ENGINE, **numbers: float) -> PolicySetting:
    """Return a setting of the engine: what is shipped, but for what is named.

    Raises:
        PolicyError: the engine reads no such number.
    """
    known = {name: float(getattr(SHIPPED, name)) for name in ENGINE_READS}
    refuse_others(policy, numbers, (*known, "half_life"))
    return setting(policy, label, **{**known, **numbers})


def refuse_others(policy: str, given: Mapping[str, float], reads: tuple[str, ...]) -> None:
    """Refuse numbers that a policy does not read.

    Raises:
        PolicyError: names them, and those that it reads.
    """
    if strange := [name for name in given if name not in reads]:
        raise PolicyError(
            f"{policy} does not read {', '.join(strange)}: its numbers are {', '.join(reads) or 'none'}"
        )


def product_of(policy: str, values: Mapping[str, tuple[float, ...]]) -> tuple[PolicySetting, ...]:
    """Return all settings that these values make."""
    if not values:
        return ()
    return tuple(
        PolicySetting(policy=policy, numbers=tuple(zip(values, numbers, strict=True)))
        for numbers in product(*values.values())
    )


def _by_name(*settings: PolicySetting) -> dict[str, PolicySetting]:
    return {one.policy: one for one in settings}


ENGINE_SETTINGS = (
    engine_setting(),
    engine_setting(policy=PLAIN_THOMPSON, uniform=0, endless=1, kappa=1, optimism=0, noise=1),
    engine_setting(policy=GREEDY, kappa=0, uniform=0),
)
# Chosen by `simulate archive --tune` on the shared part of the Upworthy archive, 16 settings each.
ARCHIVE_SETTINGS: Mapping[str, PolicySetting] = _by_name(
    *ENGINE_SETTINGS,
    setting("beta-thompson"),
    setting("scaled-thompson", scale=0.2),
    setting("bayes-ucb", scale=0.15, power=5),
    setting("epsilon-greedy", epsilon=0.02),
    setting("lola", strength=1000, scale=0.01),
    setting("informed-beta", clicks=1),
    setting("ucb1", scale=0.035),
    setting("kl-ucb", scale=0.08),
    setting("ab-then-commit", share=0.15),
)
# lin-ucb, lin-ts and logistic-ts have the best of their grids by `simulate synthetic --base-rate 0.04
# --residual 0.4 --tune`; the linear ones below are plain middles. Settings differ much by the kind of world:
# tune before judging a baseline.
WORLD_SETTINGS: Mapping[str, PolicySetting] = _by_name(
    *ENGINE_SETTINGS,
    engine_setting(policy=FIXED_SCALES),
    engine_setting(policy=FORGETTING, half_life=HALF_LIFE),
    setting("bayes-ucb", scale=0.2, power=0),
    setting("beta-thompson"),
    setting("ucb1", scale=0.03),
    setting("kl-ucb", scale=0.08),
    setting("ab-then-commit", share=0.18),
    setting("lin-ucb", alpha=0.01, ridge=1),
    setting("lin-ts", scale=0.03, ridge=100),
    setting("logistic-ts", scale=0.5, ridge=10),
    setting("logistic-ts-diagonal", scale=0.5, ridge=10),
    setting("epsilon-greedy", epsilon=0.03, ridge=10),
    setting("shared-lin-ucb", alpha=0.03, ridge=10),
    setting("shared-lin-ts", scale=0.03, ridge=10),
    setting("hybrid-lin-ucb", alpha=0.03, ridge=10),
    setting("hybrid-lin-ts", scale=0.03, ridge=10),
)
