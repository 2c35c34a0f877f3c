"""The randomness of a decision: a few uniform numbers that its id and the model's seed determine."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

_N_WORDS = 6  # of 64 bits: one for the point set, one for each uniform number


class Uniforms(NamedTuple):
    """What chance decides in one draw; the numbers are uniform in [0, 1) and independent.

    Attributes:
        point_set: uint32; its remainder by the number of sets names the set of points.
        branch: which stage draws: control, floors, or the best at a point.
        point: the point at which the best one is drawn.
        order: which of several that a stage may draw.
        keep: whether a creative whose propensity a cap has lowered is kept.
        spill: which of the others is shown if it is not.
    """

    point_set: Int[Any, "..."]
    branch: Float[Any, "..."]
    point: Float[Any, "..."]
    order: Float[Any, "..."]
    keep: Float[Any, "..."]
    spill: Float[Any, "..."]


def uniforms_of_ids(decision_ids: Sequence[str], seed: int) -> Uniforms:
    """Return the uniform numbers of decisions, from blake2b hashes of their ids under the model's seed.

    Numbers have 52 bits, so that number × total < total holds after rounding too.

    Args:
        decision_ids: the ids.
        seed: the model's seed, the hash's key.

    Returns:
        NumPy arrays, [decisions]; the same id and seed always give the same.

    Example:
        >>> uniforms_of_ids(["a", "b"], 0).point[0] == uniforms_of_ids(["a"], 0).point[0]
        np.True_

    References:
        RFC 7693, "The BLAKE2 Cryptographic Hash", 2015.
    """
    key = (seed & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")
    size = 8 * _N_WORDS
    hashes = [blake2b(name.encode(), digest_size=size, key=key).digest() for name in decision_ids]
    words = np.frombuffer(b"".join(hashes), "<u8").reshape(-1, _N_WORDS)
    uniform = (words[:, 1:] >> np.uint64(12)).astype(np.float64) * 2.0**-52
    return Uniforms((words[:, 0] & np.uint64(0xFFFFFFFF)).astype(np.uint32), *uniform.T)
