"""How many impressions a campaign can expect."""

from datetime import datetime
from math import inf

from storage import CampaignRecord

DECISIONS_TO_ESTIMATE = 1_000  # decisions before a campaign's own rate of traffic is believed
UNKNOWN_PER_CREATIVE = 10_000  # impressions a creative is believed to expect until then
OPEN_END_S = 7 * 24 * 3600.0  # how far an open-ended campaign looks ahead


def expected_horizon(record: CampaignRecord, so_far: int, n_active: int, now: datetime) -> float:
    """Return the impressions that a campaign expects in all, those so far included.

    Args:
        record: The campaign's settings: a number is taken as it is, None is endless; "auto" estimates
            own rate × remaining flight, seven days when it has no end.
        so_far: Impressions it has had.
        n_active: Its active creatives.
        now: The time, aware.

    Returns:
        Impressions; infinite for a campaign without horizon.
    """
    if record.horizon is None:
        return inf
    if isinstance(record.horizon, int):
        return float(record.horizon)
    if so_far < DECISIONS_TO_ESTIMATE:
        return float(so_far + UNKNOWN_PER_CREATIVE * n_active)
    began = max(record.created_at, record.starts_at or record.created_at)
    elapsed_s = max((now - began).total_seconds(), 1.0)
    remaining_s = OPEN_END_S if record.ends_at is None else max((record.ends_at - now).total_seconds(), 0.0)
    return so_far + so_far / elapsed_s * remaining_s
