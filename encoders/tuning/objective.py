"""What tuning maximises: the likelihood of clicks, with a free base rate for every campaign.

The logit of creative i's click rate in campaign c is α_c + s_i. What a campaign's page, audience and season
do to its rate is in α_c, which is profiled out: only differences between creatives of one campaign count.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Newton's method on log Σ n σ(α + s) = log clicks. The left side is concave and increases, so from the left
# of the root the steps stay there and get to it, whatever the scores; at rates of 2 % four are enough.
_STEPS = 16


def profiled_gain(
    scores: Float[Array, "creatives"],
    campaign: Int[Array | np.ndarray, "creatives"],
    impressions: Float[Array | np.ndarray, "creatives"],
    clicks: Float[Array | np.ndarray, "creatives"],
    n_campaigns: int,
) -> Float[Array, "campaigns"]:
    """Compute by how much scores raise each campaign's log-likelihood over equal scores.

    gain_c = max_α Σ_i [y_i (α + s_i) - n_i log(1 + exp(α + s_i))] - the same with s = 0.

    At the maximum the derivative by α is 0, so that the gradient by s is that at a fixed α̂. A plain second
    derivative would miss α̂'s own.

    Args:
        scores: s.
        campaign: Index of each creative's campaign.
        impressions: n, 0 for padding.
        clicks: y.
        n_campaigns: How many campaigns there are.

    Returns:
        The gains in nats; 0 for a campaign without clicks, with nothing but clicks, or of padding only.
    """

    def total(values: Array | np.ndarray) -> Array:
        return jax.ops.segment_sum(values, campaign, n_campaigns)

    shown, clicked = total(impressions), total(clicks)
    tells = (clicked > 0) & (clicked < shown)
    shown, clicked = jnp.where(tells, shown, 2.0), jnp.where(tells, clicked, 1.0)
    base = jnp.log(clicked) - jnp.log(shown - clicked)
    # Around the mean, so that float32 does not lose the differences.
    centred = scores - (total(impressions * scores) / shown)[campaign]
    # With every score at the largest one, this would be the root: it lies to the left of it.
    start = base - jnp.maximum(jax.ops.segment_max(centred, campaign, n_campaigns), 0.0)

    def step(_: int, alpha: Array) -> Array:
        rate = jax.nn.sigmoid(alpha[campaign] + centred)
        expected = jnp.where(tells, total(impressions * rate), 1.0)
        slope = jnp.where(tells, total(impressions * rate * (1 - rate)), 1.0)
        return alpha + (jnp.log(clicked) - jnp.log(expected)) * expected / slope

    alpha = jax.lax.stop_gradient(jax.lax.fori_loop(0, _STEPS, step, jax.lax.stop_gradient(start)))
    logit, flat = alpha[campaign] + centred, base[campaign]
    gain = clicks * (logit - flat) - impressions * (jax.nn.softplus(logit) - jax.nn.softplus(flat))
    return jnp.where(tells, total(gain), 0.0)
