"""Floors, caps and control share: exact propensities from the shares of points, and the draw that has them.

    f_a = max(floor_a, ε/K)    π'_a = f_a + (1 − Σf) p̂_a    π_a = min(cap_a, f_a + λ p̂_a) with Σπ = 1

p̂ is the share of points at which a creative is best, ε the uniform and the control share together, K the
number of eligible creatives.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from bandit.policy.randomness import Uniforms


class Limits(NamedTuple):
    """What propensities must keep to.

    Attributes:
        floor: least propensity of each candidate; 0 for none.
        cap: greatest propensity of each candidate; 1 for none. None spares the work when nobody has one.
    """

    floor: Float[Array, "candidates"]
    cap: Float[Array, "candidates"] | None = None


class Propensities(NamedTuple):
    """What a draw follows.

    Attributes:
        floors: f of each candidate; sums to `floor_share`.
        floor_share: Σf.
        uncapped: π' of each candidate.
        capped: π of each candidate; sums to 1, exactly 0 for the ineligible.
    """

    floors: Float[Array, "candidates"]
    floor_share: Float[Array, ""]
    uncapped: Float[Array, "candidates"]
    capped: Float[Array, "candidates"]


def propensities_of(
    shares: Array, eligible: Array, even_share: Array | float, limits: Limits | None = None
) -> Propensities:
    """Return the propensities that keep to the limits.

    Floors that sum to more than 1 with the even share are scaled down, their parts above ε/K all alike, and
    caps that sum to less than 1 are scaled up: something must be shown.

    Args:
        shares: p̂, float64 [candidates]; 0 for the ineligible.
        eligible: the K candidates that may be chosen, [candidates]; at least one.
        even_share: ε, the uniform and the control share together, in [0, 1].
        limits: floors and caps; None for none.
    """
    even = even_share / jnp.sum(eligible)
    floors = jnp.where(eligible, even, 0.0)
    floor_share = jnp.asarray(even_share)
    if limits is not None:
        above = jnp.where(eligible, jnp.maximum(limits.floor - even, 0.0), 0.0)
        wanted = jnp.sum(above)
        scale = jnp.where(wanted > 1 - even_share, (1 - even_share) / jnp.where(wanted > 0, wanted, 1.0), 1.0)
        floors = floors + scale * above
        floor_share = even_share + scale * wanted
    uncapped = floors + (1 - floor_share) * shares
    if limits is None or limits.cap is None:
        return Propensities(floors, floor_share, uncapped, uncapped)
    return Propensities(
        floors, floor_share, uncapped, apply_caps(uncapped, floors, shares, limits.cap, eligible)
    )


def apply_caps(uncapped: Array, floors: Array, shares: Array, cap: Array, eligible: Array) -> Array:
    """Return π_a = min(cap_a, f_a + λ p̂_a) with the λ at which they sum to 1.

    Where all with p̂ > 0 are at their caps, what is left goes to the others in even parts. A round finds who
    is above its cap at the present λ and takes it out; λ only grows, so there are at most K rounds.

    Args:
        uncapped: π', [candidates].
        floors: f, [candidates].
        shares: p̂, [candidates].
        cap: greatest propensity of each candidate, [candidates].
        eligible: which candidates may be chosen, [candidates].
    """
    cap = jnp.where(eligible, cap, 0.0)
    total = jnp.sum(cap)
    cap = jnp.where(
        total > 0, cap / jnp.where(total > 0, jnp.minimum(total, 1.0), 1.0), eligible / jnp.sum(eligible)
    )

    def is_above(carry: tuple[Array, Array]) -> Array:
        return jnp.any(carry[0] > cap)

    def take_out(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        propensities, is_capped = carry
        is_capped = is_capped | (propensities > cap)
        is_open = eligible & ~is_capped
        likely = jnp.where(is_open, shares, 0.0)
        parts = jnp.where(jnp.sum(likely) > 0, likely, is_open.astype(likely.dtype))
        left = 1 - jnp.sum(jnp.where(is_capped, cap, floors))
        level = jnp.maximum(left, 0.0) / jnp.maximum(jnp.sum(parts), jnp.finfo(parts.dtype).tiny)
        return jnp.where(is_capped, cap, floors + level * parts), is_capped

    return jax.lax.while_loop(is_above, take_out, (uncapped, jnp.zeros_like(eligible)))[0]


def draw(
    propensities: Propensities,
    winners: Array,
    eligible: Array,
    control_share: Array | float,
    uniforms: Uniforms,
    *,
    has_caps: bool,
) -> tuple[Array, Array]:
    """Draw a candidate with exactly its propensity, from the best at one point.

    First of three stages, by `branch`: all eligible alike (control), by what floors have above the control
    share, or one of the best at the point that `place` has picked. Caps then by coupling: one drawn at
    π'_a > π_a is kept with probability π_a/π'_a, else one is drawn from (π − π')₊.

    Args:
        propensities: from `propensities_of`.
        winners: the best at the point drawn, [candidates]; ties all.
        eligible: which candidates may be chosen, [candidates].
        control_share: share of the control.
        uniforms: the decision's.
        has_caps: whether propensities may differ from the uncapped ones.

    Returns:
        The candidate's index, and whether it was drawn as a control.
    """
    is_control = uniforms.branch < control_share
    above = jnp.maximum(
        propensities.floors - jnp.where(eligible, control_share / jnp.sum(eligible), 0.0), 0.0
    )
    is_floor = (uniforms.branch < propensities.floor_share) & jnp.any(above > 0)
    parts = jnp.where(is_control, eligible, jnp.where(is_floor, above, winners))
    chosen = _pick(parts, uniforms.order)
    if not has_caps:
        return chosen, is_control
    before, after = propensities.uncapped[chosen], propensities.capped[chosen]
    is_moved = uniforms.keep * before >= after
    spilled = _pick(jnp.maximum(propensities.capped - propensities.uncapped, 0.0), uniforms.spill)
    return jnp.where(is_moved, spilled, chosen), is_control & ~is_moved


def _pick(parts: Array, number: Array) -> Array:
    """Return an index drawn in proportion to the parts by one uniform number."""
    sums = jnp.cumsum(parts)
    return jnp.argmax((parts > 0) & (sums > number * sums[-1]))
