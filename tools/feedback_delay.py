"""What waiting for clicks costs: `python -m tools.feedback_delay [IMPRESSIONS [RUNS]]` prints a table.

A policy learns after every 1, 10, 100 or 1,000 impressions, from all of them; in between it chooses by what
it knew before. UCB1 shows the same arm until then, and a policy that draws spreads its traffic.

References:
    O. Chapelle, L. Li, "An empirical evaluation of Thompson sampling", NIPS 2011, section 3.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from bandit.features.design import PriorScales
from bandit.jax_runtime import double_precision, keep_compiled_programs
from bandit.posterior import Gaussian
from simulations.loop import Traffic, play_total
from simulations.policies.base import Policy, Request, beta_thompson, ucb1
from simulations.policies.engine import engine_on_logits

DELAYS = (1, 10, 100, 1_000)
N_ARMS = 10
BASE_RATE, SPREAD = 0.05, 0.3  # of the arms: logit-normal, so that the best has about 8 %
UCB_SCALE = (BASE_RATE * (1 - BASE_RATE)) ** 0.5  # sd of a click; the published bonus is for rewards up to 1


def engine(horizon: int) -> Policy:
    """Return the engine for a campaign without context, from its own prior."""
    scales = PriorScales()
    shared = scales.intercept**2 + scales.campaign**2
    covariance = jnp.full((N_ARMS, N_ARMS), shared) + scales.arm**2 * jnp.eye(N_ARMS)
    mean = jnp.full(N_ARMS, jnp.log(scales.base_rate) - jnp.log1p(-scales.base_rate))
    return engine_on_logits(Gaussian(mean, covariance), float(horizon))


POLICIES: Mapping[str, Callable[[int], Policy]] = {
    "engine": engine,
    "beta-thompson": lambda horizon: beta_thompson(N_ARMS),
    "ucb1": lambda horizon: ucb1(N_ARMS, UCB_SCALE),
}


@partial(jax.jit, static_argnames=("name", "impressions", "delay"))
def regrets(name: str, impressions: int, delay: int, keys: Array) -> Float[Array, "runs"]:
    """Return the expected clicks that a policy loses in each run; a key draws its arms and all uniforms."""
    request = Request(jnp.zeros((1, N_ARMS, 0)), jnp.ones((1, N_ARMS), bool))

    def one(key: Array) -> Array:
        key_arms, key_play = jax.random.split(key)
        logit = jnp.log(BASE_RATE) - jnp.log1p(-BASE_RATE)
        rates = jax.nn.sigmoid(logit + SPREAD * jax.random.normal(key_arms, (N_ARMS,)))
        traffic = Traffic(request, rates[None], delay)
        _, total = play_total(
            POLICIES[name](impressions), lambda *_: traffic, jnp.asarray(impressions // delay), key_play
        )
        return total.best - total.earned

    return jax.vmap(one)(keys)


def rows(
    impressions: int, runs: int, names: Sequence[str] = tuple(POLICIES), delays: Sequence[int] = DELAYS
) -> Iterator[tuple[str, ...]]:
    """Yield a header, and a row per policy: what it loses with the first delay, and the others' factors."""
    yield ("policy", f"clicks lost, delay {delays[0]}", *(f"× at {delay:,}" for delay in delays[1:]))
    for name in names:
        with double_precision():
            keys = jax.random.split(jax.random.key(0), runs)
            lost = [np.asarray(regrets(name, impressions, delay, keys)) for delay in delays]
        first = lost[0]
        yield (
            name,
            f"{first.mean():,.0f} ± {first.std(ddof=1) / runs**0.5:,.0f}",
            *(factor(later, first) for later in lost[1:]),
        )


def factor(later: Float[np.ndarray, "runs"], first: Float[np.ndarray, "runs"]) -> str:
    """Return the ratio of means with its standard error over paired runs."""
    ratio = later.mean() / first.mean()
    error = (later - ratio * first).std(ddof=1) / first.mean() / len(first) ** 0.5
    return f"{ratio:.2f} ± {error:.2f}"


def main(numbers: Sequence[str]) -> None:
    """Print the table."""
    impressions, runs = (*map(int, numbers), *(100_000, 20)[len(numbers) :])
    keep_compiled_programs()
    for row in rows(impressions, runs):
        sys.stdout.write(f"| {' | '.join(row)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
