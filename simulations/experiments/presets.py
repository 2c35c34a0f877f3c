"""Kinds of traffic with a name: each shows what one thing does to those who learn."""

from dataclasses import replace
from typing import NamedTuple

from simulations.errors import unknown
from simulations.experiments.plans import Plan
from simulations.worlds.changes import Changes
from simulations.worlds.requests import WorldError
from simulations.worlds.shop import EffectSizes


class Preset(NamedTuple):
    """A kind of traffic.

    Attributes:
        teaches: what it is about, in a line; docs/simulations.md has a paragraph.
        plan: what is played of it; whoever plays it says by which policies.
    """

    teaches: str
    plan: Plan


RATES = EffectSizes(base_rates=(0.01, 0.05))
# All but two have the same shape, so that they share compiled programs.
_PLAN = Plan(policies=(), impressions=40_000, batch=400, sizes=RATES, changes=Changes())
PRESETS = {
    "small-shop": Preset(
        "few creatives and little traffic: what to believe before there is data",
        Plan(
            policies=(),
            impressions=10_000,
            creatives=6,
            batch=100,
            sizes=RATES,
            changes=Changes(per_day=500),
        ),
    ),
    "flash-sale": Preset(
        "one day, and clicks that come late: how much to explore when little is left to win",
        replace(
            _PLAN,
            impressions=20_000,
            changes=Changes(per_day=20_000, daily=0.3, window=0.1, delay=0.02),
        ),
    ),
    "fatigue": Preset(
        "creatives that people get tired of: to keep to the best one makes it worse",
        replace(_PLAN, changes=Changes(fatigue=1.0, wear=2_000, recovery=1.0)),
    ),
    "new-arrivals": Preset(
        "creatives that come and go: how soon a new one gets its share",
        replace(_PLAN, changes=Changes(arriving=0.7, retiring=0.4)),
    ),
    "drift": Preset(
        "tastes that move, and seasons: what was learnt loses its worth",
        replace(_PLAN, changes=Changes(per_day=2_000, drift=0.15, daily=0.3, weekly=0.2)),
    ),
    "bots-and-loss": Preset(
        "reports that lie: the same order of creatives behind less signal and more noise",
        replace(_PLAN, changes=Changes(bots=0.1, bot_rate=0.1, lost=0.2)),
    ),
}


def plan_of(preset: str, policies: tuple[str, ...]) -> Plan:
    """Return what is to be played of a preset.

    Args:
        preset: a name out of `PRESETS`.
        policies: as in `Plan`.

    Raises:
        WorldError: there is no such preset, or the policies cannot play it.
    """
    if preset not in PRESETS:
        raise WorldError(unknown("preset", preset, list(PRESETS)))
    return replace(PRESETS[preset].plan, policies=policies, preset=preset)
