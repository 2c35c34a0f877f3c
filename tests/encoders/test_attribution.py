"""Shares of words against the path integral by the book, and where they are known exactly."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from encoders import FIELD_WEIGHTS, AttributionError, FieldError, TextEncoder, TextTypeError, attribute_fields
from encoders.attribution import ROUNDING, TOLERANCE, Read, attribute, words_of
from encoders.config import parse_config, read_json
from encoders.recipe import load_tokenizer
from tests.encoders.by_the_book import by_the_book
from tests.encoders.conftest import CountingEncoder

CREATIVE = {"headline": "Free returns, always!", "body": "限时优惠 runs"}
MASK = 4


@pytest.fixture(scope="session")
def direction() -> np.ndarray:
    return np.random.default_rng(0).normal(size=24)


@pytest.mark.slow
def test_shares_are_the_path_integral_by_the_book(
    encoder: TextEncoder, tiny: Path, direction: np.ndarray
) -> None:
    config = parse_config(read_json(tiny / "config.json"))
    weights = {name: array.astype(float) for name, array in load_file(tiny / "model.safetensors").items()}
    table = weights["embeddings.word_embeddings.weight"]
    tokenizer, _ = load_tokenizer(tiny, config, 32)
    ids = [tokenizer.encode(text).ids for text in CREATIVE.values()]
    masked = [[own[0], *[MASK] * (len(own) - 2), own[-1]] for own in ids]
    words, base = ([table[np.array(own)] for own in some] for some in (ids, masked))

    def number(fields: list[np.ndarray]) -> float:
        total = np.zeros(24)
        for field, weight in zip(fields, (1.0, 0.5), strict=True):
            mean = by_the_book(weights, config, field).mean(axis=0)
            total += weight * mean / np.linalg.norm(mean)
        return float(total @ direction / np.linalg.norm(total))

    def slope(alpha: float, field: int, token: int, h: float = 1e-4) -> float:
        """By how much the number rises along one token's own part of the path."""
        moved = []
        for sign in (1, -1):
            at = [b + alpha * (x - b) for b, x in zip(base, words, strict=True)]
            at[field][token] += sign * h * (words[field] - base[field])[token]
            moved.append(number(at))
        return (moved[0] - moved[1]) / (2 * h)

    # Simpson's rule, which shares no point but the middle with Gauss and Legendre's.
    alphas = np.linspace(0, 1, 33)
    rule = np.array([1, *[4, 2] * 15, 4, 1]) / 96
    expected = [
        [float(rule @ [slope(alpha, field, token) for alpha in alphas]) for token in range(1, len(own) - 1)]
        for field, own in enumerate(ids)
    ]
    # "runs" is run + ##s, every other word is one token.
    expected[1][-2:] = [sum(expected[1][-2:])]
    found = attribute_fields(encoder, CREATIVE, direction)
    shares = [word.share for word in found.words]
    np.testing.assert_allclose(shares, np.concatenate(expected), rtol=0, atol=1e-3 * np.abs(shares).max())
    assert found.baseline == pytest.approx(number(base), abs=1e-5)
    assert found.total == pytest.approx(number(words), abs=1e-5)


def test_shares_sum_to_the_difference(encoder: TextEncoder, direction: np.ndarray) -> None:
    for creative in (CREATIVE, {"body": "flash sale " * 30}, {"call_to_action": "?"}):
        found = attribute_fields(encoder, creative, direction)
        sizes = sum(abs(word.share) for word in found.words)
        missed = sum(word.share for word in found.words) - (found.total - found.baseline)
        largest = max(abs(found.total - found.baseline), 0.1 * sizes)
        assert abs(missed) <= max(TOLERANCE * largest, ROUNDING * np.linalg.norm(direction))
        assert found.total == pytest.approx(float(encoder_vector(encoder, creative) @ direction), abs=1e-5)


def encoder_vector(encoder: TextEncoder, creative: dict[str, str]) -> np.ndarray:
    sums = sum(FIELD_WEIGHTS[name] * encoder.encode([text])[0] for name, text in creative.items())
    return sums / np.linalg.norm(sums)


@pytest.mark.real_data
@pytest.mark.slow
def test_shares_sum_with_the_default_encoder(default_encoder: TextEncoder) -> None:
    direction = np.random.default_rng(1).normal(size=384)
    creative = {"headline": "How to talk to scared, misinformed dudes", "call_to_action": "Read more"}
    found = attribute_fields(default_encoder, creative, direction)
    difference = found.total - found.baseline
    assert abs(difference) > 0.05
    assert abs(sum(word.share for word in found.words) - difference) <= TOLERANCE * abs(difference)


