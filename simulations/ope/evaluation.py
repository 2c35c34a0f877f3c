"""One target policy on one log: estimates with intervals, and whether they can be trusted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from bandit.decision_log.logs import Log
from bandit.errors import LogError
from bandit.jax_runtime import double_precision
from simulations.ope.clusters import FEWEST, cluster_contents
from simulations.ope.estimators import (
    LoggedBatch,
    Terms,
    direct_method,
    doubly_robust,
    dr_optimistic_shrinkage,
    ips,
    largest_weight,
    marginalised_ips,
    rejection_replay,
    snips,
    switch_dr,
    value_of,
    weights_of,
)
from simulations.ope.intervals import Interval, bootstrap, empirical_bernstein
from simulations.ope.reward_model import cross_fitted

FEWEST_EFFECTIVE = 100  # rows; the normal approximation of a rate of 5 % needs five clicks
MOST_UNSUPPORTED = 0.01  # share of the target; more is refused, for no estimator can make up for it
HEAVY_WEIGHT = 0.1  # share of all weight on one row

Estimator = Callable[[LoggedBatch, Array], Terms]


def _root(batch: LoggedBatch) -> Array:
    """Return √n, where weights begin to cost more variance than they save bias (Ionides 2008)."""
    return jnp.sqrt(batch.reward.shape[0] * 1.0)


# From the batch and each row's uniform; the thresholds are √n, and λ = n has its largest weight at w = √n.
ESTIMATORS: dict[str, Estimator] = {
    "ips": lambda batch, _: ips(batch),
    "clipped-ips": lambda batch, _: ips(batch, _root(batch)),
    "snips": lambda batch, _: snips(batch),
    "dm": lambda batch, _: direct_method(batch),
    "dr": lambda batch, _: doubly_robust(batch),
    "switch-dr": lambda batch, _: switch_dr(batch, _root(batch)),
    "dr-os": lambda batch, _: dr_optimistic_shrinkage(batch, _root(batch) ** 2),
    "mips": lambda batch, _: marginalised_ips(batch),
    "replay": rejection_replay,
}
# Those whose terms are bounded by the largest weight, and are means.
BOUNDED = ("ips", "dr")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value by one estimator.

    Attributes:
        estimator: its name.
        value: the mean reward; None when no row counts.
        low: 2.5 % of the bootstrap; likewise.
        high: 97.5 %; likewise.
        standard_error: by the bootstrap; likewise.
        bernstein_low: a bound for any distribution; None where the log does not bound the weights.
        bernstein_high: likewise.
    """

    estimator: str
    value: float | None
    low: float | None
    high: float | None
    standard_error: float | None
    bernstein_low: float | None
    bernstein_high: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is known of a target policy.

    Attributes:
        rows: decisions evaluated.
        on_policy: the logged policy's own mean reward.
        on_policy_error: its standard error.
        effective_rows: (Σ w)² / Σ w², the decisions that the target's own log would need to say as much.
        largest_weight: of any row.
        mean_weight: 1 when the propensities are right.
        unsupported: share of the target's choices that the log cannot know about.
        rare: share with weights above √n, of which a log of n rows has hardly any; 0 where it does not say.
        estimates: in the order asked for.
        doubts: why the estimates cannot be trusted, in words; empty when they can.
        notes: what else should be known of them, in words.
    """

    rows: int
    on_policy: float
    on_policy_error: float
    effective_rows: float
    largest_weight: float
    mean_weight: float
    unsupported: float
    rare: float
    estimates: tuple[Estimate, ...]
    doubts: tuple[str, ...]
    notes: tuple[str, ...]


def evaluate(
    log: Log,
    target: Float[np.ndarray, "rows actions"],
    *,
    estimators: Sequence[str] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Estimate what a policy would have earned.

    Args:
        log: decisions with propensities.
        target: the policy's probabilities at each of them.
        estimators: names, of `ESTIMATORS`; None for all that the log allows.
        seed: of the bootstrap and the replay.

    Raises:
        LogError: an estimator is unknown or asks for more than the log has, rows are too few, or the target
            does what the log cannot know of.
    """
    names, notes = _asked(log, estimators)
    n_rows = len(log.action)
    if n_rows < 2:
        raise LogError(f"expected at least 2 decisions, got {n_rows}")
    unsupported = float((target * ~log.eligible).sum(axis=1).mean())
    if unsupported > MOST_UNSUPPORTED:
        raise LogError(
            f"{100 * unsupported:.1f} % of the policy's choices are never made in this log, so it cannot say "
            f"what they earn (at most {100 * MOST_UNSUPPORTED:.0f} % may be); evaluate a policy that chooses "
            "from what was shown, or log with a uniform share"
        )
    with double_precision():
        action, reward = jnp.asarray(log.action), jnp.asarray(log.reward)
        batch = LoggedBatch(
            action=action,
            reward=reward,
            propensity=jnp.asarray(log.propensity),
            logging=jnp.asarray(log.logging),
            eligible=jnp.asarray(log.eligible),
            target=jnp.asarray(target),
            estimates=cross_fitted(jnp.asarray(log.context), action, reward, len(log.actions)),
        )
        if "mips" in names and log.content is not None:
            cluster = cluster_contents(log.content)
            batch = batch._replace(cluster=jnp.asarray(cluster))
            notes += (
                f"mips takes the {len(log.actions)} creatives as {cluster.max() + 1} clusters of like "
                "contents: right if all of a cluster earn alike; else too low for a policy that prefers the "
                "better ones of a cluster, too high for one that prefers the worse",
            )
        found = _evaluation(batch, names, unsupported, jax.random.key(seed))
        return replace(found, notes=notes)


