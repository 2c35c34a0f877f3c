import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from encoders.config import BertConfig, parse_config, read_json
from encoders.errors import ConfigError
from encoders.locate import DEFAULT_SHA256
from encoders.recipe import load_tokenizer, read_recipe

TEXTS = [
    "Free returns, always!",
    "48 hour flash sale",
    "限时优惠 正品",
    "",
    "ÉTÉ gift wrapping?",
    "a\tb\u0000c",
]


@pytest.fixture(scope="module")
def config(tiny: Path) -> BertConfig:
    return parse_config(read_json(tiny / "config.json"))


def _write(folder: Path, name: str, content: Any) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def _with_pooling(
    folder: Path, settings: dict[str, Any], kinds: tuple[str, ...] = ("Transformer", "Pooling")
) -> Path:
    paths = {"Pooling": "1_Pooling"}
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": paths.get(kind, "")} for kind in kinds
    ]
    _write(folder, "modules.json", modules)
    _write(folder, "1_Pooling/config.json", settings)
    return folder


def test_a_plain_bert(tiny: Path, config: BertConfig) -> None:
    assert read_recipe(tiny, config) == ("mean", 32, False)


def test_the_default_encoder_is_pooled_by_levels(tiny_copy: Path, config: BertConfig) -> None:
    assert read_recipe(tiny_copy, config, DEFAULT_SHA256).pooling == "levels"
    assert read_recipe(tiny_copy, config, DEFAULT_SHA256, "mean").pooling == "mean"
    assert read_recipe(tiny_copy, config, "0" * 64).pooling == "mean"


def test_a_tuned_encoder_is_pooled_as_it_was_tuned(tiny_copy: Path, config: BertConfig) -> None:
    (tiny_copy / "tuning.json").write_text('{"pooling": "levels"}')
    assert read_recipe(tiny_copy, config).pooling == "levels"
    (tiny_copy / "tuning.json").write_text('{"pooling": ["max"]}')
    with pytest.raises(ConfigError, match=r"tuning\.json asks for pooling"):
        read_recipe(tiny_copy, config)


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "mean"}, "mean"),
    ],
)
def test_pooling_as_the_checkpoint_says(
    tiny_copy: Path, config: BertConfig, settings: dict[str, Any], pooling: str
) -> None:
    assert read_recipe(_with_pooling(tiny_copy, settings), config).pooling == pooling


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        (
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "pooling_mode_cls_token.*mean_tokens",
        ),
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
        ({}, r"pooling \[\]"),
    ],
)
def test_other_poolings_are_refused(
    tiny_copy: Path, config: BertConfig, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=rf"1_Pooling/config\.json asks for .*{named}"):
        read_recipe(_with_pooling(tiny_copy, settings), config)


def test_a_module_that_is_not_computed(tiny_copy: Path, config: BertConfig) -> None:
    _with_pooling(tiny_copy, {"pooling_mode": "mean"}, ("Transformer", "Pooling", "Dense"))
    with pytest.raises(ConfigError, match=r"not computed: \['Dense'\]"):
        read_recipe(tiny_copy, config)


def test_modules_without_type(tiny_copy: Path, config: BertConfig) -> None:
    _write(tiny_copy, "modules.json", [{"path": ""}])
    with pytest.raises(ConfigError, match=r"modules\.json is no list of modules"):
        read_recipe(tiny_copy, config)


@pytest.mark.parametrize(
    ("sentence", "model", "limit"), [(20, 1e30, 20), (None, 24, 24), (64, 512, 32), (10, 8, 8)]
)
def test_the_smallest_limit_holds(
    tiny_copy: Path, config: BertConfig, sentence: int | None, model: float, limit: int
) -> None:
    _write(tiny_copy, "sentence_bert_config.json", {"max_seq_length": sentence, "do_lower_case": True})
    _write(tiny_copy, "tokenizer_config.json", {"model_max_length": model})
    recipe = read_recipe(tiny_copy, config)
    assert (recipe.max_tokens, recipe.is_lowered) == (limit, True)


def test_settings_that_are_no_object(tiny_copy: Path, config: BertConfig) -> None:
    _write(tiny_copy, "sentence_bert_config.json", [])
    with pytest.raises(ConfigError, match=r"sentence_bert_config\.json is no JSON object"):
        read_recipe(tiny_copy, config)


def _ids(tokenizer: Tokenizer) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(TEXTS)]


def test_tokens_are_those_of_transformers(tiny: Path, tiny_copy: Path, config: BertConfig) -> None:
    from transformers import AutoTokenizer

    expected = AutoTokenizer.from_pretrained(tiny)(TEXTS)["input_ids"]
    assert _ids(load_tokenizer(tiny, config, 32)[0]) == expected
    (tiny_copy / "tokenizer.json").unlink()
    assert _ids(load_tokenizer(tiny_copy, config, 32)[0]) == expected


def test_a_bare_word_list_heeds_the_settings(tiny_copy: Path, config: BertConfig) -> None:
    (tiny_copy / "tokenizer.json").unlink()
    _write(tiny_copy, "tokenizer_config.json", {"do_lower_case": False})
    tokenizer, _ = load_tokenizer(tiny_copy, config, 32)
    assert tokenizer.encode("Free free").tokens == ["[CLS]", "[UNK]", "free", "[SEP]"]


def test_padding_and_cut_of_the_file_are_replaced(tiny_copy: Path, config: BertConfig) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_copy / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=30)
    tokenizer.save(str(tiny_copy / "tokenizer.json"))
    assert len(load_tokenizer(tiny_copy, config, 9)[0].encode("free " * 20)) == 9
    assert len(load_tokenizer(tiny_copy, config, 9)[0].encode("free")) == 3


def test_no_tokenizer(tiny_copy: Path, config: BertConfig) -> None:
    (tiny_copy / "tokenizer.json").unlink()
    (tiny_copy / "vocab.txt").unlink()
    with pytest.raises(ConfigError, match=r"has no tokenizer: expected tokenizer\.json or vocab\.txt"):
        load_tokenizer(tiny_copy, config, 32)


@pytest.mark.parametrize("content", ["{}", "not json"])
def test_a_damaged_tokenizer(tiny_copy: Path, config: BertConfig, content: str) -> None:
    (tiny_copy / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match=r"the tokenizer in .*tokenizer\.json cannot be read"):
        load_tokenizer(tiny_copy, config, 32)


def test_more_words_than_the_bert_has(tiny_copy: Path, config: BertConfig) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_copy / "tokenizer.json"))
    tokenizer.add_tokens(["brandname"])
    tokenizer.save(str(tiny_copy / "tokenizer.json"))
    with pytest.raises(ConfigError, match=r"has 48 words, its BERT only 47"):
        load_tokenizer(tiny_copy, config, 32)
