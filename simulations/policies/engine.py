"""The engine as simulations play it; nobody else makes one.

It draws by `bandit.policy.thompson.choose` and learns by `bandit.posterior`. What the engine does besides is
done when `bandit.learning.schedule` has it done, by the numbers that a database's log would give the steps:
scales are learnt, the past is fitted anew, and it is forgotten. Tests hold every experiment's decisions
against those of `bandit.Engine` on a database.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from bandit.features.design import N_CONTEXT, PriorScales, scale_groups, weight_prior
from bandit.learning.replica import BATCH
from bandit.learning.schedule import FORGET_EVERY, LAST_REFIT, SCALES_EVERY, is_refit_due
from bandit.policy.predictive import map_logits, map_slots
from bandit.policy.quasi_random import normal_points
from bandit.policy.randomness import Uniforms
from bandit.policy.thompson import KAPPA, NOISE, OPTIMISM, UNIFORM_SHARE, Choice, Exploration, choose
from bandit.posterior import (
    Gaussian,
    Prior,
    Rows,
    Sites,
    State,
    find_sites,
    forget,
    initial_state,
    learn_scales,
    predict,
    update,
)
from simulations.calibration import expected_rate
from simulations.policies.base import Counts, Outcomes, Policy, Request, no_counts
from simulations.policies.linear import contents_loading, disjoint_basis
from simulations.policies.refit import Seen, nothing_seen, refit_seen

ROOM = LAST_REFIT + BATCH  # decisions that a refit may have to know


class EngineNumbers(NamedTuple):
    """What an engine can be set to; the defaults are what is shipped.

    Attributes:
        kappa: κ, see `thompson.Exploration`.
        uniform: ε.
        endless: 1 where the horizon is not believed: plain Thompson sampling.
        optimism: z, see `thompson.look_ahead`.
        noise: ρ.
        half_life: days after which half of what the data taught is forgotten.
    """

    kappa: Array | float = KAPPA
    uniform: Array | float = UNIFORM_SHARE
    endless: Array | float = 0.0
    optimism: Array | float = OPTIMISM
    noise: Array | float = NOISE
    half_life: Array | float = float("inf")


SHIPPED = EngineNumbers()


def draw(
    logits: Gaussian,
    horizon: Array | float,
    so_far: Array,
    numbers: EngineNumbers,
    request: Request,
    uniforms: Uniforms,
) -> Choice:
    """Draw a creative as the engine does, among the points that it has for so many."""
    reach = jnp.where(jnp.asarray(numbers.endless) > 0, jnp.inf, horizon)
    exploration = Exploration(
        reach,
        so_far,
        jnp.asarray(numbers.kappa),
        jnp.asarray(numbers.uniform),
        jnp.sum(request.eligible),
    )
    points = jnp.asarray(normal_points(logits.mean.shape[0]))
    return choose(
        *(logits, exploration, request.eligible, points, uniforms),
        optimism=numbers.optimism,
        noise=numbers.noise,
    )


class LogitState(NamedTuple):
    """The engine's belief about a campaign without context: the logits of its arms are all there is.

    Attributes:
        logits: their joint posterior.
        so_far: impressions counted against the horizon.
        sites: what the campaign's outcomes add to the information of each arm.
        counts: impressions and clicks of each arm.
        at_refit: impressions that the newest refit knew.
    """

    logits: Gaussian
    so_far: Float[Array, ""]
    sites: Sites
    counts: Counts
    at_refit: Float[Array, ""]


def engine_on_logits(
    prior: Gaussian,
    horizon: Array | float,
    numbers: EngineNumbers = SHIPPED,
    *,
    name: str = "engine",
    refits: bool = True,
) -> Policy:
    """Return the engine for one campaign without context, whose weights stay as the past left them.

    Args:
        prior: joint logits of the arms before the campaign.
        horizon: impressions expected in all.
        numbers: its settings; there is no clock here, and nothing is forgotten.
        name: what tables call it.
        refits: whether the campaign is fitted anew now and then; False where somebody does more than that.
    """
    n_arms = prior.mean.shape[0]

    def decide(state: LogitState, request: Request, uniforms: Uniforms) -> Choice:
        return draw(state.logits, horizon, state.so_far, numbers, request, uniforms)

    def learn(state: LogitState, outcomes: Outcomes) -> LogitState:
        batch = no_counts(n_arms).plus(outcomes)
        counts = state.counts.plus(outcomes)
        sites, logits, _ = find_sites(state.logits, *batch)
        so_far = state.so_far + outcomes.clicks.shape[0]
        is_due = is_refit_due(so_far, state.at_refit) & refits
        learnt = (jax.tree.map(jnp.add, state.sites, sites), logits)
        anew = jax.lax.cond(is_due, lambda: find_sites(prior, *counts)[:2], lambda: learnt)
        return LogitState(anew[1], so_far, anew[0], counts, jnp.where(is_due, so_far, state.at_refit))

    zero = jnp.zeros(())
    nothing = Sites(jnp.zeros(n_arms), jnp.zeros(n_arms))
    return Policy(name, LogitState(prior, zero, nothing, no_counts(n_arms), zero), decide, learn)


class Design(NamedTuple):
    """What the engine's model is for one campaign with contexts.

    Attributes:
        prior: of the weights of φ, and of effects.
        groups: which weights share a scale that is learnt.
        loading: B with φ_a(x) = x̃ B_a, x̃ = [1, x]; requests' features begin with x̃.
        logits: (posterior, request) -> joint logits of all arms.
    """

    prior: Prior
    groups: Float[Array, "groups dim"]
    loading: Float[Array, "arms slots dim"]
    logits: Callable[[State, Request], Gaussian]


def logits_of_rows(state: State, request: Request) -> Gaussian:
    """Return the joint logits of a request's rows, arm by arm; for features of any kind."""
    arms = jnp.arange(request.features.shape[0])
    return predict(state, request.features, arms, jnp.zeros_like(arms))


