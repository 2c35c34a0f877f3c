"""Dense linear algebra as XLA's matrix products, which is where this processor time is well spent.

LAPACK's triangular solve runs on one thread at a sixth of the speed of XLA's matrix product (15 against
100 GFlop/s for 256 rows on two cores), so only blocks of 32 are left to it.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax.linalg import cholesky, triangular_solve
from jaxtyping import Float

BLOCK = 32


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
        return _inverse(cholesky(matrix, symmetrize_input=False))
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
    return triangular_solve(factor, jnp.eye(factor.shape[0]), left_side=True, lower=True)
