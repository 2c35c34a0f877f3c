"""Checks of a campaign's settings, at the border of the engine."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from bandit.errors import InvalidCampaignError

LONGEST_WINDOW_S = 315_360_000  # ten years; the end of a window must be a time that there is


def check_campaign(
    name: str,
    horizon: int | Literal["auto"] | None,
    windows: Mapping[str, float],
    shares: Mapping[str, float],
    starts_at: datetime | None,
    ends_at: datetime | None,
) -> None:
    """Check the settings of a new campaign.

    Args:
        name: Its name.
        horizon: Impressions, "auto" or None.
        windows: Lengths in seconds, by the argument's name.
        shares: Fractions of the traffic, by the argument's name; together at most 1.
        starts_at: Its start.
        ends_at: Its end.

    Raises:
        InvalidCampaignError: Names the setting, what was expected and what came.
    """
    where = f"campaign {name!r}"
    is_count = isinstance(horizon, int) and not isinstance(horizon, bool)
    if not (horizon is None or horizon == "auto" or (is_count and 0 < int(horizon) < 2**63)):
        raise InvalidCampaignError(
            f"{where}: expected horizon to be a whole number of impressions above 0, 'auto' or None, "
            f"got {horizon!r}"
        )
    for window, seconds in windows.items():
        if not 0 <= seconds <= LONGEST_WINDOW_S:  # NaN fails too
            raise InvalidCampaignError(
                f"{where}: expected {window} to be from 0 to {LONGEST_WINDOW_S:,} seconds (ten years), "
                f"got {seconds!r}"
            )
    for name_of_share, share in shares.items():
        if not 0 <= share <= 1:
            raise InvalidCampaignError(
                f"{where}: expected {name_of_share} to be a fraction from 0 to 1, got {share!r}"
            )
    if sum(shares.values()) > 1:
        raise InvalidCampaignError(
            f"{where}: expected {' and '.join(shares)} to sum to at most 1, "
            f"got {' and '.join(map(repr, shares.values()))}"
        )
    for moment, at in (("starts_at", starts_at), ("ends_at", ends_at)):
        if at is not None and at.tzinfo is None:
            raise InvalidCampaignError(f"{where}: expected {moment} to be aware, got the naive {at}")
    if starts_at is not None and ends_at is not None and ends_at <= starts_at:
        raise InvalidCampaignError(f"{where}: expected ends_at after starts_at {starts_at}, got {ends_at}")
