import json
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.flax import save_file as save_jax
from safetensors.numpy import load_file, save_file

from encoders.checkpoint import load_bert, name_table, weight_files, weights_hash
from encoders.config import BertConfig, parse_config, read_json
from encoders.errors import CheckpointError

Edit = Callable[[dict[str, np.ndarray]], None]


@pytest.fixture(scope="module")
def config(tiny: Path) -> BertConfig:
    return parse_config(read_json(tiny / "config.json"))


def _rewrite(folder: Path, edit: Edit) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def _rename(tensors: dict[str, np.ndarray], old: str, new: str) -> None:
    for name in list(tensors):
        tensors[name.replace(old, new)] = tensors.pop(name)


def _states(folder: Path, config: BertConfig, **kwargs) -> dict:
    state = nnx.state(load_bert(folder, config, **kwargs))
    return {path: np.asarray(variable[...]) for path, variable in nnx.to_flat_state(state)}


def _assert_same(folder: Path, tiny: Path, config: BertConfig, atol: float = 0.0) -> None:
    loaded, expected = (_states(at, config, has_pooler=True) for at in (folder, tiny))
    assert loaded.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_allclose(loaded[path], array, rtol=0, atol=atol, err_msg=str(path))


@pytest.mark.parametrize("has_pooler", [True, False])
def test_the_table_names_every_parameter(tiny: Path, config: BertConfig, has_pooler: bool) -> None:
    assert (
        _states(tiny, config, has_pooler=has_pooler).keys()
        == name_table(config, has_pooler=has_pooler).keys()
    )


def test_the_prefix_and_heads_are_ignored(tiny: Path, tiny_copy: Path, config: BertConfig) -> None:
    (tiny_copy / "model_prefixed.safetensors").replace(tiny_copy / "model.safetensors")
    _assert_same(tiny_copy, tiny, config)


def test_old_names_of_norms_and_stored_positions(tiny: Path, tiny_copy: Path, config: BertConfig) -> None:
    def edit(tensors: dict[str, np.ndarray]) -> None:
        _rename(tensors, "LayerNorm.weight", "LayerNorm.gamma")
        _rename(tensors, "LayerNorm.bias", "LayerNorm.beta")
        tensors["embeddings.position_ids"] = np.arange(32)[None]

    _rewrite(tiny_copy, edit)
    _assert_same(tiny_copy, tiny, config)


def test_shards(tiny: Path, tiny_copy: Path, config: BertConfig) -> None:
    tensors = load_file(tiny_copy / "model.safetensors")
    (tiny_copy / "model.safetensors").unlink()
    names = sorted(tensors)
    # Cut so that the query is in one shard, key and value in the other.
    cut = names.index("encoder.layer.1.attention.self.query.bias")
    files = {"model-1.safetensors": names[:cut], "model-2.safetensors": names[cut:]}
    for file, members in files.items():
        save_file({name: tensors[name] for name in members}, tiny_copy / file)
    index = {"weight_map": {name: file for file, members in files.items() for name in members}}
    (tiny_copy / "model.safetensors.index.json").write_text(json.dumps(index))
    _assert_same(tiny_copy, tiny, config)
    assert weights_hash(weight_files(tiny_copy)) != weights_hash(weight_files(tiny))

    (tiny_copy / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"not beside it: model-2\.safetensors$"):
        load_bert(tiny_copy, config)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, [], {"weight_map": {"a": 1}}])
def test_an_index_without_map(tiny_copy: Path, index: object) -> None:
    (tiny_copy / "model.safetensors").unlink()
    (tiny_copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"index\.json has no weight_map"):
        weight_files(tiny_copy)


def test_a_shard_cannot_lead_out_of_the_folder(tiny: Path, tiny_copy: Path) -> None:
    (tiny_copy.parent / "outside.safetensors").write_bytes(b"")
    (tiny_copy / "model.safetensors").unlink()
    index = {"weight_map": {"a": "../outside.safetensors"}}
    (tiny_copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"\.\./outside"):
        weight_files(tiny_copy)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_widened(tiny: Path, tiny_copy: Path, config: BertConfig, dtype: str) -> None:
    tensors = load_file(tiny_copy / "model.safetensors")
    save_jax({k: jnp.asarray(v, dtype) for k, v in tensors.items()}, tiny_copy / "model.safetensors")
    _assert_same(tiny_copy, tiny, config, atol=0.02)
    assert {array.dtype for array in _states(tiny_copy, config).values()} == {np.dtype(np.float32)}


def test_all_that_is_wrong_is_in_one_error(tiny_copy: Path, config: BertConfig) -> None:
    def edit(tensors: dict[str, np.ndarray]) -> None:
        del tensors["encoder.layer.2.output.dense.bias"]
        del tensors["encoder.layer.0.attention.self.key.weight"]
        tensors["encoder.layer.3.output.dense.bias"] = np.zeros(24, np.float32)
        tensors["encoder.layer.1.attention.self.query.weight"] = np.zeros((12, 24), np.float32)
        tensors["encoder.layer.1.intermediate.dense.weight"] = np.zeros((24, 40), np.float32)
        tensors["embeddings.word_embeddings.weight"] = np.zeros((47, 24), np.int8)
        tensors["embeddings.LayerNorm.bias"] = np.full(24, np.nan, np.float32)

    _rewrite(tiny_copy, edit)
    with pytest.raises(CheckpointError) as caught:
        load_bert(tiny_copy, config)
    message = str(caught.value)
    assert "7 problems" in message
    for part in (
        "encoder.layer.2.output.dense.bias is missing",
        "encoder.layer.0.attention.self.key.weight is missing",
        "encoder.layer.3.output.dense.bias is unexpected",
        "encoder.layer.1.attention.self.query.weight has shape [12, 24], expected [24, 24]",
        "encoder.layer.1.intermediate.dense.weight has shape [24, 40], expected [40, 24]",
        "embeddings.word_embeddings.weight holds I8",
        "embeddings.LayerNorm.bias holds numbers that are not finite",
    ):
        assert part in message


def test_a_tensor_under_two_names_is_ambiguous(tiny_copy: Path, config: BertConfig) -> None:
    _rewrite(tiny_copy, lambda t: t.update({"embeddings.LayerNorm.beta": t["embeddings.LayerNorm.bias"]}))
    with pytest.raises(CheckpointError, match=r"embeddings\.LayerNorm\.\w+ is there twice"):
        load_bert(tiny_copy, config)


def test_a_pooler_that_is_not_there(tiny_copy: Path, config: BertConfig) -> None:
    _rewrite(tiny_copy, lambda t: [t.pop(f"pooler.dense.{name}") for name in ("weight", "bias")])
    load_bert(tiny_copy, config)
    with pytest.raises(
        CheckpointError, match=r"pooler\.dense\.bias is missing; pooler\.dense\.weight is missing"
    ):
        load_bert(tiny_copy, config, has_pooler=True)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "tf_model.h5", "flax_model.msgpack"])
def test_other_weights_are_refused_with_the_reason(tiny_copy: Path, name: str) -> None:
    for path in tiny_copy.glob("*.safetensors"):
        path.unlink()
    (tiny_copy / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=rf"only as {name}.*a pickle can run any code"):
        weight_files(tiny_copy)


def test_no_weights_at_all(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has neither model\.safetensors nor .*loading a pickle"):
        weight_files(tmp_path)


@pytest.mark.parametrize("n_bytes", [0, 5, 40_000])
def test_a_damaged_file_is_named(tiny_copy: Path, config: BertConfig, n_bytes: int) -> None:
    path = tiny_copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read as safetensors"):
        load_bert(tiny_copy, config)
