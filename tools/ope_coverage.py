"""How often intervals hold the truth, and whether estimates are biased: many logs of one world."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from bandit.jax_runtime import double_precision
from simulations.ope.estimators import LoggedBatch, Terms, value_of
from simulations.ope.evaluation import BOUNDED, ESTIMATORS, bernstein_of
from simulations.ope.intervals import bootstrap
from simulations.ope.reward_model import cross_fitted

SEED, N_LOGS, N_ROWS, N_ARMS, PER_CLUSTER = 7, 500, 1_000, 10, 2
N_RESAMPLES = 400
NAMES = tuple(ESTIMATORS)


class Found(NamedTuple):
    """Estimates of one policy from each of many logs.

    Attributes:
        values: of each estimator of `NAMES`.
        low: ends of the bootstrap intervals.
        high: likewise.
        bernstein: ends of the intervals of `BOUNDED`.
        truth: what the policy earns.
    """

    values: Float[np.ndarray, "logs estimators"]
    low: Float[np.ndarray, "logs estimators"]
    high: Float[np.ndarray, "logs estimators"]
    bernstein: Float[np.ndarray, "logs bounded 2"]
    truth: float


def estimate_many() -> Found:
    """Draw the logs and evaluate a policy on each.

    Ten arms of 5 to 40 %, two of each rate; logging and target policies are drawn once from a Dirichlet
    distribution. The clusters of MIPS are the arms of one rate, so that it has no bias here.
    """
    rng = np.random.default_rng(SEED)
    with double_precision():
        rates = jnp.asarray(np.repeat(rng.uniform(0.05, 0.4, N_ARMS // PER_CLUSTER), PER_CLUSTER))
        logging, target = (jnp.asarray(rng.dirichlet(np.full(N_ARMS, 5.0))) for _ in range(2))

        def one(key: Array) -> tuple[Array, Array, Array, Array]:
            keys = jax.random.split(key, 4)
            action = jax.random.choice(keys[0], N_ARMS, (N_ROWS,), p=logging)
            reward = (jax.random.uniform(keys[1], (N_ROWS,)) < rates[action]) * 1.0
            everywhere = (N_ROWS, N_ARMS)
            batch = LoggedBatch(
                action=action,
                reward=reward,
                propensity=logging[action],
                logging=jnp.broadcast_to(logging, everywhere),
                eligible=jnp.ones(everywhere, bool),
                target=jnp.broadcast_to(target, everywhere),
                estimates=cross_fitted(jnp.ones((N_ROWS, 1)), action, reward, N_ARMS),
                cluster=jnp.arange(N_ARMS) // PER_CLUSTER,
            )
            uniforms = jax.random.uniform(keys[2], (N_ROWS,))
            each = {name: estimator(batch, uniforms) for name, estimator in ESTIMATORS.items()}
            stacked = Terms(*(jnp.stack(leaves) for leaves in zip(*each.values(), strict=True)))
            interval, _ = bootstrap(stacked, keys[3], n_resamples=N_RESAMPLES)
            bounds = jnp.array([bernstein_of(name, each[name], batch) for name in BOUNDED])
            return (
                jnp.stack([value_of(terms) for terms in each.values()]),
                interval.low,
                interval.high,
                bounds,
            )

        results = jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(jax.random.key(SEED), N_LOGS))
        values, low, high, bernstein = jax.device_get(results)
        return Found(values, low, high, bernstein, float(target @ rates))
