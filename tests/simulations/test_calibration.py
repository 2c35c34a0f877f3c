"""What a policy expects of what it shows, and how probable its choices are: counted, and compared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss

from bandit.posterior import Gaussian
from simulations.calibration import (
    LOGIT_EDGES,
    PROBABILITY_EDGES,
    Record,
    calibration_of,
    expected_rate,
    no_record,
    record_of,
    wilson,
)
from simulations.experiments.synthetic import draw_worlds, play_worlds
from simulations.policies.settings import WORLD_SETTINGS

pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.mark.parametrize(("mean", "sd"), [(-4.0, 0.2), (-3.0, 0.8), (-2.0, 0.5), (0.5, 1.0)])
def test_expected_rate_is_near_the_integral(mean: float, sd: float) -> None:
    nodes, weights = hermegauss(40)
    exact = (weights / (1 + np.exp(-(mean + sd * nodes)))).sum() / np.sqrt(2 * np.pi)
    logits = Gaussian(jnp.asarray([9.0, mean]), jnp.diag(jnp.asarray([4.0, sd**2])))
    assert float(expected_rate(logits, jnp.asarray(1))) == pytest.approx(exact, abs=0.003)


def test_a_batch_is_counted_by_its_levels() -> None:
    expected = jnp.asarray([0.02, 0.021, 0.5, 1e-9])
    record = record_of(expected, jnp.asarray([1.0, 0, 1, 0]), jnp.asarray([1.0, 0.05, 0.9, 1e-7]))
    assert record.forecasts.shape == no_record().forecasts.shape
    np.testing.assert_allclose(np.sum(record.forecasts, axis=0), [4, 0.541000001, 2])
    level = np.searchsorted(LOGIT_EDGES, np.log(0.02 / 0.98))
    np.testing.assert_allclose(record.forecasts[level], [2, 0.041, 1])
    assert record.forecasts[0].tolist() == [1, 1e-9, 0]
    counts = np.asarray(record.probabilities)
    assert counts[0] == 1
    assert counts[-1] == 2, "0.9 and 1 are above 63 %"
    assert counts[np.searchsorted(PROBABILITY_EDGES, 0.05, side="right")] == 1


def test_groups_keep_all_impressions_and_are_of_like_size() -> None:
    rng = np.random.default_rng(0)
    expected = 1 / (1 + np.exp(-rng.normal(-3, 0.8, 20_000)))
    clicks = (rng.random(20_000) < expected).astype(float)
    groups = calibration_of(record_of(jnp.asarray(expected), jnp.asarray(clicks), jnp.asarray(expected)))
    assert groups.impressions.sum() == 20_000
    assert groups.impressions.max() < 2 * 20_000 / 10
    assert groups.expected @ groups.impressions == pytest.approx(expected.sum())
    assert groups.realised @ groups.impressions == pytest.approx(clicks.sum())
    # Clicks were drawn from what was expected: nine of ten 95 % intervals hold it, but for a chance of 9 %.
    assert ((groups.low <= groups.expected) & (groups.expected <= groups.high)).sum() >= len(groups.low) - 1


def test_wilson_by_hand() -> None:
    low, high = wilson(np.array([0.0, 5.0]), np.array([10.0, 10.0]))
    # Wilson (1927): for 0 of n, z²/(n + z²); for a half, ½ ± z/(2 √(n + z²)).
    z2 = 1.959964**2
    np.testing.assert_allclose(low, [0, 0.5 - np.sqrt(z2 / (10 + z2)) / 2], atol=1e-12)
    np.testing.assert_allclose(high, [z2 / (10 + z2), 0.5 + np.sqrt(z2 / (10 + z2)) / 2])


@pytest.mark.slow
def test_the_engine_records_every_impression_and_counts_know_none() -> None:
    worlds = draw_worlds(7, n_worlds=1, n_creatives=5)
    engine = play_worlds(worlds, WORLD_SETTINGS["engine"], 2_000, batch=100)
    assert engine.record is not None
    record = Record(*(leaf[0] for leaf in engine.record))
    assert record.forecasts[:, 0].sum() == 2_000
    assert record.probabilities.sum() == 20 * 13, "of one impression in eight of a batch of 100"
    # 55 clicks are expected of what it showed (test_golden); its own expectation of that is not far off.
    assert record.forecasts[:, 1].sum() == pytest.approx(engine.earned.sum(), rel=0.35)
    assert play_worlds(worlds, WORLD_SETTINGS["beta-thompson"], 2_000, batch=100).record is None
    assert jax.tree.structure(record) == jax.tree.structure(no_record())
