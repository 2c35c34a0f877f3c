"""A creative's vector: its fields encoded apart and averaged."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from .cache import Encoder, VectorCache, encode_cached
from .errors import AttributionError, FieldError, TextTypeError
from .text import TextEncoder

if TYPE_CHECKING:
    from .attribution import Attribution

FIELD_WEIGHTS: Mapping[str, float] = MappingProxyType({"headline": 1.0, "body": 0.5, "call_to_action": 0.5})
"""How much each field counts, by convention: what is read first as much as all the rest together.

In the archive of headline tests the text beside the headline adds nothing to the prediction of clicks, and a
call to action is mostly one of a few stock phrases.
"""


def encode_fields(
    encoder: Encoder,
    creatives: Sequence[Mapping[str, str]],
    weights: Mapping[str, float] = FIELD_WEIGHTS,
    cache: VectorCache | None = None,
) -> Float[np.ndarray, "creatives dim"]:
    """Encode creatives, each given as its texts by field.

    v = Σ w_f e(text_f) / |Σ w_f e(text_f)| over the fields f that have a text.

    Fields are encoded apart, so that a field is encoded once however many creatives share its text, and its
    part in a creative's vector is known.

    Args:
        encoder: The encoder.
        creatives: Texts by field; an absent or empty field does not count.
        weights: Weight of each field, none negative and one at least above 0.
        cache: Where the texts' vectors are kept; None keeps none.

    Returns:
        The creatives' vectors, float32, each of length 1. A creative without any text gets the encoder's
        vector of the empty text.

    Raises:
        FieldError: If a creative has a field that has no weight, or the weights are not as said.
        TextTypeError: If a field's text is not a string; says of which creative.

    Example:
        >>> encode_fields(encoder, [{"headline": "Sale", "call_to_action": "Shop now"}]) # doctest: +SKIP
    """
    _check(creatives, weights)
    parts = [(row, *part) for row, creative in enumerate(creatives) for part in _parts(creative, weights)]
    vectors = encode_cached(encoder, [text for _, _, text, _ in parts], cache)
    scale = np.array([weight for *_, weight in parts], np.float32)
    sums = np.zeros((len(creatives), encoder.dim), np.float32)
    np.add.at(sums, np.array([row for row, *_ in parts], np.intp), vectors * scale[:, None])
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    # Vectors that cancel out are as good as impossible; the floor keeps even those from becoming NaN.
    unit: np.ndarray = sums / np.maximum(lengths, np.float32(1e-12))
    return unit


def attribute_fields(
    encoder: Encoder,
    creative: Mapping[str, str],
    direction: Float[np.ndarray, "dim"],
    weights: Mapping[str, float] = FIELD_WEIGHTS,
) -> "Attribution":
    """Say which words carry the number d · v that is read off a creative's vector v.

    Args:
        encoder: An encoder that can tell, as `TextEncoder` can.
        creative: Texts by field, as for `encode_fields`.
        direction: d.
        weights: Weight of each field.

    Returns:
        The share of each word in the difference between the creative and the same with its words masked; see
        `attribution.attribute`.

    Raises:
        AttributionError: If the encoder cannot tell.
        FieldError: As from `encode_fields`.
        TextTypeError: As from `encode_fields`.
    """
    _check([creative], weights)
    if not isinstance(encoder, TextEncoder):
        raise AttributionError(
            f"the encoder {encoder.fingerprint}, a {type(encoder).__name__}, gives vectors and cannot say "
            "which words they come from; a TextEncoder can"
        )
    return encoder.attribute(_parts(creative, weights), direction)


def _parts(creative: Mapping[str, str], weights: Mapping[str, float]) -> list[tuple[str, str, float]]:
    parts = [(field, creative[field], w) for field, w in weights.items() if w > 0 and creative.get(field)]
    return parts or [(next(iter(weights)), "", 1.0)]


def _check(creatives: Sequence[Mapping[str, str]], weights: Mapping[str, float]) -> None:
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights.values()) or not any(
        weights.values()
    ):
        raise FieldError(
            f"weights of fields are {dict(weights)}, expected finite numbers, none negative, one above 0"
        )
    for row, creative in enumerate(creatives):
        if unknown := sorted(creative.keys() - weights.keys()):
            raise FieldError(
                f"creative {row} has fields without a weight: {', '.join(unknown)};"
                f" known are {', '.join(weights)}"
            )
        for field, text in creative.items():
            if not isinstance(text, str):
                raise TextTypeError(
                    f"{field} of creative {row} is {text!r} of type {type(text).__name__}, expected a string"
                )
