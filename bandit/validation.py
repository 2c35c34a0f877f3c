"""Checks of reports and of campaigns' settings where they come in, and the rows that reports become."""

import math
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from bandit.errors import InvalidCampaignError, InvalidOutcomeError
from bandit.types import Outcome
from storage import NewOutcome, OutcomeRecord

LARGEST_SKEW = timedelta(minutes=1)  # between the clocks of two hosts
CLICKS_WITHOUT_A_NO = 100  # after which a campaign of window 0 seems to report clicks only
LONGEST_WINDOW_S = 315_360_000  # ten years; the end of a window must be a time that there is


def reports_of(outcome: Outcome, now: datetime) -> list[NewOutcome]:
    """Return the rows of one report: its click first, then its conversion.

    Raises:
        InvalidOutcomeError: It says nothing, or something impossible; names the decision.
    """
    name = f"decision {outcome.decision_id!r}"
    _check_what(outcome, name)
    _check_value(outcome.value, name)
    at = _occurred_at(outcome.occurred_at, now, name)
    rows = []
    if outcome.click is not None:
        rows.append(
            NewOutcome(
                decision_id=outcome.decision_id,
                kind="click",
                value=float(outcome.click),
                occurred_at=at,
                final=outcome.final,
                valid=outcome.valid,
            )
        )
    if outcome.conversion:
        rows.append(
            NewOutcome(
                decision_id=outcome.decision_id,
                kind="conversion",
                value=float(outcome.value),
                key=outcome.key,
                occurred_at=at,
                valid=outcome.valid,
            )
        )
    return rows


def _check_what(outcome: Outcome, name: str) -> None:
    """Refuse a report that says nothing, or what cannot be said together."""
    for field in ("click", "conversion"):
        value = getattr(outcome, field)
        if value is not None and not isinstance(value, bool):
            raise InvalidOutcomeError(f"{name}: expected {field} to be True, False or None, got {value!r}")
    if not isinstance(outcome.valid, bool):
        raise InvalidOutcomeError(f"{name}: expected valid to be True or False, got {outcome.valid!r}")
    if outcome.click is None and not outcome.conversion:
        raise InvalidOutcomeError(
            f"{name}: the report says nothing; give click=True or False, or conversion=True"
        )
    if not outcome.valid and (outcome.click is False or outcome.final):
        raise InvalidOutcomeError(
            f"{name}: valid=False takes back a click or a conversion that was reported; give click=True or "
            "conversion=True with it, and not final"
        )
    if outcome.final and outcome.click is None:
        raise InvalidOutcomeError(f"{name}: final=True is about clicks; give click=True or False with it")


def _check_value(value: float, name: str) -> None:
    """Refuse what is no number that a database can store."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOutcomeError(f"{name}: expected value to be a number, got {value!r}")
    # A whole number too large for a float would raise an OverflowError.
    if not (abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)):
        raise InvalidOutcomeError(f"{name}: expected a finite value, got {value!r:.80}")


def _occurred_at(at: datetime | None, now: datetime, name: str) -> datetime | None:
    """Return when it happened, not after now; the clocks of two hosts may differ a little."""
    if at is None:
        return None
    if not isinstance(at, datetime):
        raise InvalidOutcomeError(f"{name}: expected occurred_at to be a datetime, got {at!r}")
    if at.tzinfo is None:
        raise InvalidOutcomeError(
            f"{name}: expected occurred_at to be aware, got the naive {at}; add a time zone"
        )
    if at > now + LARGEST_SKEW:
        raise InvalidOutcomeError(f"{name}: occurred_at {at} is in the future; now it is {now}")
    return min(at, now)


class NonClickMonitor:
    """Warns once when clicks settle at once and nobody ever reports a non-click."""

    def __init__(self) -> None:
        self._clicks_in_a_row: int | None = 0

    def watch(self, outcomes: Sequence[Outcome], results: Sequence[OutcomeRecord]) -> None:
        """Look at reports that were just stored, with what became of them."""
        if self._clicks_in_a_row is None:
            return
        for outcome, result in zip(outcomes, results, strict=True):
            if outcome.click is False:
                self._clicks_in_a_row = None
                return
            self._clicks_in_a_row += bool(outcome.click and result.has_settled)
        if self._clicks_in_a_row >= CLICKS_WITHOUT_A_NO:
            self._clicks_in_a_row = None
            warnings.warn(
                f"{CLICKS_WITHOUT_A_NO} clicks were reported and not one non-click, in campaigns with an "
                "attribution window of 0: report click=False too, or give the campaign a window",
                UserWarning,
                stacklevel=4,  # the caller of `Engine.update_many`, or of `update` one above
            )


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
