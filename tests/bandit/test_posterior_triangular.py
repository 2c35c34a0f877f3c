"""Factors and solves by matrix products, held against NumPy, with blocks that do not fill."""

import jax
import numpy as np
import pytest

from bandit.posterior.triangular import BLOCK, gram, inverse_factor, solve_rows

pytestmark = pytest.mark.usefixtures("double_precision")


def a_matrix(n: int) -> np.ndarray:
    """Return I + W^½ C W^½ with weights over eight orders of magnitude."""
    random = np.random.default_rng(n)
    half = random.normal(size=(n, n)) / np.sqrt(n)
    root = 10.0 ** random.uniform(-4, 4, n)
    return np.eye(n) + root[:, None] * (half @ half.T) * root[None, :]


@pytest.mark.parametrize("n", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_the_inverse_of_the_factor(n: int) -> None:
    matrix = a_matrix(n)
    # What lies above the diagonal does not count.
    inverse = np.asarray(jax.jit(inverse_factor)(np.tril(matrix)))
    np.testing.assert_array_equal(inverse, np.tril(inverse))
    np.testing.assert_allclose(inverse @ np.linalg.cholesky(matrix), np.eye(n), atol=1e-10)
    np.testing.assert_allclose(inverse.T @ inverse @ matrix, np.eye(n), atol=1e-6)


@pytest.mark.parametrize("n", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_rows_solved(n: int) -> None:
    factor = np.linalg.cholesky(a_matrix(n))
    rows = np.random.default_rng(0).normal(size=(7, n))
    solved = np.asarray(jax.jit(solve_rows)(factor + np.triu(np.ones((n, n)), 1), rows))
    np.testing.assert_allclose(solved @ factor.T, rows, rtol=1e-12, atol=1e-12)


def test_what_is_not_positive_definite_is_nan() -> None:
    matrix = a_matrix(3 * BLOCK)
    matrix[-1, -1] = -1.0
    assert np.isnan(jax.jit(inverse_factor)(matrix)).any()


def test_gram() -> None:
    random = np.random.default_rng(0)
    left, right = random.normal(size=(2, 9, 4))
    expected = sum(np.outer(one, other) for one, other in zip(left, right, strict=True))
    np.testing.assert_allclose(jax.jit(gram)(left, right), expected, rtol=1e-14)
