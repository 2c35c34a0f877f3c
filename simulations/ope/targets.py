"""Policies to evaluate: what each would have done at every row of a log."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bandit.decision_log.logs import Log
from bandit.decision_log.reading import CSV, header_of, read_log
from bandit.errors import LogError
from bandit.jax_runtime import double_precision
from simulations.ope.probabilities import COLUMNS, read_probabilities
from simulations.ope.reward_model import fit, predict


def uniform(log: Log) -> Float[np.ndarray, "rows actions"]:
    """Return equal probabilities of all that could be taken."""
    return log.eligible / log.eligible.sum(axis=1, keepdims=True)


def greedy(past: Log, log: Log) -> Float[np.ndarray, "rows actions"]:
    """Return 1 for the eligible action that a reward model expects most of; ties are shared.

    Args:
        past: what the model is fitted on; none of the rows that are evaluated, or it would know the outcomes.
        log: what is evaluated.
    """
    with double_precision():
        context, action, reward = map(jnp.asarray, (past.context, past.action, past.reward))
        weights = fit(context, action, reward, jnp.ones_like(reward), len(past.actions))
        expected = np.asarray(predict(weights, jnp.asarray(log.context)))
    expected = np.where(log.eligible, expected, -np.inf)
    best = expected == expected.max(axis=1, keepdims=True)
    return best / best.sum(axis=1, keepdims=True)


def of_file(path: Path, log: Log) -> Float[np.ndarray, "rows actions"]:
    """Return a policy that a file describes: its own probabilities, or a log that it has made.

    Args:
        path: a CSV as `read_probabilities` reads it, or a log as `read_log` does.
        log: what is evaluated.

    Raises:
        LogError: the file is bad, or does not fit the log.
        FileNotFoundError: there is no such file.
    """
    if path.name.endswith(CSV) and set(COLUMNS) & set(header_of(path)) == set(COLUMNS):
        return read_probabilities(path, log)
    return shares_of(read_log(path), log)


def shares_of(other: Log, log: Log) -> Float[np.ndarray, "rows actions"]:
    """Return another policy's mean probabilities at each position: how often its own log has each action.

    That frequency is unbiased for the mean of its propensities. The mean of the propensities that a log holds
    is not: it has those of the actions taken only, which are the larger ones, and sums to more than 1.

    Args:
        other: a log of the target policy.
        log: what is evaluated.

    Raises:
        LogError: the other log has actions that this one never took, or lacks positions of this one.
    """
    if unknown := sorted(set(other.actions) - set(log.actions)):
        raise LogError(f"the other policy's log has items that this log never shows: {', '.join(unknown)}")
    positions = np.unique(log.position)
    if missing := sorted(set(positions.tolist()) - set(other.position.tolist())):
        raise LogError(f"the other policy's log has no rows at position {', '.join(map(str, missing))}")
    index = {name: i for i, name in enumerate(log.actions)}
    action = np.array([index[name] for name in other.actions])[other.action]
    counts = np.zeros((len(positions), len(log.actions)))
    is_asked = np.isin(other.position, positions)
    np.add.at(counts, (np.searchsorted(positions, other.position[is_asked]), action[is_asked]), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    return shares[np.searchsorted(positions, log.position)]
