"""What is to be played of synthetic worlds."""

from dataclasses import dataclass, field

from simulations.errors import unknown
from simulations.experiments.synthetic import POLICIES
from simulations.worlds.changes import Changes
from simulations.worlds.requests import WorldError
from simulations.worlds.shop import EffectSizes

ENGINE = "engine"
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
