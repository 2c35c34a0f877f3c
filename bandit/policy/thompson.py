"""From the logits' posterior to the chosen creative and its exact propensity.

Plain Thompson sampling explores as if a campaign never ended. Here the draw comes from what the posterior
*mean* can become by the horizon: only the uncertainty that the remaining traffic can still remove is worth
paying for. It is judged optimistically, and drawn with less noise than it has.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from bandit.policy.propensity import Limits, Propensities, draw, propensities_of
from bandit.policy.quasi_random import N_POINTS, N_SETS
from bandit.policy.randomness import Uniforms
from bandit.posterior import Gaussian
from bandit.posterior.linalg import cholesky, solve_lower

KAPPA = 0.5  # share of an even split that an arm can expect of the remaining traffic; tuned as OPTIMISM is
OPTIMISM = 1.5  # z, lookahead sd above the mean; tuned on old A/B tests and on worlds with contexts
NOISE = 0.4  # part of the lookahead that is drawn at random, likewise
UNIFORM_SHARE = 0.01  # traffic given to every candidate alike, so that each propensity is positive
ENDLESS = 1e9  # impressions an arm; beyond it the lookahead is all uncertainty, to 1e-3 of a posterior sd


class Exploration(NamedTuple):
    """How one campaign explores at one moment.

    Attributes:
        horizon: impressions the campaign expects in all; infinite for plain Thompson sampling.
        so_far: impressions it has had, n.
        kappa: κ, the share of an even split of the rest that each arm is believed to get; 0 is greedy.
        uniform_share: ε, the fraction of traffic that all candidates share alike.
        n_active: K, the campaign's active creatives, whether this request may show them or not.
        control_share: the fraction of traffic that is shared alike as well and marked, to compare with.
    """

    horizon: Float[Array, ""]
    so_far: Float[Array, ""]
    kappa: Float[Array, ""]
    uniform_share: Float[Array, ""]
    n_active: Float[Array, ""]
    control_share: Float[Array, ""] | float = 0.0


class Choice(NamedTuple):
    """One request's answer.

    Attributes:
        propensities: π of all candidates; sums to 1, exactly 0 for the ineligible.
        chosen: index of the candidate drawn from π.
        remaining: H, the impressions that each candidate was believed to expect still.
        is_control: whether it was drawn as a control, from all eligible alike.
    """

    propensities: Float[Array, "candidates"]
    chosen: Int[Array, ""]
    remaining: Float[Array, ""]
    is_control: Bool[Array, ""] | bool = False


class Lookahead(NamedTuple):
    """What the points are laid over: θ = m + Vᵀ ζ.

    Attributes:
        mean: m, the posterior mean of the candidates' logits, lifted by optimism.
        spread: V, the lookahead, scaled by noise, [candidates, candidates].
        remaining: H, the impressions that each candidate can still expect.
    """

    mean: Float[Array, "candidates"]
    spread: Float[Array, "candidates candidates"]
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
    return solve_lower(cholesky(inner), scaled)


def look_ahead(
    logits: Gaussian,
    exploration: Exploration,
    eligible: Array,
    optimism: Array | float = OPTIMISM,
    noise: Array | float = NOISE,
) -> Lookahead:
    """Return mean and spread of the eligible; what the others hold does not matter.

        θ = m + z s + ρ Vᵀ ζ    s_a² = (VᵀV)_aa

    An arm is worth what its posterior mean can still become, z standard deviations up; a little noise keeps
    propensities between 0 and 1. An endless horizon is plain Thompson sampling: z = 0, ρ = 1.

    Args:
        logits: joint posterior of the candidates' logits.
        exploration: the campaign's.
        eligible: which candidates may be chosen.
        optimism: z.
        noise: ρ.

    References:
        B. C. May, N. Korda, A. Lee, D. S. Leslie, "Optimistic Bayesian sampling in contextual-bandit
        problems", JMLR 13, 2012; E. Kaufmann, O. Cappé, A. Garivier, "On Bayesian upper confidence bounds for
        bandit problems", AISTATS 2012.
    """
    both = eligible[:, None] & eligible[None, :]
    known = Gaussian(
        jnp.where(eligible, logits.mean, 0.0), jnp.where(both, logits.covariance, jnp.eye(eligible.shape[0]))
    )
    remaining = remaining_impressions(exploration.horizon, exploration.so_far, exploration.n_active)
    spread = lookahead(known, remaining, exploration.kappa)
    is_endless = jnp.isinf(exploration.horizon)
    lift = jnp.where(is_endless, 0.0, optimism) * jnp.sqrt(jnp.sum(spread**2, axis=0))
    return Lookahead(known.mean + lift, jnp.where(is_endless, 1.0, noise) * spread, remaining)


def is_best(mean: Array, spread: Array, points: Array, eligible: Array) -> Array:
    """Return which candidates are best at each point: θ = m + Vᵀ ζ is the largest; ties are all best.

    Args:
        mean: m, [candidates].
        spread: V, [candidates, candidates].
        points: ζ, [candidates, points].
        eligible: which candidates may be chosen, [candidates]; at least one.

    Returns:
        bool [candidates, points]; False for the ineligible.
    """
    dtype = points.dtype
    theta = mean.astype(dtype)[:, None] + spread.astype(dtype).T @ points
    theta = jnp.where(eligible[:, None], theta, -jnp.inf)
    return theta == jnp.max(theta, axis=0, keepdims=True)


def best_shares(best: Array) -> Array:
    """Return p̂, the share of points at which a candidate is best, ties split; float64 [candidates].

    Args:
        best: from `is_best`, [candidates, points].
    """
    each = 1.0 / jnp.sum(best, axis=0)
    return jnp.sum(jnp.where(best, each, 0.0), axis=1) / best.shape[1]


def propensities_at(
    best: Array, exploration: Exploration, eligible: Array, limits: Limits | None
) -> Propensities:
    """Return the propensities that follow from who is best at the points of a set."""
    return propensities_of(best_shares(best), eligible, even_share(exploration), limits)


def even_share(exploration: Exploration) -> Array:
    """Return ε, the fraction of traffic that all eligible share alike, controls included."""
    return jnp.minimum(exploration.uniform_share + exploration.control_share, 1.0)


def choose(
    logits: Gaussian,
    exploration: Exploration,
    eligible: Array,
    points: Array,
    uniforms: Uniforms,
    limits: Limits | None = None,
    *,
    optimism: Array | float = OPTIMISM,
    noise: Array | float = NOISE,
) -> Choice:
    """Choose one candidate for one request.

    The candidate is drawn by `propensity.draw`, as the best one at one of the set's points unless floors or
    the control draw: together exactly π. Drawn so, a caller that has no caps and does not read π (a
    simulation) does not pay for it.

    Args:
        logits: joint posterior of the candidates' logits; padding may hold anything finite.
        exploration: the campaign's horizon, traffic so far, κ and ε.
        eligible: which candidates may be chosen, [candidates]; False for padding.
        points: all point sets, [sets, candidates, points].
        uniforms: the decision's; the same ones draw the same.
        limits: floors and caps; None for none.
        optimism: z, see `look_ahead`.
        noise: ρ, see `look_ahead`.

    Returns:
        π of all candidates, the index drawn from it, and H.
    """
    lookahead = look_ahead(logits, exploration, eligible, optimism, noise)
    chosen_set = points[uniforms.point_set % N_SETS]
    best = is_best(lookahead.mean, lookahead.spread, chosen_set, eligible)
    propensities = propensities_at(best, exploration, eligible, limits)
    point = (uniforms.point * N_POINTS).astype(int)
    has_caps = limits is not None and limits.cap is not None
    if has_caps:
        winners = best[:, point]
    else:
        at_point = jax.lax.dynamic_slice_in_dim(chosen_set, point, 1, axis=1)
        winners = is_best(lookahead.mean, lookahead.spread, at_point, eligible)[:, 0]
    chosen, is_control = draw(
        propensities, winners, eligible, exploration.control_share, uniforms, has_caps=has_caps
    )
    return Choice(propensities.capped, chosen, lookahead.remaining, is_control)


class ListChoice(NamedTuple):
    """An ordered list of candidates, none twice.

    Attributes:
        places: the choice of each place, leaves [places, …]; the propensities of those shown before are 0.
        list_propensity: probability of the places up to each one, in this order, [places].
    """

    places: Choice
    list_propensity: Float[Array, "places"]


def choose_list(
    logits: Gaussian,
    exploration: Exploration,
    eligible: Array,
    points: Array,
    uniforms: Uniforms,
    limits: Limits | None = None,
) -> ListChoice:
    """Choose several candidates in order: each place from π of those that are left, with one point set.

    Args:
        logits: as for `choose`.
        exploration: as for `choose`.
        eligible: as for `choose`; places beyond their number hold nothing of use.
        points: as for `choose`.
        uniforms: of each place, leaves [places]; the first one's point set serves all.
        limits: as for `choose`, at every place.
    """

    def place(left: Array, own: Uniforms) -> tuple[Array, Choice]:
        own = own._replace(point_set=uniforms.point_set[0])
        choice = choose(logits, exploration, left, points, own, limits)
        after = left & (jnp.arange(left.shape[0]) != choice.chosen)
        return jnp.where(jnp.any(after), after, eligible), choice

    _, places = jax.lax.scan(place, jnp.asarray(eligible), uniforms)
    own = jnp.take_along_axis(places.propensities, places.chosen[:, None], axis=1)[:, 0]
    return ListChoice(places, jnp.cumprod(own))
