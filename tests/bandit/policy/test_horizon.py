from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf

import pytest

from bandit.policy.horizon import expected_horizon
from storage import CampaignRecord

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CAMPAIGN = CampaignRecord(
    campaign_id=1,
    model_id=1,
    name="spring",
    objective="click",
    horizon="auto",
    attribution_window_s=0.0,
    conversion_window_s=0.0,
    uniform_share=0.01,
    control_share=0.0,
    starts_at=None,
    ends_at=None,
    status="active",
    mean_content=None,
    created_at=START,
)


def test_what_the_campaign_says() -> None:
    assert expected_horizon(replace(CAMPAIGN, horizon=None), 5, 3, START) == inf
    assert expected_horizon(replace(CAMPAIGN, horizon=700), 5_000, 3, START + DAY) == 700.0
    assert expected_horizon(replace(CAMPAIGN, horizon=0), 0, 3, START) == 0.0


def test_little_traffic_means_ten_thousand_a_creative() -> None:
    assert expected_horizon(CAMPAIGN, 0, 3, START) == 30_000.0
    assert expected_horizon(CAMPAIGN, 999, 2, START + DAY) == 20_999.0


@pytest.mark.parametrize(
    ("changes", "remaining_days"),
    [
        ({}, 7),
        ({"ends_at": START + 12 * DAY}, 10),
        ({"ends_at": START + DAY}, 0),
    ],
)
def test_its_own_rate_times_what_is_left(changes: dict[str, datetime], remaining_days: int) -> None:
    record = replace(CAMPAIGN, **changes)
    expected = 4_000 + 2_000 * remaining_days
    assert expected_horizon(record, 4_000, 3, START + 2 * DAY) == pytest.approx(expected)


def test_the_rate_begins_with_the_flight() -> None:
    record = replace(CAMPAIGN, starts_at=START + 9 * DAY)
    assert expected_horizon(record, 1_000, 3, START + 10 * DAY) == pytest.approx(8_000)
    # A start still ahead does not divide by nothing.
    assert expected_horizon(record, 1_000, 3, START) == pytest.approx(1_000 + 1_000 * 7 * 86_400)
