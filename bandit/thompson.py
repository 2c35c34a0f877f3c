"""From the logits' posterior to the chosen creative and its exact propensity.

Plain Thompson sampling explores as if a campaign never ended. Here the draw comes from the distribution that
the posterior *mean* will have at the horizon: only the uncertainty that the remaining traffic can still
remove is worth paying for.
"""

from hashlib import blake2b
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from bandit.points import N_POINTS, N_SETS
from bandit.posterior import Gaussian

KAPPA = 0.3  # share of an even split that an arm can expect of the remaining traffic; tuned on old A/B tests
UNIFORM_SHARE = 0.01  # traffic given to every candidate alike, so that each propensity is positive
ENDLESS = (
    1e9  # impressions an arm; beyond it the lookahead is plain Thompson sampling to 1e-3 of a posterior sd
)


class Exploration(NamedTuple):
    """How one campaign explores at one moment.

    Attributes:
        horizon: impressions the campaign expects in all; infinite for plain Thompson sampling.
        so_far: impressions it has had, n.
        kappa: κ, the share of an even split of the rest that each arm is believed to get; 0 is greedy.
        uniform_share: ε, the fraction of traffic that all candidates share alike.
        n_active: K, the campaign's active creatives, whether this request may show them or not.
    """

    horizon: Float[Array, ""]
    so_far: Float[Array, ""]
    kappa: Float[Array, ""]
    uniform_share: Float[Array, ""]
    n_active: Float[Array, ""]


class Choice(NamedTuple):
    """One request's answer.

    Attributes:
        propensities: π of all candidates; sums to 1, exactly 0 for the ineligible.
        chosen: index of the candidate drawn from π.
        remaining: H, the impressions that each candidate was believed to expect still.
    """

    propensities: Float[Array, "candidates"]
    chosen: Int[Array, ""]
    remaining: Float[Array, ""]


def remaining_impressions(horizon: Array, so_far: Array, n_active: Array) -> Array:
    """Return H, the impressions that each active candidate can still expect, on a coarse grid.

        H = max(horizon − n, n/10) / K, rounded to a power of 1.1, at most `ENDLESS`

    A campaign that outlives its horizon keeps a tenth of its past as its future.
    """
    even = jnp.maximum(horizon - so_far, 0.1 * so_far) / n_active
    grid = 1.1 ** jnp.round(jnp.log(jnp.maximum(even, 1e-9)) / jnp.log(1.1))
    return jnp.where(even > 0, jnp.minimum(grid, ENDLESS), 0.0)


def lookahead(logits: Gaussian, remaining: Array, kappa: Array | float) -> Array:
    """Return V such that VᵀV is the covariance that the posterior mean will have at the horizon.

        D = diag(κ H_a p_a (1 − p_a))    L Lᵀ = I + D^½ C D^½    V = L⁻¹ D^½ C    VᵀV = C − (C⁻¹ + D)⁻¹

    Args:
        logits: joint posterior of the candidates' logits.
        remaining: H, impressions that each candidate can still expect; 0 makes the choice greedy.
        kappa: κ, the share of H that is believed.

    Returns:
        V, [candidates, candidates].
    """
    p = jax.nn.sigmoid(logits.mean)
    root = jnp.sqrt(kappa * remaining * p * (1 - p))
    scaled = root[:, None] * logits.covariance
    inner = jnp.eye(p.shape[0]) + scaled * root[None, :]
    return jsl.solve_triangular(jnp.linalg.cholesky(inner), scaled, lower=True)


def is_best(logits: Gaussian, spread: Array, points: Array, eligible: Array) -> Array:
    """Return which candidates are best at each point: θ = m + Vᵀ ζ is the largest; ties are all best.

    Args:
        logits: posterior whose mean is m.
        spread: V, [candidates, candidates].
        points: ζ, [candidates, points].
        eligible: which candidates may be chosen, [candidates]; at least one.

    Returns:
        bool [candidates, points]; False for the ineligible.
    """
    dtype = points.dtype
    theta = logits.mean.astype(dtype)[:, None] + spread.astype(dtype).T @ points
    theta = jnp.where(eligible[:, None], theta, -jnp.inf)
    return theta == jnp.max(theta, axis=0, keepdims=True)


def propensities(best: Array, eligible: Array, uniform_share: Array | float) -> Array:
    """Return π = ε/K + (1 − ε) p̂, with p̂ the share of points at which a candidate is best, ties split.

    Args:
        best: from `is_best`, [candidates, points].
        eligible: the K candidates that may be chosen, [candidates].
        uniform_share: ε.

    Returns:
        π, float64 [candidates]; sums to 1, exactly 0 for the ineligible.
    """
    shares = jnp.mean(best / jnp.sum(best, axis=0, keepdims=True), axis=1, dtype=float)
    return jnp.where(eligible, uniform_share / jnp.sum(eligible), 0.0) + (1 - uniform_share) * shares


def choose(
    logits: Gaussian,
    exploration: Exploration,
    eligible: Array,
    points: Array,
    words: Array,
    seed: Array | int,
) -> Choice:
    """Choose one candidate for one request.

    With probability ε the candidate is drawn from all alike, else it is the best one at one of the set's
    points: together exactly π. Drawn so, a caller that does not read π (a simulation) does not pay for it.

    Args:
        logits: joint posterior of the candidates' logits; padding may hold anything finite.
        exploration: the campaign's horizon, traffic so far, κ and ε.
        eligible: which candidates may be chosen, [candidates]; False for padding.
        points: all point sets, [sets, candidates, points].
        words: the decision's key words, uint32 [3]; the third picks the point set.
        seed: the engine's seed; the same seed and words draw the same.

    Returns:
        π of all candidates, the index drawn from it, and H.
    """
    both = eligible[:, None] & eligible[None, :]
    known = Gaussian(
        jnp.where(eligible, logits.mean, 0.0), jnp.where(both, logits.covariance, jnp.eye(eligible.shape[0]))
    )
    remaining = remaining_impressions(exploration.horizon, exploration.so_far, exploration.n_active)
    spread = lookahead(known, remaining, exploration.kappa)
    chosen_set = points[words[2] % N_SETS]
    weights = propensities(is_best(known, spread, chosen_set, eligible), eligible, exploration.uniform_share)

    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), words[0]), words[1])
    branch, place, order = jax.random.uniform(key, (3,), float)
    point = jax.lax.dynamic_slice_in_dim(chosen_set, (place * N_POINTS).astype(int), 1, axis=1)
    winners = is_best(known, spread, point, eligible)[:, 0]
    drawn_from = jnp.where(branch < exploration.uniform_share, eligible, winners)
    rank = jnp.floor(order * jnp.sum(drawn_from))
    chosen = jnp.argmax(drawn_from & (jnp.cumsum(drawn_from) > rank))
    return Choice(weights, chosen, remaining)


def decision_words(decision_id: str) -> Int[np.ndarray, "3"]:
    """Return the key words of a decision id: uint32 [3], from its blake2b hash.

    Example:
        >>> decision_words("a").tolist() == decision_words("a").tolist()
        True
    """
    return np.frombuffer(blake2b(decision_id.encode(), digest_size=12).digest(), np.uint32)
