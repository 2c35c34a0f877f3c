from datetime import UTC, datetime
from typing import Any

import pytest

from bandit.errors import InvalidCampaignError
from bandit.validation import check_campaign

GOOD: dict[str, Any] = {
    "name": "spring-sale",
    "horizon": 1000,
    "windows": {"attribution_window": 0.0, "conversion_window": 60.0},
    "shares": {"uniform_share": 0.01, "control_share": 0.0},
    "starts_at": datetime(2026, 1, 1, tzinfo=UTC),
    "ends_at": datetime(2026, 2, 1, tzinfo=UTC),
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"horizon": None},
        {"horizon": "auto"},
        {"shares": {"uniform_share": 1, "control_share": 0}},
        {"ends_at": None},
    ],
)
def test_good_settings_pass(change: dict[str, Any]) -> None:
    check_campaign(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizon": 0}, r"campaign 'spring-sale': expected horizon .* got 0"),
        ({"horizon": 2.5}, "got 2.5"),
        ({"horizon": True}, "got True"),
        ({"horizon": "soon"}, "got 'soon'"),
        ({"windows": {"attribution_window": -1.0}}, "expected attribution_window .* got -1.0"),
        ({"windows": {"conversion_window": float("nan")}}, "expected conversion_window .* got nan"),
        ({"shares": {"uniform_share": 2}}, "expected uniform_share to be a fraction from 0 to 1, got 2"),
        ({"shares": {"control_share": float("nan")}}, "expected control_share .* got nan"),
        (
            {"shares": {"uniform_share": 0.4, "control_share": 0.7}},
            "expected uniform_share and control_share to sum to at most 1, got 0.4 and 0.7",
        ),
        ({"starts_at": datetime(2026, 1, 1)}, "expected starts_at to be aware, got the naive 2026-01-01"),
        ({"ends_at": datetime(2025, 1, 1, tzinfo=UTC)}, "expected ends_at after starts_at 2026-01-01"),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidCampaignError, match=message):
        check_campaign(**{**GOOD, **change})
