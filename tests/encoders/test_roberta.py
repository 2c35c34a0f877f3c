"""RoBERTa and XLM-RoBERTa: checkpoints made here, with their kinds of tokenizers, against the equations."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from encoders import TextEncoder, attribute_fields
from encoders.config import BertConfig, parse_config, read_json
from tests.encoders.by_the_book import by_the_book

TEXTS = ["Free returns, always!", "48 hour flash sale", "限时优惠 正品 naïve café", "", "sale " * 40]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def _byte_level() -> Tokenizer:
    """RoBERTa's: pieces of bytes, the space before a word a part of it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    return tokenizer


def _unigram() -> Tokenizer:
    """XLM-RoBERTa's: a language model's pieces, of any script."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=60,
        special_tokens=SPECIAL,
        unk_token="<unk>",  # noqa: S106  # no password
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


@pytest.fixture(scope="module", params=["roberta", "xlm-roberta"])
def folder(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT's layers under RoBERTa's embeddings: one token type, positions from 2 on."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = _byte_level() if request.param == "roberta" else _unigram()
    tokenizer.save(str(folder / "tokenizer.json"))
    n_words = tokenizer.get_vocab_size()
    settings = read_json(tiny / "config.json") | {
        **{"model_type": request.param, "pad_token_id": 1, "vocab_size": n_words, "type_vocab_size": 1},
        "layer_norm_eps": 1e-5,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    tensors = load_file(tiny / "model.safetensors")
    words = np.random.default_rng(0).normal(0, 0.3, (n_words, 24)).astype(np.float32)
    tensors["embeddings.word_embeddings.weight"] = words
    name = "embeddings.token_type_embeddings.weight"
    tensors[name] = tensors[name][:1].copy()
    save_file(tensors, folder / "model.safetensors")
    return folder


def _mean(folder: Path, config: BertConfig, ids: list[int]) -> np.ndarray:
    weights = load_file(folder / "model.safetensors")
    words = weights["embeddings.word_embeddings.weight"][ids]
    mean = by_the_book(weights, config, words).mean(axis=0)
    return mean / np.linalg.norm(mean)


def test_vectors_are_those_of_the_equations(folder: Path) -> None:
    config = parse_config(read_json(folder / "config.json"))
    encoder = TextEncoder(folder)
    assert encoder.max_tokens == 30  # of 32 positions, two come before a text
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(30)
    ids = [tokenizer.encode(text).ids for text in TEXTS]
    assert (len(ids[-1]), ids[-1][-1], len(ids[3])) == (30, 2, 2)
    vectors, report = encoder.encode_with_report(TEXTS)
    assert report.n_cut == 1
    expected = np.stack([_mean(folder, config, own) for own in ids])
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-6)
    from_zero = _mean(
        folder, parse_config(read_json(folder / "config.json") | {"model_type": "bert"}), ids[0]
    )
    assert np.abs(vectors[0] - from_zero).max() > 1e-3


def test_a_prefix_and_a_head_change_nothing(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    prefixed = {f"roberta.{name}": tensor for name, tensor in tensors.items()}
    save_file(prefixed | {"lm_head.bias": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(TextEncoder(tmp_path).encode(TEXTS), TextEncoder(folder).encode(TEXTS))


def test_words_are_found_without_the_space_before_them(folder: Path) -> None:
    direction = np.random.default_rng(0).normal(size=24)
    found = attribute_fields(TextEncoder(folder), {"headline": TEXTS[0], "body": TEXTS[2]}, direction)
    words = [found.texts[word.field][word.start : word.end] for word in found.words]
    apart = (
        ["Free", "returns", ",", "always", "!"]
        if "xlm" not in folder.name
        else ["Free", "returns,", "always!"]
    )
    assert words == [*apart, "限时优惠", "正品", "naïve", "café"]
    difference = found.total - found.baseline
    assert sum(word.share for word in found.words) == pytest.approx(difference, rel=1e-3)


def test_a_tokenizer_of_other_files_is_named_as_missing(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        if path.name != "tokenizer.json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(ValueError, match=r"has no tokenizer: expected tokenizer\.json or vocab\.txt"):
        TextEncoder(tmp_path)
