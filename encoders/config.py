"""What a checkpoint says about itself: the sizes of its BERT and the rates of its dropout."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfigError

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish")
"""The activations that checkpoints of BERT's family name in `hidden_act`, as far as we compute them."""

_ROBERTAS = ("roberta", "xlm-roberta")
"""BERTs that number positions from the padding token's id on; the row of that number is for padding."""

_ROBERTA_PAD = 1  # where a RoBERTa does not say

_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """Hold the shape of one BERT, under the names of its `config.json`.

    Args:
        vocab_size: Rows of the word table.
        hidden_size: Width of a token's vector.
        num_hidden_layers: Transformer layers.
        num_attention_heads: Heads of each layer; divides `hidden_size`.
        intermediate_size: Width inside the feed-forward part.
        max_position_embeddings: Rows of the position table.
        type_vocab_size: Token types (first and second text of a pair).
        position_offset: Rows of the position table before that of a text's first token; 0 but for RoBERTa.
        hidden_act: Activation of the feed-forward part, one of `ACTIVATIONS`.
        hidden_dropout_prob: Dropout rate of embeddings and of each residual branch, in [0, 1).
        attention_probs_dropout_prob: Dropout rate of the attention weights, in [0, 1).
        layer_norm_eps: Added to the variance in layer normalisation.

    Raises:
        ConfigError: If a value is outside what this BERT computes; all of them at once.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    position_offset: int = 0
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in _SIZES}
        wrong = [
            f"{name} is {size!r}, expected a whole number above 0"
            for name, size in sizes.items()
            if type(size) is not int or size < 1
        ]
        if not wrong and self.max_tokens < 1:
            wrong.append(
                f"{self.max_position_embeddings} positions, of which {self.position_offset} are before a text"
            )
        if not wrong and self.hidden_size % self.num_attention_heads:
            wrong.append(f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads")
        if self.hidden_act not in ACTIVATIONS:
            wrong.append(f"hidden_act is {self.hidden_act!r}, expected one of {', '.join(ACTIVATIONS)}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not _is_number(rate := getattr(self, name)) or not 0 <= rate < 1:
                wrong.append(f"{name} is {rate!r}, expected a rate in [0, 1)")
        if not _is_number(self.layer_norm_eps) or not self.layer_norm_eps > 0:
            wrong.append(f"layer_norm_eps is {self.layer_norm_eps!r}, expected a number above 0")
        if wrong:
            raise ConfigError("this BERT cannot be computed: " + "; ".join(wrong))

    @property
    def max_tokens(self) -> int:
        """Longest text in tokens, the special ones included."""
        return self.max_position_embeddings - self.position_offset


def parse_config(settings: Mapping[str, Any], origin: str = "config.json") -> BertConfig:
    """Read a BERT's configuration from the contents of its `config.json`.

    Args:
        settings: The parsed file. Settings that do not change what an encoder computes are ignored.
        origin: How an error names the file.

    Returns:
        The configuration.

    Raises:
        ConfigError: If the model is neither a BERT nor a RoBERTa, is a decoder, has other than absolute
            positions or an unknown activation, or lacks a size.
    """
    wrong = [f"{name} is missing" for name in _SIZES if name not in settings]
    kinds = ("bert", *_ROBERTAS)
    if (kind := settings.get("model_type", "bert")) not in kinds:
        wrong.append(f"model_type is {kind!r}, expected one of {', '.join(kinds)}")
    expected = {
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
    }
    for name, value in expected.items():
        # A checkpoint that does not say is taken at the library's default, which is the expected value.
        if (found := settings.get(name, value)) != value:
            wrong.append(f"{name} is {found!r}, expected {value!r}")
    if wrong:
        raise ConfigError(f"{origin} does not describe a BERT that we compute: {'; '.join(wrong)}")
    known = {name: settings[name] for name in BertConfig.__dataclass_fields__.keys() & settings.keys()}
    offset = 0
    if kind in _ROBERTAS:
        pad = settings.get("pad_token_id", _ROBERTA_PAD)
        if type(pad) is not int or pad < 0:
            raise ConfigError(f"{origin}: pad_token_id is {pad!r}, expected a whole number from 0")
        offset = pad + 1
    try:
        return BertConfig(**known | {"position_offset": offset})
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None


def read_json(path: Path) -> Any:
    """Read one of a checkpoint's JSON files.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        ConfigError: If the file cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
