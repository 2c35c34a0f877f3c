"""A problem small enough for a dense solve, of one shape so that its programs are compiled once."""

import jax
import jax.numpy as jnp
import numpy as np

from bandit.posterior import Prior, Rows, State, initial_state

DIM, N_ARMS, N_CAMPAIGNS, BATCH = 6, 16, 5, 24
# The last arms and the last campaign never get a row: they stand for new ones. No order in the assignment.
ARM_CAMPAIGN = np.array([2, 0, 3, 1, 0, 2, 2, 1, 3, 0, 1, 2, 0, 3, 4, 4])
KNOWN_ARMS = 12

initial_state_jit = jax.jit(initial_state, static_argnums=(1, 2))


def a_prior() -> Prior:
    mean = jnp.asarray([-3.5, 0.1, -0.2, 0.0, 0.0, 0.3])
    return Prior(mean, jnp.asarray([0.7, 0.3, 0.2, 0.22, 0.22, 0.3]), jnp.asarray(0.6), jnp.asarray(0.25))


def a_batch(random: np.random.Generator, n_arms: int = KNOWN_ARMS, n_padding: int = 5) -> Rows:
    """Return rows with repeated arms; the last ones are padding, with whatever arm and campaign."""
    arm = random.integers(0, n_arms, BATCH)
    campaign = ARM_CAMPAIGN[arm]
    impressions = random.integers(1, 300, BATCH).astype(float)
    clicks = random.binomial(impressions.astype(int), 0.05).astype(float)
    arm[BATCH - n_padding :] = campaign[BATCH - n_padding :] = 0
    impressions[BATCH - n_padding :] = clicks[BATCH - n_padding :] = 0
    features = np.hstack([np.ones((BATCH, 1)), random.normal(size=(BATCH, DIM - 1))])
    return Rows(*map(jnp.asarray, (features, arm, campaign, impressions, clicks)))


def empty_state() -> State:
    return initial_state_jit(a_prior(), N_ARMS, N_CAMPAIGNS)


def assert_same_state(first: State, second: State, **limits: float) -> None:
    others = named_arrays(second)
    for name, left in named_arrays(first).items():
        np.testing.assert_allclose(left, others[name], err_msg=name, **limits)


def named_arrays(state: State) -> dict[str, np.ndarray]:
    """Return all arrays of a state by name, those of its prior as prior_…."""
    own = {name: leaf for name, leaf in state._asdict().items() if name != "prior"}
    prior = {f"prior_{name}": leaf for name, leaf in state.prior._asdict().items()}
    return {name: np.asarray(leaf) for name, leaf in (own | prior).items()}
