"""Dense linear algebra as XLA's matrix products, which is where this processor time is well spent.

LAPACK's triangular solve runs on one thread at a sixth of the speed of XLA's matrix product (15 against
100 GFlop/s for 256 rows on two cores), so only blocks of 32 are left to it.

LAPACK gets one matrix at a time, also where a caller maps over many. jaxlib 0.10 shares a batch out among the
threads of XLA's pool and waits for them *in* one of these threads: as many batches at once as there are
threads, two on two cores, and the process waits for ever. One at a time takes little longer on two idle
cores: 256 matrices of 10 × 10 0.33 ms, as a batch 0.30; of 20 × 20 1.0 ms, 0.9; of 40 × 40 6.8 ms, 4.8.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jax import Array
from jax.custom_batching import custom_vmap
from jaxtyping import Float

BLOCK = 32


def one_at_a_time(function: Callable[..., Array]) -> Callable[..., Array]:
    """Return the function with `jax.vmap` of it made a loop over matrices, its first argument.

    Right sides of one matrix stay together: for LAPACK they are columns. `jax.grad` is not supported.
    """
    alone = custom_vmap(function)

    @alone.def_vmap
    def mapped(size: int, is_mapped: Sequence[bool], matrix: Array, *right: Array) -> tuple[Array, bool]:
        if not is_mapped[0]:
            columns = jax.vmap(function, in_axes=(None, *(0 for _ in right)))
            return one_at_a_time(columns)(matrix, *right), True  # another `vmap` may map the matrix
        all_right = [
            one if has_many else jnp.broadcast_to(one, (size, *one.shape))
            for has_many, one in zip(is_mapped[1:], right, strict=True)
        ]
        return jax.lax.map(lambda each: alone(*each), (matrix, *all_right)), True

    result: Callable[..., Array] = alone
    return result


@one_at_a_time
def cholesky(matrix: Float[Array, "dim dim"]) -> Array:
    """Return L, lower triangular, where A = L Lᵀ; NaN where A is not positive definite."""
    return jax.lax.linalg.cholesky(matrix, symmetrize_input=False)


@one_at_a_time
def solve_lower(factor: Float[Array, "dim dim"], right: Float[Array, "dim columns"]) -> Array:
    """Return L⁻¹ B; L is lower triangular here and below."""
    return jsl.solve_triangular(factor, right, lower=True)


@one_at_a_time
def solve_upper(factor: Float[Array, "dim dim"], right: Float[Array, "dim columns"]) -> Array:
    """Return L⁻ᵀ B."""
    return jsl.solve_triangular(factor, right, lower=True, trans=1)


@one_at_a_time
def cho_solve(factor: Float[Array, "dim dim"], right: Float[Array, "dim *columns"]) -> Array:
    """Return (L Lᵀ)⁻¹ B."""
    return jsl.cho_solve((factor, True), right)


def solve(matrix: Float[Array, "dim dim"], right: Float[Array, "dim *columns"]) -> Array:
    """Return A⁻¹ B of a symmetric positive definite A."""
    return cho_solve(cholesky(matrix), right)


def solve_rows(factor: Float[Array, "dim dim"], rows: Float[Array, "rows dim"]) -> Array:
    """Return X = B L⁻ᵀ, each row solved alone, by blocks: X_i = (B_i − Σ_{j<i} X_j L_ijᵀ) L_ii⁻ᵀ.

    Args:
        factor: L, lower triangular; what lies above its diagonal does not matter.
        rows: B.

    Returns:
        X, [rows, dim]; X Xᵀ = B (L Lᵀ)⁻¹ Bᵀ.
    """
    solved = rows[:, :0]
    for start in range(0, rows.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        rest = rows[:, block] - solved @ factor[block, :start].T
        solved = jnp.concatenate([solved, rest @ _inverse(factor[block, block]).T], axis=1)
    return solved


def inverse_factor(matrix: Float[Array, "dim dim"]) -> Float[Array, "dim dim"]:
    """Return M = L⁻¹ where A = L Lᵀ, so that A⁻¹ = Mᵀ M.

        M = [[M₁, 0], [−M₂ B M₁, M₂]]    B = A₂₁ M₁ᵀ    M₂ of A₂₂ − B Bᵀ

    Args:
        matrix: A, symmetric positive definite; its lower triangle counts.

    Returns:
        M, lower triangular; NaN where A is not positive definite.
    """
    n = matrix.shape[0]
    if n <= BLOCK:
        return _inverse(cholesky(matrix))
    half = n // 2
    first = inverse_factor(matrix[:half, :half])
    below = matrix[half:, :half] @ first.T
    second = inverse_factor(matrix[half:, half:] - below @ below.T)
    return jnp.block([[first, jnp.zeros((half, n - half))], [-second @ (below @ first), second]])


def gram(left: Float[Array, "rows dim"], right: Float[Array, "rows dim"]) -> Float[Array, "dim dim"]:
    """Return Σ_i left_i right_iᵀ."""
    # XLA's product of a transposed left side takes twice as long as transposing first.
    return jax.lax.optimization_barrier(left.T) @ right


def _inverse(factor: Array) -> Array:
    return solve_lower(factor, jnp.eye(factor.shape[0]))
