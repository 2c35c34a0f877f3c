"""What a user can set about tuning."""

import math
from dataclasses import dataclass
from typing import Literal

from encoders.errors import TuningError


@dataclass(frozen=True, kw_only=True)
class TuningSettings:
    """Settings of one tuning.

    Attributes:
        method: "last", the last layers train; "lora", low-rank additions to every layer's matrices do.
        layers: How many layers train with "last".
        rank: Rank of an addition with "lora"; the additions are scaled by 2, the customary alpha of twice the
            rank.
        epochs: Passes over the training campaigns, at most.
        learning_rate: Its peak, reached after a tenth of the steps; from there it falls as a cosine to 0.
        weight_decay: AdamW's.
        own_effect: Standard deviation of what a creative's logit has beside its text's, as in the engine's
            prior; counts are discounted for it, see `discounted`. 0 takes them as they are.
        clip: Largest norm of a step's gradient, in the loss per click.
        held_out: Share of the campaigns, the latest ones, that the report is about.
        stopping: Share of the others, the latest ones, that choose the head's ridge and the best epoch.
        seed: Of the order of campaigns, the dropout and the additions' start.

    Raises:
        TuningError: A setting is out of its range; all are named.
    """

    method: Literal["last", "lora"] = "last"
    layers: int = 2
    rank: int = 8
    epochs: int = 2
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    own_effect: float = 0.25
    clip: float = 1.0
    held_out: float = 0.2
    stopping: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [] if self.method in {"last", "lora"} else [f"method {self.method!r}: expected last or lora"]
        for name in ("layers", "rank", "epochs"):
            if getattr(self, name) < 1:
                wrong.append(f"{name} {getattr(self, name)}: expected 1 or more")
        for name in ("learning_rate", "clip"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                wrong.append(f"{name} {getattr(self, name)}: expected a number above 0")
        for name in ("weight_decay", "own_effect"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                wrong.append(f"{name} {getattr(self, name)}: expected a number of at least 0")
        for name in ("held_out", "stopping"):
            if not 0 < getattr(self, name) < 1:
                wrong.append(f"{name} {getattr(self, name)}: expected a share between 0 and 1")
        if wrong:
            raise TuningError("; ".join(wrong))
