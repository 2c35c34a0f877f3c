"""The profiled likelihood against SciPy's maximisation and numerical derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from encoders.tuning.evaluation import compare
from encoders.tuning.head import Counts, fit_head, gains
from tests.encoders.tuning.worlds import planted

CAMPAIGN = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3])
IMPRESSIONS = np.array([1000.0, 2000, 500, 40, 60, 300, 300, 0, 0])
CLICKS = np.array([30.0, 20, 25, 39, 1, 0, 0, 0, 0])  # campaign 2 has no click, 3 is padding
COUNTS = Counts(CAMPAIGN, IMPRESSIONS, CLICKS, 4)
SCORES = np.array([0.3, -0.4, 1.1, 2.0, -3.0, 0.5, 0.1, 9.0, 7.0])


def by_scipy(scores: np.ndarray, campaign: int) -> float:
    rows = campaign == CAMPAIGN
    n, y = IMPRESSIONS[rows], CLICKS[rows]

    def best(s: np.ndarray) -> float:
        def loss(alpha: float) -> float:
            return float((n * np.logaddexp(0, alpha + s) - y * (alpha + s)).sum())

        return -minimize_scalar(loss, bounds=(-40, 40), method="bounded", options={"xatol": 1e-10}).fun

    return best(scores[rows]) - best(np.zeros(rows.sum()))


@pytest.mark.parametrize("factor", [1.0, -1.0, 0.01, 5.0])
def test_equals_a_maximisation_by_scipy(factor: float) -> None:
    found = gains(factor * SCORES, COUNTS)
    np.testing.assert_allclose(
        found, [by_scipy(factor * SCORES, 0), by_scipy(factor * SCORES, 1), 0, 0], rtol=1e-8, atol=1e-7
    )


def test_gradient_equals_differences() -> None:
    vectors, weights = np.random.default_rng(0).normal(size=(9, 3)), np.array([0.5, -0.2, 0.1])

    def value(w: np.ndarray) -> float:
        return float(gains(vectors @ w, COUNTS).sum())

    h = 1e-5
    by_differences = [(value(weights + h * e) - value(weights - h * e)) / (2 * h) for e in np.eye(3)]
    with jax.enable_x64(True):
        from encoders.tuning.objective import profiled_gain

        x = jnp.asarray(vectors)
        gradient = jax.grad(lambda w: profiled_gain(x @ w, *COUNTS).sum())(jnp.asarray(weights))
    np.testing.assert_allclose(gradient, by_differences, rtol=1e-6)


def test_a_campaigns_level_does_not_count() -> None:
    shifted = SCORES + np.array([5.0, -3.0, 1.0, 0.0])[CAMPAIGN]
    np.testing.assert_allclose(gains(shifted, COUNTS), gains(SCORES, COUNTS), atol=1e-9)


def test_far_scores_stay_finite() -> None:
    assert np.isfinite(gains(40 * SCORES, COUNTS)).all()


def test_head_finds_planted_weights() -> None:
    rng = np.random.default_rng(1)
    campaign, x = np.repeat(np.arange(300), 4), rng.normal(size=(1200, 3))
    truth = np.array([0.5, -0.3, 0.0])
    rate = 1 / (1 + np.exp(3 - rng.normal(size=300)[campaign] - x @ truth))
    shown = np.full(1200, 2000.0)
    head = fit_head(x, Counts(campaign, shown, rng.binomial(2000, rate).astype(float), 300), 1.0)
    # 1,200 creatives with some 100 clicks each: a standard error of about 1 / √120,000.
    np.testing.assert_allclose(head.weights, truth, atol=0.015)


def test_measures_of_the_truth_of_noise_and_of_itself() -> None:
    campaigns = planted(80, seed=3)
    truth = np.concatenate([campaign.clicks / campaign.impressions for campaign in campaigns])
    noise = np.random.default_rng(0).normal(size=len(truth))
    better = {measure.name: measure for measure in compare(campaigns, noise, 10 * truth)}
    assert better["pairs in order"].after == 1.0
    assert better["rank correlation"].after == pytest.approx(1.0)
    assert abs(better["pairs in order"].before - 0.5) < 4 * better["pairs in order"].before_error
    assert {measure.verdict for measure in better.values()} == {"better"}
    assert 0 < better["significant pairs in order"].cases < better["pairs in order"].cases
    same = compare(campaigns, truth, truth)
    assert [(measure.gain, measure.gain_error) for measure in same] == [(0, 0)] * 4
    assert {measure.verdict for measure in same} == {"not established"}


def test_paired_error_equals_its_formula() -> None:
    campaigns = planted(200, seed=4)
    rng = np.random.default_rng(5)
    n = sum(len(campaign.creatives) for campaign in campaigns)
    before, after = rng.normal(size=(2, n)) * 0.1
    measure = compare(campaigns, before, after)[0]
    sizes = [len(campaign.creatives) for campaign in campaigns]
    counts = Counts(
        np.repeat(np.arange(200), sizes),
        np.concatenate([campaign.impressions for campaign in campaigns]),
        np.concatenate([campaign.clicks for campaign in campaigns]),
        200,
    )
    difference = gains(after, counts) - gains(before, counts)
    assert measure.gain == pytest.approx(difference.mean())
    assert measure.gain_error == pytest.approx(difference.std(ddof=1) / np.sqrt(200), rel=0.1)
