"""Factors and solves by matrix products, held against NumPy, with blocks that do not fill."""

import re
import subprocess
import sys
from collections.abc import Callable

import jax
import numpy as np
import pytest
from jax import Array

from bandit.policy.thompson import lookahead
from bandit.posterior import Gaussian
from bandit.posterior.linalg import (
    BLOCK,
    cho_solve,
    cholesky,
    gram,
    inverse_factor,
    solve,
    solve_lower,
    solve_rows,
    solve_upper,
)

pytestmark = pytest.mark.usefixtures("double_precision")

FACTORING = """
import threading
import jax
import jax.numpy as jnp
from bandit.posterior import Gaussian
from bandit.policy.thompson import lookahead

jax.config.update("jax_enable_x64", True)

@jax.jit
def work(rows):
    covariance = rows @ jnp.swapaxes(rows, 1, 2)
    return jax.vmap(lookahead, in_axes=(0, None, None))(Gaussian(rows[:, :, 0], covariance), 100.0, 1.0)

rows = jax.random.normal(jax.random.key(0), (256, 20, 300))
work(rows).block_until_ready()

def repeat():
    for _ in range(100):
        work(rows).block_until_ready()
    print("done")

threads = [threading.Thread(target=repeat, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


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


@pytest.mark.parametrize("function", [solve_lower, solve_upper, cho_solve])
@pytest.mark.parametrize("axes", [(0, 0), (None, 0), (0, None)], ids=["both", "right side", "matrix"])
def test_mapped_is_one_by_one(function: Callable[..., Array], axes: tuple[int | None, int | None]) -> None:
    factors = np.stack([np.linalg.cholesky(a_matrix(n)[:5, :5]) for n in (5, 6, 7)])
    right = np.random.default_rng(0).normal(size=(3, 5, 2))
    one_or_all = [many if axis == 0 else many[0] for many, axis in zip((factors, right), axes, strict=True)]
    found = jax.jit(jax.vmap(function, in_axes=axes))(*one_or_all)
    for i, each in enumerate(found):
        own = [many[i if axis == 0 else 0] for many, axis in zip((factors, right), axes, strict=True)]
        np.testing.assert_allclose(each, function(*own), rtol=1e-10, atol=1e-12)


def test_solved_by_numpy() -> None:
    matrices, right = np.stack([a_matrix(5), a_matrix(6)[:5, :5]]), np.ones((2, 5))
    found = jax.jit(jax.vmap(solve))(matrices, right)
    np.testing.assert_allclose(found, np.linalg.solve(matrices, right[:, :, None])[:, :, 0], rtol=1e-8)
    factor = np.linalg.cholesky(matrices)
    np.testing.assert_allclose(jax.jit(jax.vmap(cholesky))(matrices), factor, rtol=1e-8, atol=1e-12)
    ahead, back = (jax.vmap(f)(factor, right[:, :, None]) for f in (solve_lower, solve_upper))
    np.testing.assert_allclose(factor @ ahead, right[:, :, None], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(factor.transpose(0, 2, 1) @ back, right[:, :, None], rtol=1e-8, atol=1e-10)


def has_single_matrices(program: str) -> bool:
    """Whether all matrices that LAPACK gets in a program are by themselves."""
    calls = re.findall(r"custom_call @lapack\w+\(.*-> .*", program)
    assert calls
    return not any(re.search(r"tensor<\d+x\d+x\d+x", call) for call in calls)


def test_a_posterior_mapped_over_twice_gives_lapack_single_matrices() -> None:
    covariance = np.broadcast_to(np.eye(4), (2, 3, 4, 4))
    logits = Gaussian(np.zeros((2, 3, 4)), covariance)
    mapped = jax.jit(jax.vmap(jax.vmap(lookahead, in_axes=(0, None, None)), in_axes=(0, None, None)))
    assert has_single_matrices(mapped.lower(logits, 100.0, 1.0).as_text())


@pytest.mark.parametrize("function", [solve_lower, solve_upper, cho_solve])
@pytest.mark.parametrize("outer", [(0, 0), (0, None)])
def test_right_sides_mapped_inside_matrices(
    function: Callable[..., Array], outer: tuple[int, int | None]
) -> None:
    factors = np.stack([np.linalg.cholesky(a_matrix(n)[:5, :5]) for n in (5, 6, 7)])
    right = np.random.default_rng(0).normal(size=(3, 4, 5, 2))
    arguments = factors, right if outer[1] == 0 else right[0]
    mapped = jax.jit(jax.vmap(jax.vmap(function, in_axes=(None, 0)), in_axes=outer))
    assert has_single_matrices(mapped.lower(*arguments).as_text())
    for i, some in enumerate(mapped(*arguments)):
        for j, each in enumerate(some):
            expected = function(factors[i], right[i if outer[1] == 0 else 0, j])
            np.testing.assert_allclose(each, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_threads_that_factor_at_once_do_not_wait_for_each_other_for_ever() -> None:
    # Of jaxlib 0.10, as batches: stuck within a hundred programs on two cores.
    command = [sys.executable, "-c", FACTORING]
    said = subprocess.run(command, check=True, timeout=120, stdout=subprocess.PIPE, text=True).stdout
    assert said.split() == ["done"] * 4
