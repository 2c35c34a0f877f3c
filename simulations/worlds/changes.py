"""How synthetic worlds change while they are played, as numbers, of which 0 switches an effect off.

What they do stands in `course`.
"""

import dataclasses

import numpy as np

from simulations.errors import unknown
from simulations.worlds.requests import WorldError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changes:
    """How worlds change; by default not at all.

    Attributes:
        per_day: impressions of a day.
        arriving: share of the creatives that are not there at the start and arrive during the run, each at
            any time of it alike. The first creative of a world is always there.
        retiring: share of the creatives that retire before the run's end, each at any time alike between its
            arrival and the end.
        daily: amplitude of the base rate over a day, in logits; highest in the evening. Where there are
            seasons, `daypart` and `weekend` are those of the clock; else they are drawn.
        weekly: amplitude over a week, in logits; highest between the days of the weekend.
        drift: standard deviation of what each content's weight changes by in a day, in logits.
        fatigue: logits that a creative loses when it has been shown without end.
        wear: impressions after which it has lost half of that, if none were forgotten.
        recovery: days in which half of its impressions are forgotten.
        window: days that policies wait for clicks: an impression is learnt when they are over.
        delay: days in which half of the clicks come; those after the window are missed. Needs a window.
        bots: share of the impressions that are shown to bots.
        bot_rate: their click rate, whatever they are shown.
        lost: share of all clicks that are never reported.
        converting: share of people's clicks that convert, of a creative that convinces as most do. Above 0,
            an impression is worth its conversion, not its click.
        convincing: standard deviation of what a creative adds to that, in logits.
        telling: 1 when policies are told of conversions in place of clicks, 0 when of clicks.
    """

    per_day: float = 10_000.0
    arriving: float = 0.0
    retiring: float = 0.0
    daily: float = 0.0
    weekly: float = 0.0
    drift: float = 0.0
    fatigue: float = 0.0
    wear: float = 2_000.0
    recovery: float = 1.0
    window: float = 0.0
    delay: float = 0.0
    bots: float = 0.0
    bot_rate: float = 0.1
    lost: float = 0.0
    converting: float = 0.0
    convincing: float = 0.0
    telling: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not (np.isfinite(value) and value >= 0):
                raise WorldError(f"{field.name} must be a finite number of at least 0, got {value}")
            if value == 0 and field.name in DIVISORS:
                raise WorldError(f"{field.name} must be above 0, got {value}")
        if self.delay > 0 and self.window == 0:
            raise WorldError(f"delay needs a window above 0 for clicks to come in, got delay={self.delay:g}")
        if self.telling not in (0, 1):
            raise WorldError(f"telling must be 0 for clicks or 1 for conversions, got {self.telling:g}")
        if self.converting in (0, 1) and (self.telling or self.convincing):
            raise WorldError(
                "telling and convincing need clicks of which some convert and some don't, "
                f"got converting={self.converting:g}"
            )
        for name in SHARES:
            if getattr(self, name) > 1:
                raise WorldError(f"{name} is a share and must be at most 1, got {getattr(self, name)}")

    @property
    def setting_id(self) -> str:
        """What is switched on, as `parse_changes` reads it.

        Example:
            >>> Changes(arriving=0.5).setting_id
            'arriving=0.5'
        """
        named = [(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)]
        return ",".join(f"{name}={value:g}" for name, value in named if value != getattr(Changes, name))


SHARES = ("arriving", "retiring", "bots", "bot_rate", "lost", "converting")
DIVISORS = ("per_day", "wear", "recovery")


def parse_changes(text: str) -> Changes:
    """Read changes from text.

    Args:
        text: names and numbers, as "arriving=0.5,per_day=5000".

    Raises:
        WorldError: a name is unknown or comes twice, or a number is none or out of range; all are named.

    Example:
        >>> parse_changes("arriving=0.5").arriving
        0.5
    """
    names = [field.name for field in dataclasses.fields(Changes)]
    numbers, wrong = dict[str, float](), list[str]()
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            wrong.append(f"{part!r} must be NAME=NUMBER")
            continue
        if name in numbers:
            wrong.append(f"{name} comes twice")
        numbers[name] = number
        if name not in names:
            wrong.append(unknown("change", name, names))
    if wrong:
        raise WorldError(f"changes {text!r} cannot be read: {'; '.join(wrong)}")
    return Changes(**numbers)
