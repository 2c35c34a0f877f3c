from typing import Any

import numpy as np
import pytest

from encoders import (
    FIELD_WEIGHTS,
    FieldError,
    FileCache,
    TextEncoder,
    TextTypeError,
    encode_fields,
)

CREATIVES = [
    {"headline": "free returns", "body": "winter coat, warm", "call_to_action": "shop now"},
    {"headline": "flash sale", "call_to_action": "shop now"},
    {"headline": "flash sale", "body": ""},
    {"body": "new arrivals for you"},
    {"headline": ""},
    {},
]


def test_fields_are_averaged_with_their_weights(encoder: TextEncoder) -> None:
    vectors = encode_fields(encoder, CREATIVES)
    one = {
        text: encoder.encode([text])[0].astype(np.float64) for c in CREATIVES for text in (*c.values(), "")
    }
    sums = np.stack(
        [
            one["free returns"] + 0.5 * one["winter coat, warm"] + 0.5 * one["shop now"],
            one["flash sale"] + 0.5 * one["shop now"],
            one["flash sale"],
            one["new arrivals for you"],
            one[""],
            one[""],
        ]
    )
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, sums / np.linalg.norm(sums, axis=1, keepdims=True), rtol=0, atol=1e-6)


def test_weights_of_the_callers_choice(encoder: TextEncoder) -> None:
    vectors = encode_fields(encoder, CREATIVES[:1], {"headline": 0, "body": 2.0, "call_to_action": 0})
    np.testing.assert_allclose(vectors, encoder.encode([CREATIVES[0]["body"]]), rtol=0, atol=1e-6)


def test_a_shared_text_is_encoded_once(counting, tmp_path) -> None:
    cache = FileCache(tmp_path / "vectors.npz")
    encode_fields(counting, CREATIVES[:3], cache=cache)
    assert sorted(counting.asked[0]) == ["flash sale", "free returns", "shop now", "winter coat, warm"]
    encode_fields(counting, CREATIVES[:3], cache=cache)
    assert len(counting.asked) == 1


def test_no_creatives(encoder: TextEncoder) -> None:
    assert encode_fields(encoder, []).shape == (0, 24)


def test_a_field_without_weight_is_named() -> None:
    with pytest.raises(
        FieldError, match=r"creative 1 has fields without a weight: footer, title; known are headl"
    ):
        encode_fields(None, [{"headline": "sale"}, {"title": "sale", "footer": "sale"}])


@pytest.mark.parametrize("wrong", [None, 3, ["sale"]])
def test_a_field_that_is_no_string_is_named(wrong: Any) -> None:
    with pytest.raises(TextTypeError, match=rf"body of creative 1 is .* of type {type(wrong).__name__}"):
        encode_fields(None, [{"headline": "sale"}, {"headline": "sale", "body": wrong}])


@pytest.mark.parametrize(
    "weights", [{}, {"headline": 0.0}, {"headline": -1.0, "body": 2.0}, {"headline": float("nan")}]
)
def test_weights_that_make_no_average(weights: dict[str, float]) -> None:
    with pytest.raises(FieldError, match=r"weights of fields are {.*expected finite numbers"):
        encode_fields(None, [{"headline": "sale"}], weights)


def test_the_default_weights_cannot_be_changed_by_accident() -> None:
    with pytest.raises(TypeError):
        FIELD_WEIGHTS["headline"] = 0.0
