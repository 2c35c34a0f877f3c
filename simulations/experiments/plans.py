"""What is to be played of synthetic worlds, and kinds of shops ready to be played."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from simulations.errors import unknown
from simulations.experiments.synthetic import POLICIES
from simulations.worlds.drift import Changes
from simulations.worlds.requests import WorldError
from simulations.worlds.shop import EffectSizes

N_TUNING = 4  # worlds on which settings are chosen
TUNING_SEED = 1_000  # the first of those worlds and their traffic; scored ones count from 0
N_WORDS = 12  # that texts are made of, where they are asked for
SHORTER = (1 / 16, 1 / 4)  # of the impressions, for what is lost in runs of other lengths


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be played.

    Attributes:
        policies: names out of `synthetic.POLICIES`; the engine always plays, others are compared with it.
        seeds: worlds, each with traffic of its own.
        impressions: of each world.
        creatives: of each world.
        batch: impressions between two updates.
        sizes: how strong the worlds' effects are.
        n_words: words that the texts are made of, whose effects policies do not see; 0 for none.
        has_ads: whether creatives are ads of the catalogue, whose words are their tones and offers, and not
            random contents.
        changes: how the worlds change while they are played; None for not at all.
        is_tuned: whether others' settings are first chosen from their grids, on other such worlds.
        has_horizons: whether shorter runs are played too, a sixteenth and a quarter as long.
        preset: name of the kind of traffic that this is, if it has one.
    """

    policies: tuple[str, ...]
    seeds: int = 8
    impressions: int = 100_000
    creatives: int = 20
    batch: int = 500
    sizes: EffectSizes = field(default_factory=EffectSizes)
    n_words: int = 0
    has_ads: bool = False
    changes: Changes | None = None
    is_tuned: bool = False
    has_horizons: bool = False
    preset: str = ""

    def __post_init__(self) -> None:
        strange = [unknown("policy", name, POLICIES) for name in self.policies if name not in POLICIES]
        if strange:
            raise WorldError("; ".join(strange))
        if len(set(self.policies)) < len(self.policies):
            raise WorldError(f"expected each policy once, got {', '.join(self.policies)}")
        if self.creatives < 1:
            raise WorldError(f"expected at least one creative, got {self.creatives}")
        if not 1 <= self.seeds <= TUNING_SEED:
            raise WorldError(f"expected 1 to {TUNING_SEED:,} seeds, got {self.seeds}")
        if not 1 <= self.batch <= self.impressions:
            raise WorldError(
                f"expected 1 <= batch <= impressions, got batch={self.batch}, impressions={self.impressions}"
            )

    @property
    def horizons(self) -> list[int]:
        """The impressions of the runs that are played, in whole batches; the plan's own come last."""
        parts = SHORTER if self.has_horizons else ()
        whole = {int(self.impressions * part) // self.batch * self.batch for part in parts}
        return [*sorted(whole - {0, self.impressions}), self.impressions]

    @property
    def earned(self) -> str:
        """What impressions are worth."""
        return "conversions" if self.changes is not None and self.changes.converting else "clicks"

    @property
    def has_words(self) -> bool:
        """Whether words have effects."""
        return self.has_ads or self.n_words > 0

    @property
    def has_fatigue(self) -> bool:
        """Whether creatives tire, so that each policy meets moments of its own."""
        return self.changes is not None and self.changes.fatigue > 0


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
