"""The least and the most of a campaign's traffic that its creatives may get: what can be kept."""

from collections.abc import Mapping

from storage.errors import InvalidLimitsError

ROUNDING = 1e-9  # of sums of fractions such as 0.1


def check_limits(what: str, floor: float, cap: float) -> None:
    """Refuse a floor and a cap that are no fractions, or the wrong way round.

    Raises:
        InvalidLimitsError: Names both.
    """
    are_numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (floor, cap))
    if not (are_numbers and 0 <= floor <= cap <= 1 and cap > 0):  # NaN fails too
        raise InvalidLimitsError(
            f"{what}: expected fractions with 0 <= floor <= cap <= 1 and a cap above 0, "
            f"got floor {floor!r} and cap {cap!r}; nothing was changed"
        )


def check_feasible(campaign: str, spread: float, limits: Mapping[str, tuple[float, float]]) -> None:
    """Refuse limits that a campaign cannot keep while all of its active creatives may be shown.

    Args:
        campaign: Its name.
        spread: Its uniform and control share together, of which each creative gets an equal part.
        limits: (floor, cap) of each active creative, by the caller's id.

    Raises:
        InvalidLimitsError: The floors need more than all of the traffic, the caps take less, or a cap is
            below the creative's part of the spread.
    """
    if not limits:
        return
    part = spread / len(limits)
    where = f"campaign {campaign!r}"
    if low := sorted(name for name, (_, cap) in limits.items() if cap < part - ROUNDING):
        raise InvalidLimitsError(
            f"{where}: the cap of {', '.join(map(repr, low))} is below the {part:g} that each of its "
            f"{len(limits)} active creatives gets of the uniform and control share; nothing was changed"
        )
    floors = sum(max(floor, part) for floor, _ in limits.values())
    if floors > 1 + ROUNDING:
        raise InvalidLimitsError(
            f"{where}: the floors of its {len(limits)} active creatives sum to {floors:g}, each at least the "
            f"{part:g} that it gets of the uniform and control share; expected at most 1; nothing was changed"
        )
    caps = sum(cap for _, cap in limits.values())
    if caps < 1 - ROUNDING:
        raise InvalidLimitsError(
            f"{where}: the caps of its {len(limits)} active creatives sum to {caps:g}; expected at least 1, "
            "or some traffic has no creative; add creatives together, or raise the caps; nothing was changed"
        )
