"""The default encoder's BERT in other runtimes: ids and numbers of tokens in, unit vectors out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import load_file

from encoders.config import BertConfig

Forward = Callable[
    [Int[np.ndarray, "texts tokens"], Int[np.ndarray, "texts"]], Float[np.ndarray, "texts dim"]
]

EPSILON = 1e-12


def pytorch(folder: Path, threads: int) -> Forward:
    """Return PyTorch's, as transformers runs it: float32, scaled_dot_product_attention."""
    import torch
    from transformers import BertModel

    torch.set_num_threads(threads)
    model = BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="sdpa").eval()

    def forward(ids: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            is_token = torch.arange(ids.shape[1]) < torch.from_numpy(n_tokens)[:, None]
            last = model(torch.from_numpy(ids).long(), attention_mask=is_token.long()).last_hidden_state
            sums = (last * is_token[..., None]).sum(1)
            unit: np.ndarray = torch.nn.functional.normalize(sums, dim=1).numpy()
            return unit

    return forward


def onnxruntime(folder: Path, config: BertConfig, threads: int) -> Forward:
    """Return onnxruntime's, over the fused operators that its own optimiser makes of a BERT; dynamic axes."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    model = _graph(load_file(folder / "model.safetensors"), config).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def forward(ids: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        is_token = (np.arange(ids.shape[1]) < n_tokens[:, None]).astype(np.int32)
        vectors: np.ndarray = session.run(None, {"ids": ids, "is_token": is_token})[0]
        return vectors

    return forward


def _graph(tensors: Mapping[str, np.ndarray], config: BertConfig) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    constants: dict[str, np.ndarray] = {}

    def constant(name: str, value: np.ndarray) -> str:
        constants[name] = np.ascontiguousarray(value)
        return name

    def weight(name: str) -> str:
        return constant(name, tensors[name])

    def node(kind: str, *inputs: str, domain: str = "", **settings: Any) -> str:
        output = f"{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **settings))
        return output

    def fused(kind: str, *inputs: str, **settings: Any) -> str:
        return node(kind, *inputs, domain="com.microsoft", **settings)

    def product(x: str, name: str) -> str:
        return node("MatMul", x, constant(f"{name}.weight.T", tensors[f"{name}.weight"].T))

    def added(x: str, name: str, skip: str, norm: str) -> str:
        """Return the norm of a dense layer's output and what it is added to."""
        scale = (weight(f"{norm}.weight"), weight(f"{norm}.bias"))
        return fused(
            "SkipLayerNormalization", product(x, name), skip, *scale, weight(f"{name}.bias"), epsilon=EPSILON
        )

    words = node("Gather", weight("embeddings.word_embeddings.weight"), "ids")
    places = (
        tensors["embeddings.position_embeddings.weight"]
        + tensors["embeddings.token_type_embeddings.weight"][0]
    )
    n_tokens = node("Shape", "ids", start=1)
    first, axis = (constant(f"slice_{i}", np.array([i], np.int64)) for i in (0, 0))
    place = node("Slice", constant("places", places), first, n_tokens, axis)
    norm = "embeddings.LayerNorm"
    x = node(
        "LayerNormalization",
        *(node("Add", words, place), weight(f"{norm}.weight"), weight(f"{norm}.bias")),
        epsilon=EPSILON,
    )
    for layer in range(config.num_hidden_layers):
        at = f"encoder.layer.{layer}"
        parts = [f"{at}.attention.self.{name}" for name in ("query", "key", "value")]
        qkv = np.concatenate([tensors[f"{part}.weight"].T for part in parts], axis=1)
        bias = np.concatenate([tensors[f"{part}.bias"] for part in parts])
        attended = fused(
            "Attention",
            *(x, constant(f"{at}.qkv", qkv), constant(f"{at}.qkv.bias", bias), "is_token"),
            num_heads=config.num_attention_heads,
        )
        x = added(attended, f"{at}.attention.output.dense", x, f"{at}.attention.output.LayerNorm")
        wide = fused(
            "BiasGelu", product(x, f"{at}.intermediate.dense"), weight(f"{at}.intermediate.dense.bias")
        )
        x = added(wide, f"{at}.output.dense", x, f"{at}.output.LayerNorm")
    is_token = node(
        "Unsqueeze", node("Cast", "is_token", to=TensorProto.FLOAT), constant("two", np.array([2]))
    )
    sums = node("ReduceSum", node("Mul", x, is_token), constant("one", np.array([1])), keepdims=0)
    nodes.append(helper.make_node("LpNormalization", [sums], ["vectors"], axis=-1, p=2))
    graph = helper.make_graph(
        nodes,
        "bert",
        [
            helper.make_tensor_value_info(name, TensorProto.INT32, ["texts", "tokens"])
            for name in ("ids", "is_token")
        ],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", config.hidden_size])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8)
