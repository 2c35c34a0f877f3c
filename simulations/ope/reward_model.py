"""A reward model for the direct method and its kin: a ridge logistic regression, cross-fitted.

The engine's posterior is not used: that of a database has learnt from the rows that it would score.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from bandit.posterior.linalg import solve

SHARED_SD = 0.3  # prior sd of a context's effect in logits, as the engine's first scale
ACTION_SD = 0.25  # of what is an action's own, likewise
N_STEPS = 12  # of Newton's method; 10,000 rows at a click rate of 0.7 % are at rounding after 6


@partial(jax.jit, static_argnames="n_actions")
def fit(
    context: Float[Array, "rows slots"],
    action: Int[Array, "rows"],
    reward: Float[Array, "rows"],
    counted: Float[Array, "rows"],
    n_actions: int,
) -> tuple[Float[Array, "slots"], Float[Array, "actions slots"]]:
    """Return the mode of a logistic regression with an effect of contexts, and one of each action's own.

        logit p = x·(v + u_a)    v_0 ~ N(logit of the mean, 1)    v_j ~ N(0, 0.3²)    u_a ~ N(0, 0.25² I)

    Newton's method; each action's own weights are eliminated, so a step is linear in actions.

    Args:
        context: x, whose first column is 1.
        action: a.
        reward: 0 or 1.
        counted: weight of each row; 0 leaves it out.
        n_actions: how many actions there are.

    Returns:
        v and u.
    """
    slots = context.shape[1]
    # One click and one silence more, so that no clicks at all are no certainty.
    rate = (jnp.sum(counted * reward) + 1) / (jnp.sum(counted) + 2)
    start = jnp.zeros(slots).at[0].set(jnp.log(rate) - jnp.log1p(-rate))
    shared_precision = jnp.diag(jnp.full(slots, SHARED_SD**-2).at[0].set(1.0))
    own_precision = jnp.eye(slots) * ACTION_SD**-2

    def step(weights: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        shared, own = weights
        p = jax.nn.sigmoid(jnp.sum(context * (shared + own[action]), axis=1))
        residual, curvature = counted * (reward - p), counted * p * (1 - p)
        by_action = jax.ops.segment_sum(context * residual[:, None], action, n_actions)
        slopes = by_action - own @ own_precision

        def squares(one: Array) -> Array:
            return (context * (curvature * (action == one))[:, None]).T @ context

        h = jax.lax.map(squares, jnp.arange(n_actions))
        # [own⁻¹ h, own⁻¹ slope] in one solve, for the Schur complement of the shared weights.
        right = jnp.concatenate([h, slopes[:, :, None]], axis=2)
        solved = jax.vmap(solve)(h + own_precision, right)
        reduced, partial = solved[:, :, :-1], solved[:, :, -1]
        left = shared_precision + jnp.sum(h - h @ reduced, axis=0)
        slope = jnp.sum(by_action, axis=0) - shared_precision @ (shared - start)
        change = solve(left, slope - jnp.einsum("aij,aj->i", h, partial))
        return (shared + change, own + partial - reduced @ change), None

    begin = (start, jnp.zeros((n_actions, slots)))
    (shared, own), _ = jax.lax.scan(step, begin, None, length=N_STEPS)
    return shared, own


def predict(
    weights: tuple[Array, Array], context: Float[Array, "rows slots"]
) -> Float[Array, "rows actions"]:
    """Return the expected reward of every action."""
    shared, own = weights
    return jax.nn.sigmoid(context @ (shared[:, None] + own.T))


@partial(jax.jit, static_argnames=("n_actions", "n_folds"))
def cross_fitted(
    context: Float[Array, "rows slots"],
    action: Int[Array, "rows"],
    reward: Float[Array, "rows"],
    n_actions: int,
    n_folds: int = 5,
) -> Float[Array, "rows actions"]:
    """Return expected rewards of every action, each row's from a model that has not seen it.

    Every `n_folds`-th row is one fold.

    References:
        V. Chernozhukov et al., "Double/debiased machine learning for treatment and structural parameters",
        Econometrics Journal 21, 2018.
    """
    replica = jnp.arange(action.shape[0]) % n_folds

    def one(number: Array) -> Array:
        left_out = replica == number
        weights = fit(context, action, reward, jnp.where(left_out, 0.0, 1.0), n_actions)
        return jnp.where(left_out[:, None], predict(weights, context), 0.0)

    return jax.lax.fori_loop(
        0,
        n_folds,
        lambda number, total: total + one(jnp.asarray(number)),
        jnp.zeros((action.shape[0], n_actions)),
    )
