"""A tuned encoder as a checkpoint's folder, which an engine opens like any other."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from encoders.checkpoint import name_table
from encoders.config import BertConfig
from encoders.errors import TuningError
from encoders.recipe import TUNED

from .parameters import Parameters

EPOCHS = "epochs.csv"
# All of a checkpoint but its weights that an encoder reads.
_FILES = (
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)


def check_free(out: Path) -> None:
    """Refuse a folder that is there already.

    Raises:
        TuningError: It is; what is in it might be in use.
    """
    if out.exists():
        raise TuningError(f"{out} is there already; name a folder that is not, or remove it")


def export(
    source: Path,
    out: Path,
    config: BertConfig,
    parameters: Parameters,
    provenance: Mapping[str, Any],
    epochs: str = "",
    add_files: Callable[[Path], None] = lambda _: None,
) -> None:
    """Write a checkpoint's folder, whole or not at all.

    Args:
        source: Folder of the checkpoint that was tuned.
        out: The new folder.
        config: Of the BERT.
        parameters: All of its parameters.
        provenance: What becomes `tuning.json`.
        epochs: What becomes `epochs.csv`.
        add_files: Called with the folder before it gets its name; what it writes there belongs to it.

    Raises:
        TuningError: The new folder is there already, or cannot be written.
    """
    check_free(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise TuningError(f"{out} cannot be written: {error}") from error
    try:
        _copy(source, unfinished)
        save_file(_tensors(config, parameters), unfinished / "model.safetensors", {"format": "pt"})
        (unfinished / TUNED).write_text(json.dumps(provenance, indent=2, ensure_ascii=False) + "\n")
        (unfinished / EPOCHS).write_text(epochs)
        add_files(unfinished)
        for path in unfinished.rglob("*"):
            if path.is_file():
                path.chmod(0o644)  # safetensors keeps others from reading
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        unfinished.chmod(0o755)
        unfinished.rename(out)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not isinstance(error, Exception):  # somebody stops it
            raise
        # safetensors raises a kind of its own when the disk is full
        raise TuningError(f"{out} cannot be written: {error}; nothing was left there") from error


def settings_files(source: Path) -> list[Path]:
    """List all of a checkpoint's files that an encoder reads, but its weights."""
    nested = sorted(path for path in source.glob("*/config.json") if path.is_file())  # pooling, for one
    return [*(source / name for name in _FILES if (source / name).is_file()), *nested]


def _copy(source: Path, to: Path) -> None:
    for path in settings_files(source):
        copied = to / path.relative_to(source)
        copied.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copied)


def _tensors(config: BertConfig, parameters: Parameters) -> dict[str, np.ndarray]:
    """Return the parameters under the names, and in the layout, of the Hugging Face hub."""
    tensors: dict[str, np.ndarray] = {}
    for path, names in name_table(config, has_pooler=False).items():
        value = np.asarray(parameters[".".join(map(str, path))], np.float32)
        stored = value.T if path[-1] == "kernel" else value
        parts = np.split(stored, len(names))
        tensors |= {name: np.ascontiguousarray(part) for name, part in zip(names, parts, strict=True)}
    return tensors
