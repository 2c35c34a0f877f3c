"""Hugging Face safetensors -> the parameters of our BERT, strictly.

One table says which tensors make which parameter. All that does not fit is gathered and raised at once.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from safetensors import SafetensorError, safe_open

from .bert import Bert
from .config import BertConfig, read_json
from .errors import CheckpointError

_Path = tuple[str | int, ...]

# Our name -> theirs. Several names are joined along the output; a "kernel" is the transpose of their
# "weight", which is stored output first.
_EMBEDDINGS = {
    "word.embedding": ("word_embeddings.weight",),
    "position.embedding": ("position_embeddings.weight",),
    "type.embedding": ("token_type_embeddings.weight",),
    "norm.scale": ("LayerNorm.weight",),
    "norm.bias": ("LayerNorm.bias",),
}
_LAYER = {
    "attention.qkv.kernel": tuple(f"attention.self.{part}.weight" for part in ("query", "key", "value")),
    "attention.qkv.bias": tuple(f"attention.self.{part}.bias" for part in ("query", "key", "value")),
    "attention.out.kernel": ("attention.output.dense.weight",),
    "attention.out.bias": ("attention.output.dense.bias",),
    "attention_norm.scale": ("attention.output.LayerNorm.weight",),
    "attention_norm.bias": ("attention.output.LayerNorm.bias",),
    "widen.kernel": ("intermediate.dense.weight",),
    "widen.bias": ("intermediate.dense.bias",),
    "narrow.kernel": ("output.dense.weight",),
    "narrow.bias": ("output.dense.bias",),
    "norm.scale": ("output.LayerNorm.weight",),
    "norm.bias": ("output.LayerNorm.bias",),
}
_POOLER = {"kernel": ("dense.weight",), "bias": ("dense.bias",)}

_PREFIXES = ("bert.", "roberta.")
# Position numbers that older versions of transformers stored beside the weights.
_NO_PARAMETERS = ("embeddings.position_ids", "embeddings.token_type_ids")
_NOT_READ = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


class _Tensor(NamedTuple):
    file: Any  # safetensors' open file, which has no types
    name: str


def weight_files(folder: Path) -> tuple[Path, ...]:
    """List the files that hold a checkpoint's weights.

    Args:
        folder: A checkpoint's folder.

    Returns:
        `model.safetensors`, or the shards that `model.safetensors.index.json` names, sorted.

    Raises:
        CheckpointError: If there are none, if only weights of another kind are there, or if shards are
            missing.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return (single,)
    if index.is_file():
        return _shards(index)
    if others := sorted(path.name for pattern in _NOT_READ for path in folder.glob(pattern)):
        raise CheckpointError(
            f"{folder} has weights only as {', '.join(others)}, which are not read: loading a pickle can run"
            " any code that it carries. Convert them to model.safetensors"
        )
    raise CheckpointError(
        f"{folder} has neither {single.name} nor {index.name}; weights of other kinds (pytorch_model.bin, …)"
        " are not read, because loading a pickle can run any code that it carries"
    )


def weights_hash(files: tuple[Path, ...]) -> str:
    """Hash weights by content.

    Args:
        files: The files of `weight_files`.

    Returns:
        The sha256 of a single file, or of the shards' hashes in order; hexadecimal.
    """
    hashes = []
    for path in files:
        with path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def load_bert(
    folder: Path,
    config: BertConfig,
    *,
    layers: int | None = None,
    has_pooler: bool = False,
    dtype: DTypeLike = jnp.float32,
) -> Bert:
    """Build a BERT with the weights of a checkpoint.

    The model is built from shapes alone, so nothing is initialised only to be thrown away.

    Args:
        folder: The checkpoint's folder.
        config: What the checkpoint's `config.json` says.
        layers: How many of its layers to load, the first ones; None loads all.
        has_pooler: Whether to load the pooler; if not, its tensors are ignored like those of other heads.
        dtype: Type of the matrix products; the parameters are float32 whatever the checkpoint holds.

    Returns:
        The model.

    Raises:
        CheckpointError: If weights are missing, unexpected, of another shape, not floating-point numbers or
            not finite: all of them in one error. Also what `weight_files` raises.
    """
    kept = config if layers is None else replace(config, num_hidden_layers=layers)
    model = nnx.eval_shape(partial(_build, kept, has_pooler, dtype))
    graph, state = nnx.split(model)
    variables = dict(nnx.to_flat_state(state))
    shapes = {path: variable.shape for path, variable in variables.items()}
    arrays = _read(folder, name_table(config, has_pooler=has_pooler), shapes)
    loaded = [(path, variable.replace(jnp.asarray(arrays[path]))) for path, variable in variables.items()]
    bert: Bert = nnx.merge(graph, nnx.from_flat_state(loaded))
    return bert


def in_float32(bert: Bert, config: BertConfig) -> Bert:
    """Return the same model, its parameters shared, with matrix products in float32.

    Args:
        bert: A model without pooler.
        config: Its configuration.
    """
    graph, _ = nnx.split(nnx.eval_shape(partial(_build, config, False, jnp.float32)))
    _, state = nnx.split(bert)
    same: Bert = nnx.merge(graph, state)
    return same


