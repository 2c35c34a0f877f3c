"""The model written down a second time, densely and in NumPy: what the tests hold the package against.

Unknowns are stacked as x = [w, b of every campaign, e of every arm]; a row's logit is one dot product with x,
so the posterior given sites is one linear solve and nothing is eliminated.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from bandit.posterior import Prior, Rows


class Dense(NamedTuple):
    """A Gaussian over all unknowns, in information form."""

    precision: np.ndarray
    information: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        return np.linalg.solve(self.precision, self.information)

    @property
    def covariance(self) -> np.ndarray:
        return np.linalg.inv(self.precision)


def dense_prior(prior: Prior, n_arms: int, n_campaigns: int) -> Dense:
    scale = np.concatenate(
        [
            np.asarray(prior.scale),
            np.full(n_campaigns, float(prior.campaign_scale)),
            np.full(n_arms, float(prior.arm_scale)),
        ]
    )
    mean = np.concatenate([np.asarray(prior.mean), np.zeros(n_campaigns + n_arms)])
    return Dense(np.diag(1 / scale**2), mean / scale**2)


def design(rows: Rows, n_arms: int, n_campaigns: int) -> np.ndarray:
    """Return the matrix that takes x to the rows' logits."""
    campaigns = np.eye(n_campaigns)[np.asarray(rows.campaign)]
    arms = np.eye(n_arms)[np.asarray(rows.arm)]
    return np.hstack([np.asarray(rows.features), campaigns, arms])


def add_sites(state: Dense, matrix: np.ndarray, weight: np.ndarray, information: np.ndarray) -> Dense:
    return Dense(state.precision + (matrix.T * weight) @ matrix, state.information + matrix.T @ information)


def logits(state: Dense, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of some rows' logits."""
    return matrix @ state.mean, matrix @ state.covariance @ matrix.T


def averaged_rate(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return expit(mean + 0.5 * variance * (1 - 2 * expit(mean)))


def learn_in_weight_space(
    state: Dense,
    matrix: np.ndarray,
    impressions: np.ndarray,
    clicks: np.ndarray,
    *,
    tolerance: float,
    passes: int,
) -> tuple[Dense, np.ndarray, np.ndarray]:
    """Learn one mini-batch: each pass adds the batch's sites to the state before it and steps twice.

    Returns:
        The posterior, and the sites' weights and informations.
    """
    mean, covariance = logits(state, matrix)
    variance = np.minimum(np.diag(covariance), 1.0)

    def sites() -> tuple[np.ndarray, np.ndarray]:
        p = averaged_rate(mean, variance)
        weight = impressions * p * (1 - p)
        return weight, weight * mean + clicks - impressions * p

    for _ in range(passes):
        target, covariance = logits(add_sites(state, matrix, *sites()), matrix)
        weight, information = sites()
        step = np.clip(target - mean, -2, 2)
        mean, variance = mean + step, np.diag(covariance)
        largest = np.abs(step[impressions > 0]).max()
        slope = clicks - impressions * averaged_rate(mean, variance) - (information - weight * target)
        chord = np.clip(covariance @ slope, -2, 2)
        if largest < 2:
            mean = mean + chord
        if largest < 0.5 and np.abs(chord[impressions > 0]).max() < tolerance:
            break
    return add_sites(state, matrix, *sites()), *sites()


class Moments(NamedTuple):
    """Posterior mean and standard deviation of each logit, and the Monte-Carlo error of the mean."""

    mean: np.ndarray
    sd: np.ndarray
    error: np.ndarray


def sample_logits(
    mean: np.ndarray,
    covariance: np.ndarray,
    impressions: np.ndarray,
    clicks: np.ndarray,
    *,
    seed: int,
    n_chains: int = 256,
    n_draws: int = 400,
) -> Moments:
    """Sample logits with a Gaussian prior under binomial counts, without approximation.

    Hamiltonian Monte Carlo in many chains at once, in coordinates where the Gaussian at the mode is a unit;
    a draw goes about a quarter of the way around, so that successive draws are nearly independent.
    """
    random = np.random.default_rng(seed)
    precision = np.linalg.inv(covariance)
    mode = mean
    for _ in range(50):  # Newton's steps to the mode
        p = expit(mode)
        curvature = precision + np.diag(impressions * p * (1 - p))
        step = np.linalg.solve(curvature, clicks - impressions * p - precision @ (mode - mean))
        mode = mode + np.clip(step, -1, 1)
    factor = np.linalg.inv(np.linalg.cholesky(curvature)).T

    def energy(eta: np.ndarray) -> np.ndarray:
        likelihood = (clicks * eta - impressions * np.logaddexp(0, eta)).sum(axis=1)
        return 0.5 * (((eta - mean) @ precision) * (eta - mean)).sum(axis=1) - likelihood

    def slope(eta: np.ndarray) -> np.ndarray:
        return ((eta - mean) @ precision - clicks + impressions * expit(eta)) @ factor

    eta = mode + random.normal(size=(n_chains, len(mean))) @ factor.T
    burn_in = n_draws // 4
    total, squares = np.zeros((2, n_chains, len(mean)))
    accepted = 0
    for draw in range(burn_in + n_draws):
        momentum = random.normal(size=eta.shape)
        size = random.uniform(0.25, 0.4)
        proposal, moving = eta, momentum - 0.5 * size * slope(eta)
        for leap in range(5):
            proposal = proposal + size * moving @ factor.T
            moving = moving - (size if leap < 4 else 0.5 * size) * slope(proposal)
        gain = energy(eta) - energy(proposal) + 0.5 * ((momentum**2).sum(axis=1) - (moving**2).sum(axis=1))
        keep = np.log(random.uniform(size=n_chains)) < gain
        eta = np.where(keep[:, None], proposal, eta)
        if draw >= burn_in:
            accepted += keep.sum()
            total += eta
            squares += eta**2
    assert accepted / (n_draws * n_chains) > 0.6, "the chains hardly move"
    means = total / n_draws
    average = means.mean(axis=0)
    sd = np.sqrt(squares.sum(axis=0) / (n_draws * n_chains) - average**2)
    return Moments(average, sd, means.std(axis=0, ddof=1) / np.sqrt(n_chains))


def exact_moments(mean: float, variance: float, impressions: float, clicks: float) -> tuple[float, float]:
    """Return posterior mean and sd of one logit under binomial counts, by quadrature on a fine grid."""
    sd = np.sqrt(variance)
    eta = np.linspace(mean - 60 * sd, mean + 60 * sd, 1_000_001)
    log_density = -0.5 * (eta - mean) ** 2 / variance + clicks * eta - impressions * np.logaddexp(0, eta)
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    average = (density * eta).sum()
    return average, np.sqrt((density * (eta - average) ** 2).sum())