@pytest.mark.parametrize(("power", "n_points"), [(1, 64), (2, 64), (40, 64)])
def test_a_known_function_has_known_shares(tiny: Path, power: int, n_points: int) -> None:
    """f = (Σ_t c_t (b_t + α (x_t − b_t)))^p: a token's share is that of its own part in the sum's way."""
    config = parse_config(read_json(tiny / "config.json"))
    tokenizer, _ = load_tokenizer(tiny, config, 32)
    encoding = tokenizer.encode("free runs")
    assert encoding.tokens == ["[CLS]", "free", "run", "##s", "[SEP]"]
    slopes = np.array([0.0, 0.3, -0.1, 0.4, 0.0])

    def numbers(creative, direction, alphas):
        # The creative's masked tokens begin at 0.2 together; the words move it to 0.8.
        reached = 0.2 + alphas * slopes.sum()
        products = np.zeros((len(alphas), *creative.ids.shape))
        products[:, 0, :5] = power * reached[:, None] ** (power - 1) * slopes
        return reached**power, products

    found = attribute(numbers, {"headline": Read("free runs", encoding, 1.0)}, np.zeros(24), MASK, 32)
    difference = 0.8**power - 0.2**power
    assert [word.share for word in found.words] == pytest.approx([difference / 2, difference / 2])
    assert (found.baseline, found.total) == pytest.approx((0.2**power, 0.8**power))
    assert found.n_points == n_points


def test_more_points_are_taken_where_few_do_not_do(tiny: Path) -> None:
    config = parse_config(read_json(tiny / "config.json"))
    encoding = load_tokenizer(tiny, config, 32)[0].encode("free")

    def numbers(creative, direction, alphas):
        products = np.zeros((len(alphas), *creative.ids.shape))
        products[:, 0, 1] = 500 / np.cosh(500 * (alphas - 0.3)) ** 2 / 2
        return (1 + np.tanh(500 * (alphas - 0.3))) / 2, products

    found = attribute(numbers, {"headline": Read("free", encoding, 1.0)}, np.zeros(24), MASK, 32)
    assert found.n_points == 256


def test_words_are_found_in_their_text(encoder: TextEncoder, direction: np.ndarray) -> None:
    found = attribute_fields(encoder, CREATIVE, direction)
    assert found.texts == CREATIVE
    assert [found.texts[word.field][word.start : word.end] for word in found.words] == [
        *("Free", "returns", ",", "always", "!", "限", "时", "优", "惠", "runs")
    ]
    assert found.cut == ()


def test_lower_case_of_another_length_keeps_words_whole(tiny_copy: Path, direction: np.ndarray) -> None:
    (tiny_copy / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True}))
    encoder = TextEncoder(tiny_copy)
    texts = {"headline": "İ Sale", "body": "Flash Sale"}
    found = attribute_fields(encoder, texts, direction)
    assert found.texts == {"headline": "i̇ sale", "body": "Flash Sale"}
    assert [found.texts[word.field][word.start : word.end] for word in found.words][-3:] == [
        *("sale", "Flash", "Sale")
    ]


def test_a_cut_field_is_named(encoder: TextEncoder, direction: np.ndarray) -> None:
    found = attribute_fields(encoder, {"headline": "sale", "body": "sale " * 31}, direction)
    assert found.cut == ("body",)
    assert len(found.words) == 1 + 30


@pytest.mark.parametrize("creative", [{}, {"headline": ""}, {"body": " \n"}])
def test_nothing_carries_nothing(
    encoder: TextEncoder, direction: np.ndarray, creative: dict[str, str]
) -> None:
    found = attribute_fields(encoder, creative, direction)
    assert found.words == ()
    assert (
        found.total == found.baseline == pytest.approx(float(encoder.encode([""])[0] @ direction), abs=1e-5)
    )


def test_products_are_float32_whatever_the_encoders_are(
    encoder: TextEncoder, tiny: Path, direction: np.ndarray
) -> None:
    rough = attribute_fields(TextEncoder(tiny, dtype="bfloat16"), CREATIVE, direction)
    assert rough.words == attribute_fields(encoder, CREATIVE, direction).words


def test_what_cannot_be_attributed(
    encoder: TextEncoder, counting: CountingEncoder, tiny_copy: Path, direction: np.ndarray
) -> None:
    with pytest.raises(AttributionError, match=rf"{counting.fingerprint}, a CountingEncoder, gives vectors"):
        attribute_fields(counting, CREATIVE, direction)
    with pytest.raises(FieldError, match="without a weight: footer"):
        attribute_fields(encoder, {"footer": "x"}, direction)
    with pytest.raises(TextTypeError, match="headline of creative 0 is 3"):
        attribute_fields(encoder, {"headline": 3}, direction)  # type: ignore[dict-item]  # wrong on purpose
    tokenizer = tiny_copy / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("[MASK]", "[GONE]"))
    with pytest.raises(AttributionError, match=rf"{tiny_copy} has no mask token"):
        attribute_fields(TextEncoder(tiny_copy), CREATIVE, direction)


def test_a_long_job_shows_a_bar_when_asked(
    tiny: Path, direction: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    attribute_fields(TextEncoder(tiny, progress=True), CREATIVE, direction)
    assert "reading words" in capfd.readouterr().err


def test_a_words_tokens_are_together(tiny: Path) -> None:
    tokenizer, _ = load_tokenizer(tiny, parse_config(read_json(tiny / "config.json")), 32)
    text = "shoes, runs"
    assert words_of(text, tokenizer.encode(text)) == [
        (0, 5, [1]),
        (5, 6, [2]),
        (7, 11, [3, 4]),
    ]