def _asked(log: Log, names: Sequence[str] | None) -> tuple[list[str], tuple[str, ...]]:
    """Return the estimators that a log allows, and what is to be said of the others."""
    if unknown := [name for name in names or () if name not in ESTIMATORS]:
        raise LogError(
            f"there is no estimator {', '.join(map(repr, unknown))}; choose of {', '.join(ESTIMATORS)}"
        )
    if names is not None and "mips" not in names:
        return list(names), ()
    if log.content is None:
        lack = "the log has no contents of the creatives; a database of ours has"
    elif len(log.actions) < FEWEST:
        lack = f"it needs at least {FEWEST} creatives, and the log has {len(log.actions)}"
    elif np.isnan(log.logging).any():
        lack = "the log has the propensities of the creatives shown only"
    else:
        return list(names or ESTIMATORS), ()
    if names is not None:
        raise LogError(f"mips cannot be had: {lack}; leave it out")
    return [name for name in ESTIMATORS if name != "mips"], (f"mips is left out: {lack}",)


def _evaluation(batch: LoggedBatch, names: Sequence[str], unsupported: float, key: Array) -> Evaluation:
    key_uniforms, key_bootstrap = jax.random.split(key)
    uniforms = jax.random.uniform(key_uniforms, batch.reward.shape)
    each = [ESTIMATORS[name](batch, uniforms) for name in names]
    stacked = Terms(*(jnp.stack(leaves) for leaves in zip(*each, strict=True)))
    interval, errors = jax.device_get(bootstrap(stacked, key_bootstrap))
    bounds = [_bernstein(name, terms, batch) for name, terms in zip(names, each, strict=True)]
    weights = np.asarray(weights_of(batch))
    rewards = np.asarray(batch.reward)
    squares = float((weights**2).sum())
    found = Evaluation(
        rows=len(rewards),
        on_policy=float(rewards.mean()),
        on_policy_error=float(rewards.std(ddof=1) / len(rewards) ** 0.5),
        effective_rows=float(weights.sum()) ** 2 / squares if squares else 0.0,
        largest_weight=float(weights.max()),
        mean_weight=float(weights.mean()),
        unsupported=unsupported,
        rare=_rare(batch),
        estimates=tuple(
            Estimate(
                estimator=name,
                value=_known(value_of(terms)),
                low=_known(interval.low[i]),
                high=_known(interval.high[i]),
                standard_error=_known(errors[i]),
                bernstein_low=bounds[i][0],
                bernstein_high=bounds[i][1],
            )
            for i, (name, terms) in enumerate(zip(names, each, strict=True))
        ),
        doubts=(),
        notes=(),
    )
    return replace(found, doubts=_doubts(found, weights, rewards))


def _rare(batch: LoggedBatch) -> float:
    is_rare = batch.eligible & (batch.target > _root(batch) * batch.logging)  # False for NaN
    return float(jnp.mean(jnp.sum(jnp.where(is_rare, batch.target, 0.0), axis=1)))


def _known(number: Array) -> float | None:
    return None if np.isnan(number) else float(number)


def _bernstein(name: str, terms: Terms, batch: LoggedBatch) -> tuple[float, float] | tuple[None, None]:
    if name not in BOUNDED or not np.isfinite(largest_weight(batch)):
        return None, None
    low, high = bernstein_of(name, terms, batch)
    return max(float(low), 0.0), min(float(high), 1.0)


def bernstein_of(name: str, terms: Terms, batch: LoggedBatch) -> Interval:
    """Return bounds: an IPS term is in [0, W], one of DR in [−W, W + 1], W the largest weight possible."""
    largest = largest_weight(batch)
    return empirical_bernstein(terms.numerator, largest if name == "ips" else 2 * largest + 1)


def _doubts(
    found: Evaluation, weights: Float[np.ndarray, "rows"], rewards: Float[np.ndarray, "rows"]
) -> tuple[str, ...]:
    doubts = []
    total = float(weights.sum())
    if found.effective_rows < FEWEST_EFFECTIVE:
        doubts.append(
            f"the log says as much as {found.effective_rows:.0f} decisions of the policy itself "
            f"({FEWEST_EFFECTIVE} are needed)"
        )
    if total and found.largest_weight > HEAVY_WEIGHT * total:
        doubts.append(f"one decision carries {100 * found.largest_weight / total:.0f} % of all weight")
    if found.unsupported > 0:
        doubts.append(f"{100 * found.unsupported:.2f} % of the policy's choices are never made in this log")
    if found.rare > MOST_UNSUPPORTED:
        doubts.append(
            f"{100 * found.rare:.1f} % of the policy's choices are too rare in this log to be learnt from "
            f"(weights above {found.rows**0.5:.0f})"
        )
    spread = float(weights.std(ddof=1)) / found.rows**0.5
    if abs(found.mean_weight - 1) > 4 * spread + found.unsupported + found.rare:
        doubts.append(
            f"the mean weight is {found.mean_weight:.2f} ± {spread:.2f} and should be 1: "
            "the propensities are wrong, or the log is too short"
        )
    if not (weights * rewards).any():
        doubts.append("no click fell on what the policy would have shown")
    return tuple(doubts)
