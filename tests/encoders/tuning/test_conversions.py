"""Conversions given clicks, learnt beside clicks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoders.errors import TuningError
from encoders.tuning import PastCampaign, TuningSettings, tune
from encoders.tuning.campaigns import divide, tells, visits
from encoders.tuning.evaluation import compare
from encoders.tuning.fitting import load, tokenised
from tests.encoders.tuning.worlds import planted, with_conversions
from tests.paths import TINY

SETTINGS = TuningSettings(layers=1, epochs=1, learning_rate=3e-3, held_out=0.3, conversions=1.0)


def campaign(conversions: list[float] | None) -> PastCampaign:
    creatives = tuple({"headline": text} for text in ("a", "b", "a"))
    counts = np.array([100.0, 200.0, 100.0]), np.array([10.0, 20.0, 30.0])
    return PastCampaign("odd", creatives, *counts, None if conversions is None else np.array(conversions))


@pytest.mark.slow
def test_both_outcomes_are_learnt_and_reported(tmp_path: Path) -> None:
    """Clicks go with one word, conversions with another."""
    report = tune(with_conversions(planted(100, seed=0), seed=1), tmp_path / "out", SETTINGS, TINY)
    measures = {measure.name: measure for measure in report.measures}
    assert list(measures)[4:] == [f"conversions: {name}" for name in list(measures)[:4]]
    for prefix in ("", "conversions: "):  # a head for the other outcome would lose
        measure = measures[f"{prefix}log-likelihood"]
        assert (measure.cases, measure.before > 0, measure.after > 0) == (30, True, True)


def test_visits_are_the_campaign_one_step_later() -> None:
    known, unknown = visits(campaign([1.0, 2.0, 3.0])), visits(campaign(None))
    assert (known.impressions.tolist(), known.clicks.tolist()) == ([10, 20, 30], [1, 2, 3])
    assert (tells(known), tells(unknown)) == (True, False)
    assert not tells(visits(campaign([1.0, 0.0, 0.0])._replace(clicks=np.array([10.0, 0.0, 0.0]))))


def test_conversions_are_pooled_and_discounted_by_their_own_clicks() -> None:
    others = [
        each._replace(name=str(number), creatives=tuple({"headline": f"{number}{word}"} for word in "xyz"))
        for number, each in enumerate([campaign([1.0, 2.0, 3.0])] * 2)
    ]
    parts = divide([campaign([1.0, 2.0, 3.0]), *others], 0.3, 0.5)
    pooled = parts.training[0]
    assert pooled.conversions is not None
    assert (pooled.clicks.tolist(), pooled.conversions.tolist()) == ([40, 20], [4, 2])
    clicks, bought = tokenised(load(TINY), [pooled], SETTINGS, own_effect=0.5)[0].outcomes
    # τ² = ¼; a rate of 6 / 60: n clicks tell as much as n / (1 + n / 40) would without τ.
    np.testing.assert_allclose(bought.impressions, [40 / 2, 20 / 1.5])
    np.testing.assert_allclose(bought.clicks, [4 / 2, 2 / 1.5])
    np.testing.assert_allclose(clicks.impressions, [200 / (1 + 200 * 0.15 / 4)] * 2)


def test_creatives_without_clicks_and_campaigns_that_tell_nothing_do_not_count() -> None:
    campaigns = [
        PastCampaign("a", ({"headline": "x"},) * 3, np.array([50.0, 0.0, 50.0]), np.array([10.0, 0.0, 20.0])),
        PastCampaign("b", ({"headline": "x"},) * 2, np.zeros(2), np.zeros(2)),
    ]
    right, wrong = np.array([0.0, 9.0, 0.5, 1.0, 0.0]), np.array([0.5, 9.0, 0.0, 1.0, 0.0])
    measures = {each.name: each for each in compare(campaigns, wrong, right, prefix="conversions: ")}
    pairs = measures["conversions: pairs in order"]
    assert (pairs.cases, pairs.before, pairs.after) == (1, 0.0, 1.0)
    assert measures["conversions: log-likelihood"].cases == 1
    assert compare(campaigns[1:], wrong[3:], right[3:]) == []


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([campaign([1.0, 2.0, 31.0])], "'odd', creative 2: 31 conversions on 30 clicks; expected 0 ≤"),
        ([campaign([1.0, np.nan, 3.0])], "'odd', creative 1: nan conversions on 20 clicks"),
        ([campaign([1.0])], r"3 creatives, but .* and conversions of shape \(1,\)"),
        (planted(20, seed=0), "conversions 1: none of the 14 campaigns that train has clicks with and"),
    ],
)
def test_useless_conversions_are_refused(history: list[PastCampaign], message: str, tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=message):
        tune(history, tmp_path / "out", replace(SETTINGS, held_out=0.2), TINY)
    assert list(tmp_path.iterdir()) == []


def test_shares_and_weights_out_of_range_are_all_named() -> None:
    with pytest.raises(
        TuningError,
        match=r"dtype 'float16': expected float32 or bfloat16; accumulate 0: .*; conversions -1: expected a "
        r"number of at least 0; adversarial inf: .*; dropout 1.0: expected a share .* below 1; mask nan: ",
    ):
        TuningSettings(
            mask=float("nan"),
            dropout=1.0,
            conversions=-1,
            adversarial=float("inf"),
            accumulate=0,
            dtype="float16",
        )  # type: ignore[arg-type]
