"""What a user can set about tuning."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from encoders.errors import TuningError

# What is expected, of which settings, and whether a value is that; NaN is in no range.
_RANGES: dict[str, tuple[tuple[str, ...], Callable[[Any], bool]]] = {
    "last or lora": (("method",), lambda value: value in {"last", "lora"}),
    "float32 or bfloat16": (("dtype",), lambda value: value in {"float32", "bfloat16"}),
    "1 or more": (("layers", "rank", "epochs", "accumulate"), lambda value: value >= 1),
    "a number above 0": (("learning_rate", "clip"), lambda value: 0 < value < math.inf),
    "a number of at least 0": (
        ("weight_decay", "own_effect", "conversions", "adversarial"),
        lambda value: 0 <= value < math.inf,
    ),
    "a share between 0 and 1": (("held_out", "stopping"), lambda value: 0 < value < 1),
    "a share of at least 0 and below 1": (
        ("dropout", "mask", "field_dropout"),
        lambda value: value is None or 0 <= value < 1,
    ),
}


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
        dropout: Share of numbers that are dropped, in all of a BERT's places for it; None means the
            checkpoint's own.
        conversions: Weight of the likelihood of conversions given clicks beside that of clicks, of which one
            nat weighs 1; 0 means that only clicks are learnt.
        mask: Share of the tokens that a step sees as [MASK].
        field_dropout: Share of a creative's fields that a step does not see; never all of them.
        adversarial: Length of the step by which each text's word vectors are moved to where the loss grows
            most; half of the loss is that of the moved ones. 0 means none.
        accumulate: Batches whose mean gradient makes one step.
        dtype: Type of the matrix products while training. Parameters and the optimiser's state are float32
            with either, and so is the encoder that is judged and written.
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
    dropout: float | None = None
    conversions: float = 0.0
    mask: float = 0.0
    field_dropout: float = 0.0
    adversarial: float = 0.0
    accumulate: int = 1
    dtype: Literal["float32", "bfloat16"] = "float32"
    held_out: float = 0.2
    stopping: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [
            f"{name} {getattr(self, name)!r}: expected {expected}"
            for expected, (names, is_right) in _RANGES.items()
            for name in names
            if not is_right(getattr(self, name))
        ]
        if wrong:
            raise TuningError("; ".join(wrong))

    @property
    def outcome_weights(self) -> tuple[float, ...]:
        """Weight of each outcome that is learnt: clicks; conversions."""
        return (1.0, self.conversions) if self.conversions else (1.0,)
