import json
from pathlib import Path
from typing import Any

import pytest

from encoders.config import parse_config, read_json
from encoders.errors import ConfigError


@pytest.fixture
def settings(tiny: Path) -> dict[str, Any]:
    return json.loads((tiny / "config.json").read_text())


def test_reads_what_the_file_says(settings: dict[str, Any]) -> None:
    config = parse_config(settings | {"layer_norm_eps": 1e-5, "hidden_dropout_prob": 0})
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (24, 3, 47)
    assert (config.layer_norm_eps, config.hidden_dropout_prob) == (1e-5, 0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("hidden_act", "mish", "hidden_act is 'mish'"),
        ("position_embedding_type", "relative_key", "position_embedding_type is 'relative_key'"),
        ("model_type", "t5", "model_type is 't5', expected one of bert, roberta, xlm-roberta"),
        ("is_decoder", True, "is_decoder is True"),
        ("add_cross_attention", True, "add_cross_attention is True"),
        ("num_attention_heads", 5, "hidden_size 24 is no multiple of 5 heads"),
        ("num_hidden_layers", 0, "num_hidden_layers is 0"),
        ("vocab_size", "47", "vocab_size is '47'"),
        ("hidden_dropout_prob", 1.5, "hidden_dropout_prob is 1.5"),
        ("attention_probs_dropout_prob", None, "attention_probs_dropout_prob is None"),
        ("layer_norm_eps", 0, "layer_norm_eps is 0"),
    ],
)
def test_refuses_what_it_does_not_compute(
    settings: dict[str, Any], name: str, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(settings | {name: value})


@pytest.mark.parametrize(("said", "offset"), [({}, 2), ({"pad_token_id": 1}, 2), ({"pad_token_id": 0}, 1)])
@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta"])
def test_a_robertas_positions_begin_after_the_padding(
    settings: dict[str, Any], kind: str, said: dict[str, int], offset: int
) -> None:
    del settings["pad_token_id"]
    config = parse_config(settings | {"model_type": kind} | said)
    assert (config.position_offset, config.max_tokens) == (offset, 32 - offset)


@pytest.mark.parametrize(
    ("pad", "message"),
    [(None, "pad_token_id is None"), (-1, "pad_token_id is -1"), (31, "32 are before a text")],
)
def test_a_padding_that_leaves_no_position_is_refused(
    settings: dict[str, Any], pad: object, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(settings | {"model_type": "roberta", "pad_token_id": pad})


def test_names_all_that_is_missing_and_the_file(settings: dict[str, Any]) -> None:
    del settings["hidden_size"], settings["type_vocab_size"]
    with pytest.raises(
        ConfigError, match=r"here/config\.json.*hidden_size is missing.*type_vocab_size is missing"
    ):
        parse_config(settings, "here/config.json")


def test_names_all_that_is_wrong(settings: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match=r"mine: .*vocab_size is -1.*hidden_act is 'mish'.*layer_norm_eps is 'x'"
    ):
        parse_config(settings | {"vocab_size": -1, "hidden_act": "mish", "layer_norm_eps": "x"}, "mine")


@pytest.mark.parametrize("content", ["{", "\udcff"])
def test_a_file_that_is_not_json_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=r"config\.json cannot be read as JSON"):
        read_json(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json"):
        read_json(tmp_path / "none.json")
