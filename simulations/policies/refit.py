"""The refit of one campaign of which contexts and arms are kept: `posterior.refit`, in much less time.

Rows of one campaign are linear in the context, φ_a(x) = x̃ B_a with x̃ = [1, x]. So all rows of an arm go into
the posterior by one matrix Σ W x̃ x̃ᵀ, and their logits come out of it by another, whatever the length of φ.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from bandit.posterior import (
    Fit,
    Gaussian,
    Prior,
    State,
    eliminate,
    initial_state,
    is_unsettled,
    predict,
    rescaled,
    stepped,
)
from bandit.posterior.chunks import over_chunks, taken
from bandit.posterior.sites import site

MOST_NUMBERS = 1 << 20  # that a piece of the rows takes for each matrix it is multiplied by


class Seen(NamedTuple):
    """What a campaign has taught so far, a row for each decision, in rows that are filled one after another.

    Attributes:
        context: x̃; zeros where nothing has been seen yet.
        arm: whose.
        impressions: 1, or what is left of it after forgetting.
        clicks: likewise.
    """

    context: Float[Array, "room slots"]
    arm: Int[Array, "room"]
    impressions: Float[Array, "room"]
    clicks: Float[Array, "room"]


def nothing_seen(room: int, n_slots: int) -> Seen:
    """Return room for so many decisions."""
    return Seen(jnp.zeros((room, n_slots)), jnp.zeros(room, int), jnp.zeros(room), jnp.zeros(room))


def refit_seen(
    prior: Prior, loading: Array, seen: Seen, n: Array | int, groups: Array | None = None
) -> State:
    """Fit the posterior of one campaign anew to all that was seen.

    Args:
        prior: what holds without data, before any learning of scales.
        loading: B, [arms, slots, dim].
        seen: the rows.
        n: how many of them there are.
        groups: which weights share a scale that is learnt, [groups, dim]; None keeps all scales.

    Returns:
        What `posterior.refit` returns for the same rows, to within its tolerance.
    """
    n_arms, n_slots, _ = loading.shape
    campaign = jnp.zeros(n_arms, int)
    size = max(1, min(len(seen.arm), MOST_NUMBERS // n_slots**2))

    def fitted(fit: Fit) -> State:
        def add(so_far: tuple[Array, Array], index: Array) -> tuple[Array, Array]:
            piece, mean, variance = taken((seen, fit.mean, fit.variance), index)
            sites = site(mean, variance, piece.impressions, piece.clicks)
            own = jax.nn.one_hot(piece.arm, n_arms, dtype=mean.dtype)
            by_arm = (own[:, :, None] * piece.context[:, None, :]).reshape(size, -1)
            products = by_arm.T @ (sites.weight[:, None] * piece.context)
            return so_far[0] + products, so_far[1] + sites.information @ by_arm

        start = (jnp.zeros((n_arms * n_slots, n_slots)), jnp.zeros(n_arms * n_slots))
        products, information = over_chunks(n, add, start, size)
        return _assembled(
            fit.prior, loading, products.reshape(n_arms, n_slots, n_slots), information.reshape(n_arms, -1)
        )

    def moved(state: State, fit: Fit) -> Fit:
        known = _lines(state, loading)

        def move(so_far: Fit, index: Array) -> Fit:
            piece, mean = taken((seen, fit.mean), index)
            target, variance = _marginals(known, piece)
            after, step = stepped(mean, target, fit.passes)
            return so_far._replace(
                mean=so_far.mean.at[index].set(after, mode="drop"),
                variance=so_far.variance.at[index].set(variance, mode="drop"),
                largest_step=jnp.maximum(
                    so_far.largest_step, jnp.max(jnp.where(piece.impressions > 0, step, 0.0))
                ),
            )

        return over_chunks(n, move, fit._replace(passes=fit.passes + 1, largest_step=jnp.array(0.0)), size)

    def work(fit: Fit) -> Fit:
        state = fitted(fit)
        fit = moved(state, fit)
        return fit if groups is None else rescaled(state, fit, prior, groups, campaign)

    known = _lines(initial_state(prior, n_arms, 1), loading)

    def begin(so_far: tuple[Array, Array], index: Array) -> tuple[Array, Array]:
        mean, variance = _marginals(known, taken(seen, index))
        return (
            so_far[0].at[index].set(mean, mode="drop"),
            so_far[1].at[index].set(jnp.minimum(variance, 1.0), mode="drop"),
        )

    blank = jnp.zeros_like(seen.impressions)
    mean, variance = over_chunks(n, begin, (blank, blank), size)
    fit = Fit(mean, variance, prior, jnp.array(groups is not None), jnp.array(0), jnp.array(jnp.inf, float))
    return fitted(jax.lax.while_loop(is_unsettled, work, fit))


def _lines(state: State, loading: Array) -> Gaussian:
    """Return each arm's joint logits at x = 0 and at the units of x; all others are linear in these."""
    rows = loading.at[:, 1:].add(loading[:, :1])
    arms = jnp.arange(len(loading))

    def of_one(row: Array, arm: Array) -> Gaussian:
        same = jnp.broadcast_to(arm, len(row))
        return predict(state, row, same, jnp.zeros_like(same))

    return jax.vmap(of_one)(rows, arms)


def _marginals(known: Gaussian, piece: Seen) -> tuple[Array, Array]:
    """Return mean and variance of each row's logit: η_0 + Σ_j x_j (η_j − η_0)."""
    share = piece.context.at[:, 0].set(1 - piece.context[:, 1:].sum(axis=1))
    mean = jnp.sum(share * known.mean[piece.arm], axis=1)
    spread = jnp.einsum("ns,nst->nt", share, known.covariance[piece.arm])
    return mean, jnp.sum(spread * share, axis=1)


def _assembled(prior: Prior, loading: Array, products: Array, information: Array) -> State:
    """Build the posterior from each arm's Σ W x̃ x̃ᵀ and Σ t x̃; the first of x̃ is 1."""
    n_arms, _, dim = loading.shape
    state = initial_state(prior, n_arms, 1)
    flat = loading.reshape(-1, dim)
    state = state._replace(
        precision=state.precision + flat.T @ (products @ loading).reshape(-1, dim),
        information=state.information + information.ravel() @ flat,
        arm_cross=state.arm_cross + jnp.einsum("as,asd->ad", products[:, 0], loading),
        arm_precision=state.arm_precision + products[:, 0, 0],
        arm_information=state.arm_information + information[:, 0],
    )
    return eliminate(state, jnp.zeros(n_arms, int))