def design_of_contents(content: Float[Array, "arms content"], mean: Float[Array, "content"]) -> Design:
    """Return the shipped model for a campaign whose contents are known beforehand.

    Args:
        content: content features of the candidates; the requests' features must be made of these.
        mean: their campaign's mean content, likewise.
    """

    def logits(state: State, request: Request) -> Gaussian:
        # The map does not depend on the request: mapped over a batch, it is computed once.
        slots = map_slots(state)
        known = map_logits(state, slots, content, mean, jnp.arange(len(content)), jnp.zeros((), int))
        return known.at(slots, request.features[0, 1 : 1 + N_CONTEXT])

    groups = jnp.asarray(scale_groups())
    return Design(weight_prior(PriorScales()), groups, contents_loading(content, mean), logits)


def design_of_labels(n_arms: int, n_slots: int) -> Design:
    """Return the engine's model for arms that are told apart by name only: φ = [x̃, x̃ in the arm's own place].

    Weights that all share have the prior scale of contexts, an arm's own that of interactions; the prior is
    centred on a click in n_arms impressions.

    Args:
        n_arms: how many.
        n_slots: length of x̃.
    """
    scales = PriorScales()
    parts = np.array([1, n_slots - 1, n_arms * n_slots])
    scale = np.repeat([scales.intercept, scales.context, scales.interaction], parts)
    mean = np.zeros(len(scale))
    mean[0] = -np.log(n_arms - 1)
    prior = Prior(*map(jnp.asarray, (mean, scale, scales.campaign, scales.arm)))
    groups = jnp.asarray(np.repeat(np.eye(3)[:, 1:], parts, axis=0).T)
    shared = disjoint_basis(n_arms, n_slots).loading
    own = jnp.einsum("ab,st->asbt", jnp.eye(n_arms), jnp.eye(n_slots)).reshape(n_arms, n_slots, -1)
    return Design(prior, groups, jnp.concatenate([shared, own], axis=2), logits_of_rows)


class EngineState(NamedTuple):
    """The engine's belief in a world with contexts.

    Attributes:
        posterior: its full posterior; campaign 0, whose arms are 0, 1, …
        so_far: impressions counted against the horizon, all of them learnt.
        step: steps of its log.
        at_refit: impressions that the newest refit knew.
        forgot_at: impressions at the last step of forgetting.
        seen: the rows of its next refit.
    """

    posterior: State
    so_far: Float[Array, ""]
    step: Int[Array, ""]
    at_refit: Float[Array, ""]
    forgot_at: Float[Array, ""]
    seen: Seen


