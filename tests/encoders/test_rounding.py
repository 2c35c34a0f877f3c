"""Dense layers of eight bits against the same sums in NumPy's whole numbers."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.testing import assert_allclose

from encoders.rounding import RoundedLinear


def test_a_product_is_the_one_of_rounded_numbers() -> None:
    random = np.random.default_rng(0)
    dense = nnx.Linear(24, 40, rngs=nnx.Rngs(0))
    dense.bias[...] = jnp.asarray(random.normal(size=40))
    kernel = np.asarray(dense.kernel[...], float)
    x = random.normal(size=(3, 5, 24)).astype(np.float32)
    x[0, 0] = 0
    of_token = np.maximum(np.abs(x).max(-1, keepdims=True), 1e-12) / 127
    of_column = np.abs(kernel).max(0) / 127
    whole = np.round(x / of_token).astype(int) @ np.round(kernel / of_column).astype(int)
    made = RoundedLinear(dense)(jnp.asarray(x))
    assert_allclose(made, whole * of_token * of_column + np.asarray(dense.bias[...]), rtol=1e-5, atol=1e-6)
    # Each side is off by half a step at most.
    exact = x @ kernel + np.asarray(dense.bias[...])
    bound = 0.5 * (of_token * np.abs(kernel).sum(0) + of_column * np.abs(x).sum(-1, keepdims=True)) + 1e-3
    assert (np.abs(made - exact) <= bound).all()
    assert_allclose(made[0, 0], dense.bias[...], atol=1e-6)
