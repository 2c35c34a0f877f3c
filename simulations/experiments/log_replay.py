"""Policies on a log whose choices were uniform: a policy sees the lines that it would have chosen alike."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from bandit.decision_log.logs import Log
from bandit.errors import LogError
from bandit.features.design import N_CONTENT, N_CONTEXT, design_row
from bandit.jax_runtime import double_precision
from bandit.policy.randomness import Uniforms
from simulations.errors import unknown
from simulations.loop import uniforms_of_key
from simulations.policies.base import Outcomes, Request
from simulations.policies.engine import design_of_contents
from simulations.policies.registry import IN_CONTEXTS, Numbers, Shop, numbers_of, program_of
from simulations.policies.settings import WORLD_SETTINGS, PolicySetting, setting

AT_ONCE = 32  # lines that are chosen for together; about one of them is accepted where there are as many arms
UNEVEN = 1e-6  # of a propensity, of rounding


class Lines(NamedTuple):
    """A log's lines, in the order in which they are replayed."""

    context: Float[Array, "lines slots"]
    eligible: Bool[Array, "lines arms"]
    action: Int[Array, "lines"]
    reward: Float[Array, "lines"]


class Replayed(NamedTuple):
    """What a policy saw of one order of the lines.

    Attributes:
        accepted: lines on which it chose as the log did.
        clicks: of these.
        late_accepted: likewise of the second half of the log.
        late_clicks: likewise.
    """

    accepted: Float[Any, "*seeds"]
    clicks: Float[Any, "*seeds"]
    late_accepted: Float[Any, "*seeds"]
    late_clicks: Float[Any, "*seeds"]


POLICIES = (
    "engine",
    *("lin-ucb", "lin-ts", "logistic-ts", "logistic-ts-diagonal", "epsilon-greedy"),
    *("shared-lin-ucb", "shared-lin-ts", "hybrid-lin-ucb", "hybrid-lin-ts"),
    *("beta-thompson", "ucb1", "uniform"),
)
SETTINGS: Mapping[str, PolicySetting] = {
    **{name: one for name, one in WORLD_SETTINGS.items() if name in POLICIES},
    "uniform": setting("uniform"),
}


def check_uniform(log: Log) -> None:
    """Refuse a log whose choices were not uniform over what could be shown.

    Raises:
        LogError: names the first such line and how many there are.
    """
    even = 1 / log.eligible.sum(axis=1)
    if (is_uneven := np.abs(log.propensity - even) > UNEVEN).any():
        first = int(np.argmax(is_uneven))
        raise LogError(
            f"expected a log that showed all alike; {int(is_uneven.sum()):,} of {len(even):,} decisions have "
            f"other propensities, the first is {log.decision[first]}: {log.propensity[first]:.4g} of "
            f"{int(log.eligible[first].sum())} creatives, not {even[first]:.4g}; "
            "creative-bandit evaluate takes such logs"
        )


def replay_log(
    log: Log, setting: PolicySetting, *, seeds: Sequence[int], advance: Callable[[int], None] = lambda _: None
) -> Replayed:
    """Let one policy replay a log by rejection: it sees a line if it would have chosen as the log did.

    Of uniform choices, what it sees is as if it had played that many impressions itself. It learns from
    each before the next line. Its contexts are the 16 columns of largest variance.

    Args:
        log: whose choices were uniform.
        setting: the policy.
        seeds: each draws an order of the lines, the same for every policy, and the policy's uniform numbers.
        advance: told the number of finished runs now and then.

    Raises:
        LogError: the policy is unknown, or the log's choices were not uniform.
        PolicyError: the setting has a number that the policy does not read, or lacks one.

    References:
        L. Li, W. Chu, J. Langford, X. Wang, "Unbiased offline evaluation of contextual-bandit-based news
        article recommendation algorithms", WSDM 2011, algorithm 2.
    """
    if setting.policy not in POLICIES:
        raise LogError(unknown("policy", setting.policy, POLICIES))
    check_uniform(log)
    n_lines, n_arms = log.eligible.shape
    content = np.zeros((n_arms, N_CONTENT)) if log.content is None else log.content
    run = _compiled(program_of(setting.policy), n_lines // n_arms)
    with double_precision():
        numbers = numbers_of(setting, IN_CONTEXTS)
        arrays = (contexts_of(log), log.eligible, log.action, log.reward)
        lines = Lines(*map(jnp.asarray, arrays))
        found = []
        for seed in seeds:
            found.append(
                jax.device_get(run(numbers, jnp.asarray(content, float), lines, jax.random.key(seed)))
            )
            advance(1)
    return Replayed(*(np.array(leaves) for leaves in zip(*found, strict=True)))


def contexts_of(log: Log) -> Float[np.ndarray, "lines slots"]:
    """Return the context of each line as the engine's 16 slots: the columns that vary most."""
    known = log.context[:, 1:]
    kept = np.sort(np.argsort(-known.var(axis=0), kind="stable")[:N_CONTEXT])
    return np.pad(known[:, kept], ((0, 0), (0, N_CONTEXT - len(kept))))


@cache
def _compiled(name: str, horizon: int) -> Callable[..., Replayed]:
    def run(numbers: Numbers, content: Array, lines: Lines, key: Array) -> Replayed:
        key_order, key_uniforms = jax.random.split(key)
        n_lines = len(lines.action)
        shop = Shop(
            design_of_contents(content, content.mean(axis=0)), float(horizon), content=content, room=n_lines
        )
        policy = IN_CONTEXTS[name].make(shop, numbers)
        order = jax.random.permutation(key_order, n_lines)
        uniforms = uniforms_of_key(key_uniforms, n_lines)
        mean = content.mean(axis=0)

        def design(context: Array) -> Array:
            return jax.vmap(design_row, in_axes=(None, 0, None))(context, content, mean)

        def ahead(carry: tuple[Any, Array, Replayed]) -> tuple[Any, Array, Replayed]:
            """Go to the next line that is accepted, or past those that are looked at together."""
            state, start, seen = carry
            place = start + jnp.arange(AT_ONCE)
            rows = order[jnp.minimum(place, n_lines - 1)]
            here = jax.tree.map(lambda leaf: leaf[rows], lines)
            requests = Request(jax.vmap(design)(here.context), here.eligible)
            own = Uniforms(*(leaf[jnp.minimum(place, n_lines - 1)] for leaf in uniforms))
            chosen = jax.vmap(policy.choose, in_axes=(None, 0, 0))(state, requests, own).chosen
            is_accepted = (chosen == here.action) & (place < n_lines)
            first = jnp.argmax(is_accepted)
            found = is_accepted[first]

            def learn(state: Any) -> Any:
                action = here.action[first]
                row = requests.features[first, action]
                return policy.learn(state, Outcomes(row[None], action[None], here.reward[first][None]))

            after = jax.lax.cond(found, learn, lambda state: state, state)
            n, clicks = found * 1.0, found * here.reward[first]
            is_late = place[first] >= n_lines // 2
            more = Replayed(n, clicks, n * is_late, clicks * is_late)
            return after, start + jnp.where(found, first + 1, AT_ONCE), jax.tree.map(jnp.add, seen, more)

        zero = jnp.zeros(())
        carry = (policy.start, jnp.asarray(0), Replayed(zero, zero, zero, zero))
        return jax.lax.while_loop(lambda carry: carry[1] < n_lines, ahead, carry)[2]

    return jax.jit(run)