def name_table(config: BertConfig, *, has_pooler: bool) -> dict[_Path, tuple[str, ...]]:
    """Say which of a checkpoint's tensors make each parameter.

    Args:
        config: Says how many layers there are.
        has_pooler: Whether the pooler is among them.

    Returns:
        Our path to their names, without prefix and in today's spelling.
    """
    blocks: list[tuple[_Path, str, Mapping[str, tuple[str, ...]]]] = [
        (("embeddings",), "embeddings.", _EMBEDDINGS)
    ]
    blocks += [(("layers", i), f"encoder.layer.{i}.", _LAYER) for i in range(config.num_hidden_layers)]
    if has_pooler:
        blocks.append((("pooler",), "pooler.", _POOLER))
    return {
        (*path, *ours.split(".")): tuple(prefix + name for name in theirs)
        for path, prefix, rows in blocks
        for ours, theirs in rows.items()
    }


def _build(config: BertConfig, has_pooler: bool, dtype: DTypeLike) -> Bert:
    return Bert(config, has_pooler=has_pooler, dtype=dtype, rngs=nnx.Rngs(0))


def _shards(index: Path) -> tuple[Path, ...]:
    settings = read_json(index)
    names = settings.get("weight_map") if isinstance(settings, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError(f"{index} has no weight_map from names to files")
    files = sorted(set(names.values()))
    # A shard's name comes with the checkpoint; it must not lead out of the folder.
    if wrong := [name for name in files if Path(name).name != name or not (index.parent / name).is_file()]:
        raise CheckpointError(f"{index} names shards that are not beside it: {', '.join(wrong)}")
    return tuple(index.parent / name for name in files)


def _read(
    folder: Path, table: dict[_Path, tuple[str, ...]], shapes: dict[_Path, tuple[int, ...]]
) -> dict[_Path, np.ndarray]:
    """Read the parameters whose shapes are given; what else is in the table must be there too."""
    with ExitStack() as opened:
        tensors: dict[str, _Tensor] = {}
        wrong: list[str] = []
        for name, tensor in _tensors(weight_files(folder), opened):
            if name in tensors:
                wrong.append(f"{tensor.name} is there twice, the other one as {tensors[name].name}")
            tensors[name] = tensor
        needed = {name for names in table.values() for name in names}
        wrong += [f"{name} is missing" for name in sorted(needed - tensors.keys())]
        is_head = partial(_is_head, with_pooler=any(path[0] == "pooler" for path in table))
        wrong += [f"{name} is unexpected" for name in sorted(tensors.keys() - needed) if not is_head(name)]

        arrays = {}
        for path, names in table.items():
            if path not in shapes or not tensors.keys() >= set(names):
                continue
            expected = _stored_shape(path, shapes[path], len(names))
            problems = [problem for name in names if (problem := _misfit(tensors[name], name, expected))]
            if problems:
                wrong += problems
                continue
            joined = np.concatenate([_array(tensors[name]) for name in names])
            arrays[path] = joined.T if path[-1] == "kernel" else joined
            if not np.isfinite(joined).all():
                wrong.append(f"{' / '.join(names)} holds numbers that are not finite")
        if wrong:
            raise CheckpointError(
                f"the weights in {folder} do not fit its config.json ({len(wrong)} problems): "
                + "; ".join(wrong)
            )
        return arrays


def _tensors(files: tuple[Path, ...], opened: ExitStack) -> Iterator[tuple[str, _Tensor]]:
    """Yield every tensor of the encoder, under its name without prefix and in today's spelling."""
    found = []
    for path in files:
        try:
            file = opened.enter_context(safe_open(path, framework="numpy"))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} cannot be read as safetensors ({error}); fetch the file again"
            ) from error
        found += [_Tensor(file, name) for name in file.keys()]  # noqa: SIM118 (no mapping, it only has keys())
    has_prefix = any(tensor.name.startswith(_PREFIXES) for tensor in found)
    for tensor in found:
        # In a checkpoint with a head, all that is not under the prefix belongs to the head.
        if not has_prefix or tensor.name.startswith(_PREFIXES):
            name = tensor.name
            for prefix in _PREFIXES:
                name = name.removeprefix(prefix)
            yield (
                name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
                    "LayerNorm.beta", "LayerNorm.bias"
                ),
                tensor,
            )


def _is_head(name: str, *, with_pooler: bool) -> bool:
    return (
        name in _NO_PARAMETERS or name.startswith("cls.") or (not with_pooler and name.startswith("pooler."))
    )


def _stored_shape(path: _Path, shape: tuple[int, ...], n_parts: int) -> tuple[int, ...]:
    first, *rest = reversed(shape) if path[-1] == "kernel" else shape
    return (first // n_parts, *rest)


def _misfit(tensor: _Tensor, name: str, expected: tuple[int, ...]) -> str | None:
    stored = tensor.file.get_slice(tensor.name)
    if (shape := tuple(stored.get_shape())) != expected:
        return f"{name} has shape {list(shape)}, expected {list(expected)}"
    if (kind := stored.get_dtype()) not in {"F64", "F32", "F16", "BF16"}:
        return f"{name} holds {kind}, expected floating-point numbers"
    return None


def _array(tensor: _Tensor) -> np.ndarray:
    return np.asarray(tensor.file.get_tensor(tensor.name), dtype=np.float32)