def engine(
    design: Design,
    horizon: Array | float,
    numbers: EngineNumbers = SHIPPED,
    *,
    name: str = "engine",
    room: int = ROOM,
    per_day: Array | float | None = None,
    learns_scales: bool = True,
) -> Policy:
    """Return the engine for one campaign with contexts.

    Args:
        design: its model.
        horizon: impressions expected in all.
        numbers: its settings.
        name: what tables call it.
        room: impressions that it will learn at most, as far as is known; what it keeps for refits is as long.
        per_day: impressions of a day; None where it forgets nothing.
        learns_scales: whether the prior's scales are learnt.
    """
    n_arms, n_slots, _ = design.loading.shape
    nowhere = jnp.zeros(n_arms, int)  # the arms' campaign

    def tell(state: EngineState, request: Request, uniforms: Uniforms) -> tuple[Choice, Array]:
        logits = design.logits(state.posterior, request)
        choice = draw(logits, horizon, state.so_far, numbers, request, uniforms)
        return choice, expected_rate(logits, choice.chosen)

    def keep_up(state: EngineState, now: Array) -> EngineState:
        """Do the steps that are due without data."""
        if per_day is not None:
            days = (now - state.forgot_at) / per_day
            is_due = days * 24 >= FORGET_EVERY.total_seconds() / 3600
            decay = jnp.where(is_due, 0.5 ** (days / numbers.half_life), 1.0)
            seen = state.seen
            state = state._replace(
                posterior=jax.lax.cond(
                    is_due, lambda known: forget(known, decay, nowhere), _as_it_is, state.posterior
                ),
                seen=seen._replace(impressions=decay * seen.impressions, clicks=decay * seen.clicks),
                step=state.step + is_due,
                forgot_at=jnp.where(is_due, now, state.forgot_at),
            )
        if not learns_scales:
            return state
        is_due = (state.step + 1) % SCALES_EVERY == 0
        posterior = jax.lax.cond(
            is_due,
            lambda known: learn_scales(known, design.prior, design.groups, nowhere),
            _as_it_is,
            state.posterior,
        )
        return state._replace(posterior=posterior, step=state.step + is_due)

    def learn_batch(state: EngineState, rows: Rows) -> EngineState:
        n = rows.impressions.sum()
        place = state.so_far.astype(int) + jnp.arange(len(rows.arm))
        seen = Seen(rows.features[:, :n_slots], rows.arm, rows.impressions, rows.clicks)
        seen = jax.tree.map(lambda all_, new: all_.at[place].set(new, mode="drop"), state.seen, seen)
        so_far = state.so_far + n
        is_due = is_refit_due(so_far, state.at_refit)
        groups = design.groups if learns_scales else None
        posterior = jax.lax.cond(
            is_due,
            lambda _: refit_seen(design.prior, design.loading, seen, so_far.astype(int), groups),
            lambda known: update(known, rows)[0],
            state.posterior,
        )
        return state._replace(
            posterior=posterior,
            so_far=so_far,
            step=state.step + 1 + is_due,
            at_refit=jnp.where(is_due, so_far, state.at_refit),
            seen=seen,
        )

    def learn(state: EngineState, outcomes: Outcomes) -> EngineState:
        size = len(outcomes.clicks)
        now = state.so_far + size
        pieces, padding = -(-size // BATCH), -size % min(size, BATCH)
        chosen, zeros = outcomes.chosen, jnp.zeros_like(outcomes.chosen)
        rows = Rows(outcomes.features, chosen, zeros, jnp.ones_like(outcomes.clicks), outcomes.clicks)
        if pieces == 1:
            return learn_batch(keep_up(state, now), rows)
        rows = jax.tree.map(
            lambda leaf: jnp.pad(leaf, [(0, padding)] + [(0, 0)] * (leaf.ndim - 1)).reshape(
                pieces, -1, *leaf.shape[1:]
            ),
            rows,
        )
        return jax.lax.scan(
            lambda known, piece: (learn_batch(keep_up(known, now), piece), None), state, rows
        )[0]

    zero = jnp.zeros(())
    start = EngineState(
        posterior=initial_state(design.prior, n_arms, 1),
        so_far=zero,
        step=jnp.array(0),
        at_refit=zero,
        forgot_at=zero,
        seen=nothing_seen(min(room, ROOM), n_slots),
    )
    return Policy(name, start, lambda *request: tell(*request)[0], learn, tell)


def _as_it_is(state: State) -> State:
    return state
