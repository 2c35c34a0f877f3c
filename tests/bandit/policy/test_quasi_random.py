import hashlib

import numpy as np
import pytest
from scipy.special import ndtr

from bandit.policy.quasi_random import N_POINTS, N_SETS, normal_points

# Propensities in every decision log rest on these very points. When a change of scipy moves them, keep the
# old points readable and raise VERSION: a log's π could not be computed again otherwise.
PINNED = {
    4: "f56cee20e3ddde7ec1c42b3f057a542d1f7b65e80d1a9cabd6d32af32327c896",
    16: "caeb973dd02ea11238c602eae5e17279a4dd8928614070f85b1b50497946d372",
}


@pytest.mark.parametrize("n_candidates", PINNED)
def test_points_are_pinned(n_candidates: int) -> None:
    rounded = np.round(normal_points(n_candidates), 4)  # a last digit may differ by platform
    assert hashlib.sha256(rounded.tobytes()).hexdigest() == PINNED[n_candidates]


@pytest.mark.parametrize("n_candidates", [1, 4, 8])
def test_every_coordinate_is_one_point_per_stratum(n_candidates: int) -> None:
    points = normal_points(n_candidates)
    assert points.shape == (N_SETS, n_candidates, N_POINTS)
    assert points.dtype == np.float32
    in_order = np.sort(ndtr(points.astype(float)), axis=2)
    strata = np.arange(N_POINTS) / N_POINTS
    rounding = 1e-6
    assert (in_order >= strata - rounding).all()
    assert (in_order <= strata + 1 / N_POINTS + rounding).all()


def test_points_look_normal_and_independent() -> None:
    points = normal_points(8).astype(float)
    assert np.abs(points.mean(axis=2)).max() < 0.01
    assert np.abs(points.var(axis=2) - 1).max() < 0.06
    correlation = np.array([np.corrcoef(one) for one in points]) - np.eye(8)
    assert np.abs(correlation).max() < 0.1
    # Over all sets the correlations average out: 64 sets of at most 0.1.
    assert np.abs(correlation.mean(axis=0)).max() < 0.01


@pytest.mark.parametrize("n_candidates", [4, 8])
def test_equal_creatives_get_equal_shares(n_candidates: int) -> None:
    best = normal_points(n_candidates).argmax(axis=1)
    shares = np.array([np.bincount(one, minlength=n_candidates) for one in best]) / N_POINTS
    # Independent draws would scatter by √(p(1 − p)/256): 0.027 for a quarter, 0.021 for an eighth.
    assert shares.std(axis=0).max() < 0.016
    assert np.abs(shares.mean(axis=0) - 1 / n_candidates).max() < 0.005


def test_sets_differ_and_cannot_be_changed() -> None:
    points = normal_points(4)
    assert len({one.tobytes() for one in points}) == N_SETS
    assert normal_points(4) is points
    with pytest.raises(ValueError, match="read-only"):
        points[0, 0, 0] = 0.0
