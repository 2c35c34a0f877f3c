"""Loops over long arrays a piece at a time, so that what is made per row is never held for all rows."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array

CHUNK = 2048  # rows; 3.4 MB of features in float64, which stay in the second-level cache

Carry = TypeVar("Carry")
Arrays = TypeVar("Arrays")


def over_chunks(
    n: Array | int, body: Callable[[Carry, Array], Carry], carry: Carry, size: int | None = None
) -> Carry:
    """Fold `body(carry, index)` over 0 … n − 1 in pieces; the last piece may run past the end.

    Args:
        n: how many, at least 1; traced, if the pieces' size is given.
        body: the fold's step; takes indices of one piece, [chunk].
        carry: where it starts.
        size: of a piece; None is `CHUNK`, or n if that is less.

    Returns:
        The last carry.
    """
    step = min(CHUNK, int(n)) if size is None else size
    pieces = -(-n // step)
    return jax.lax.fori_loop(0, pieces, lambda i, so_far: body(so_far, i * step + jnp.arange(step)), carry)


def taken(arrays: Arrays, index: Array) -> Arrays:
    """Return some rows of every array; an index past the end gives zeros."""
    return jax.tree.map(lambda leaf: leaf.at[index].get(mode="fill", fill_value=0), arrays)
