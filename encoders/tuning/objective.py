"""What tuning maximises: the likelihood of clicks, or conversions, with a free base rate for every campaign.

The logit of creative i's click rate in campaign c is α_c + s_i. What a campaign's page, audience and season
do to its rate is in α_c, which is profiled out: only differences between creatives of one campaign count.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Newton's method on log Σ n σ(α + s) = log Σ y. The left side is concave and increases, so from the left
# of the root the steps stay there and get to it, whatever the scores; at rates of 2 % four are enough.
_STEPS = 16


def profiled_gain(
    scores: Float[Array, "creatives"],
    campaign: Int[Array | np.ndarray, "creatives"],
    trials: Float[Array | np.ndarray, "creatives"],
    successes: Float[Array | np.ndarray, "creatives"],
    n_campaigns: int,
) -> Float[Array, "campaigns"]:
    """Compute by how much scores raise each campaign's log-likelihood over equal scores.

    gain_c = max_α Σ_i [y_i (α + s_i) - n_i log(1 + exp(α + s_i))] - the same with s = 0.

    At the maximum the derivative by α is 0, so that the gradient by s is that at a fixed α̂. A plain second
    derivative would miss α̂'s own.

    Args:
        scores: s.
        campaign: Index of each creative's campaign.
        trials: n, impressions for clicks and clicks for conversions; 0 for padding.
        successes: y, clicks or conversions.
        n_campaigns: How many campaigns there are.

    Returns:
        The gains in nats; 0 for a campaign without successes, with nothing but successes, or of padding only.
    """

    def total(values: Array | np.ndarray) -> Array:
        return jax.ops.segment_sum(values, campaign, n_campaigns)

    tried, done = total(trials), total(successes)
    tells = (done > 0) & (done < tried)
    tried, done = jnp.where(tells, tried, 2.0), jnp.where(tells, done, 1.0)
    base = jnp.log(done) - jnp.log(tried - done)
    # Around the mean, so that float32 does not lose the differences.
    centred = scores - (total(trials * scores) / tried)[campaign]
    # With every score at the largest one, this would be the root: it lies to the left of it.
    start = base - jnp.maximum(jax.ops.segment_max(centred, campaign, n_campaigns), 0.0)

    def step(_: int, alpha: Array) -> Array:
        rate = jax.nn.sigmoid(alpha[campaign] + centred)
        expected = jnp.where(tells, total(trials * rate), 1.0)
        slope = jnp.where(tells, total(trials * rate * (1 - rate)), 1.0)
        return alpha + (jnp.log(done) - jnp.log(expected)) * expected / slope

    alpha = jax.lax.stop_gradient(jax.lax.fori_loop(0, _STEPS, step, jax.lax.stop_gradient(start)))
    logit, flat = alpha[campaign] + centred, base[campaign]
    gain = successes * (logit - flat) - trials * (jax.nn.softplus(logit) - jax.nn.softplus(flat))
    return jnp.where(tells, total(gain), 0.0)
