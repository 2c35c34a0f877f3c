"""Ordered lists: every list of two as often as the product of its places' propensities, by enumeration."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bandit.policy.propensity import Limits
from bandit.policy.quasi_random import normal_points
from bandit.policy.randomness import Uniforms, uniforms_of_ids
from bandit.policy.thompson import Exploration, ListChoice, choose, choose_list
from bandit.posterior import Gaussian

pytestmark = pytest.mark.usefixtures("double_precision")

K, N_LISTS, N_PLACES = 4, 20_000, 3
ELIGIBLE = np.array([True, True, True, False])
LOGITS = Gaussian(np.array([-3.9, -3.8, -4.1, 0.0]), 0.05 * np.eye(K) + 0.02)
SETTINGS = Exploration(*map(np.float64, (20_000.0, 500.0, 0.3, 0.05, 3.0, 0.05)))
LIMITS = {
    "none": Limits(np.zeros(K), np.ones(K)),
    "floor and cap": Limits(np.array([0.0, 0.0, 0.3, 0.0]), np.array([1.0, 0.4, 1.0, 1.0])),
}

choose_one = jax.jit(choose)
choose_lists = jax.jit(jax.vmap(choose_list, in_axes=(None, None, None, None, 0, None)))


def uniforms_of(n: int) -> Uniforms:
    """Return the uniform numbers of lists, leaves [lists, places]; all have one point set."""
    ids = [f"list-{i}~{place}" for i in range(n) for place in range(N_PLACES)]
    uniforms = Uniforms(*(numbers.reshape(n, N_PLACES) for numbers in uniforms_of_ids(ids, 0)))
    return uniforms._replace(point_set=np.full((n, N_PLACES), 5, np.uint32))


def place_propensities(left: np.ndarray, limits: Limits) -> np.ndarray:
    """Return π of a place from those that are left."""
    points = jnp.asarray(normal_points(K))
    uniforms = jax.tree.map(lambda numbers: numbers[0, 0], uniforms_of(1))
    return np.asarray(choose_one(LOGITS, SETTINGS, left, points, uniforms, limits).propensities)


@pytest.mark.parametrize("name", LIMITS)
def test_every_list_by_enumeration(name: str) -> None:
    limits = LIMITS[name]
    lists: ListChoice = choose_lists(
        LOGITS, SETTINGS, ELIGIBLE, jnp.asarray(normal_points(K)), uniforms_of(N_LISTS), limits
    )
    chosen, of_list = np.asarray(lists.places.chosen), np.asarray(lists.list_propensity)
    places = np.asarray(lists.places.propensities)
    assert (np.sort(chosen, axis=1) == [0, 1, 2]).all(), "each is shown once"
    total = 0.0
    for first, second in permutations(range(3), 2):
        propensities = place_propensities(ELIGIBLE, limits)
        after = place_propensities(ELIGIBLE & (np.arange(K) != first), limits)
        expected = propensities[first] * after[second]
        here = (chosen[:, 0] == first) & (chosen[:, 1] == second)
        assert abs(here.sum() - N_LISTS * expected) < 5 * np.sqrt(N_LISTS * expected * (1 - expected))
        np.testing.assert_allclose(of_list[here, 1], expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(places[here, 1], np.tile(after, (here.sum(), 1)), rtol=0, atol=1e-12)
        total += expected
    assert total == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(of_list[:, 2], of_list[:, 1], rtol=1e-12, err_msg="the last one is certain")
