"""How a checkpoint wants its texts encoded: its tokenizer, its longest text, its pooling."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tokenizers import Encoding, Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer

from .config import BertConfig, read_json
from .errors import ConfigError
from .locate import DEFAULT_SHA256

Pooling = Literal["mean", "cls", "levels"]

_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "mean": "mean",
    "cls": "cls",
    "levels": "levels",  # of ours: no other library writes it
}
# Checkpoints whose lower levels were found to know more of clicks than the last one alone:
# docs/experiments.md.
_POOLED_BY_LEVELS = {DEFAULT_SHA256}
TUNED = "tuning.json"  # in the folder of a tuned encoder: where it comes from
# Unit norm is given to every vector, so a Normalize module changes nothing.
_MODULES = {"Transformer", "Pooling", "Normalize"}


class Recipe(NamedTuple):
    """Hold what surrounds the BERT of an encoder.

    Args:
        pooling: What becomes of a text's tokens. "mean": the mean of their vectors after the last layer;
            "cls": that of the first one; "levels": the mean of the unit means after the embeddings and after
            each layer.
        max_tokens: Longest text in tokens, the special ones included; longer ones are cut.
        is_lowered: Whether texts are lower-cased before the tokenizer sees them.
    """

    pooling: Pooling
    max_tokens: int
    is_lowered: bool


def read_recipe(
    folder: Path, config: BertConfig, weights_sha256: str | None = None, pooling: Pooling | None = None
) -> Recipe:
    """Read how a checkpoint wants its texts encoded.

    The files of sentence-transformers are followed where they exist; a plain BERT gets mean pooling, and the
    default encoder the mean of its levels.

    Args:
        folder: The checkpoint's folder.
        config: Its BERT's configuration.
        weights_sha256: The sha256 of its weights.
        pooling: Another pooling than the checkpoint's; None means the checkpoint's.

    Returns:
        The recipe.

    Raises:
        ConfigError: If the checkpoint has a module or a pooling that is not computed here.
    """
    sentence = _settings(folder / "sentence_bert_config.json")
    limits = (
        sentence.get("max_seq_length"),
        _settings(folder / "tokenizer_config.json").get("model_max_length"),
    )
    # transformers writes 1e30 for "no limit".
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and limit > 0]
    return Recipe(
        pooling=pooling or ("levels" if weights_sha256 in _POOLED_BY_LEVELS else _read_pooling(folder)),
        max_tokens=min([config.max_tokens, *known]),
        is_lowered=bool(sentence.get("do_lower_case", False)),
    )


def load_tokenizer(folder: Path, config: BertConfig, max_tokens: int) -> tuple[Tokenizer, str]:
    """Load a checkpoint's tokenizer.

    Args:
        folder: The checkpoint's folder.
        config: Its BERT's configuration.
        max_tokens: Where texts are cut.

    Returns:
        The tokenizer, and the sha256 of the files that define it.

    Raises:
        ConfigError: If there is none, it is damaged, or it has more words than the BERT.
    """
    path, vocabulary, settings = (
        folder / name for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json")
    )
    files = [path] if path.is_file() else [file for file in (vocabulary, settings) if file.is_file()]
    if path not in files and vocabulary not in files:
        raise ConfigError(f"{folder} has no tokenizer: expected {path.name} or {vocabulary.name}")
    try:
        tokenizer = Tokenizer.from_file(str(path)) if path in files else _word_pieces(vocabulary, settings)
    # The tokenizer library raises plain Exception for whatever it does not understand.
    except Exception as error:
        raise ConfigError(f"the tokenizer in {files[0]} cannot be read: {error}") from error
    n_words = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    if n_words > config.vocab_size:
        raise ConfigError(
            f"the tokenizer in {folder} has {n_words} words, its BERT only {config.vocab_size} (vocab_size)"
        )
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    return tokenizer, hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def tokenise(tokenizer: Tokenizer, recipe: Recipe, texts: Sequence[str]) -> list[Encoding]:
    """Tokenise texts as a recipe wants them; half a surrogate pair, which is no character, becomes "?"."""
    encodings: list[Encoding] = tokenizer.encode_batch_fast([_clean(recipe, text) for text in texts])
    return encodings


def tokenise_words(tokenizer: Tokenizer, recipe: Recipe, texts: Sequence[str]) -> list[tuple[str, Encoding]]:
    """Tokenise likewise, and give each text in which a token's offsets count, its capitals kept."""
    clean = [_clean(recipe, text) for text in texts]
    as_written = [_clean(recipe._replace(is_lowered=False), text) for text in texts]
    return [
        # Few characters have a lower case of another length ("İ"); no offset would fit after them.
        (text if len(text) == len(lowered) else lowered, encoding)
        for text, lowered, encoding in zip(as_written, clean, tokenizer.encode_batch(clean), strict=True)
    ]


def mask_token(tokenizer: Tokenizer) -> int | None:
    """Return the token that stands for a word that is not known, in BERT's spelling or RoBERTa's."""
    found = (tokenizer.token_to_id(name) for name in ("[MASK]", "<mask>"))
    return next((token for token in found if token is not None), None)


def _clean(recipe: Recipe, text: str) -> str:
    # JSON can carry half a pair.
    return (text.lower() if recipe.is_lowered else text).encode("utf-8", "replace").decode("utf-8")


def _read_pooling(folder: Path) -> Pooling:
    tuned = _settings(folder / TUNED)
    if "pooling" in tuned:  # what was tuned need not be pooled as its checkpoint says
        return _known(folder / TUNED, [tuned["pooling"]])
    if not (folder / "modules.json").is_file():
        return "mean"
    modules = {entry["type"].rpartition(".")[2]: entry["path"] for entry in _modules(folder / "modules.json")}
    if unknown := modules.keys() - _MODULES:
        raise ConfigError(f"{folder / 'modules.json'} has modules that are not computed: {sorted(unknown)}")
    if "Pooling" not in modules:
        return "mean"
    path = folder / modules["Pooling"] / "config.json"
    settings = read_json(path)
    asked = [name for name, is_on in settings.items() if name.startswith("pooling_mode_") and is_on is True]
    asked += [settings["pooling_mode"]] if "pooling_mode" in settings else []
    return _known(path, asked)


def _known(path: Path, asked: Sequence[object]) -> Pooling:
    if len(asked) != 1 or str(asked[0]) not in _POOLINGS:
        raise ConfigError(f"{path} asks for pooling {asked}, expected one of {sorted(_POOLINGS)}")
    return _POOLINGS[str(asked[0])]


def _modules(path: Path) -> list[dict[str, str]]:
    entries = read_json(path)
    try:
        return [{"type": str(entry["type"]), "path": str(entry["path"])} for entry in entries]
    except (TypeError, KeyError) as error:
        raise ConfigError(f"{path} is no list of modules with type and path") from error


def _word_pieces(vocabulary: Path, settings: Path) -> Tokenizer:
    """Build BERT's tokenizer from a bare word list, as the checkpoints of 2018 have it."""
    asked = _settings(settings)
    made = BertWordPieceTokenizer(
        str(vocabulary),
        lowercase=asked.get("do_lower_case", True),
        strip_accents=asked.get("strip_accents"),
        handle_chinese_chars=asked.get("tokenize_chinese_chars", True),
    )
    return Tokenizer.from_str(made.to_str())


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} is no JSON object")
    return settings
