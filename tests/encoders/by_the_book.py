"""BERT by its equations, in NumPy and float64."""

import numpy as np
from scipy.special import erf

from encoders.config import BertConfig


def _activate(name: str, x: np.ndarray) -> np.ndarray:
    match name:
        case "gelu":
            return x * 0.5 * (1 + erf(x / np.sqrt(2)))
        case "gelu_new" | "gelu_pytorch_tanh":
            return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        case "relu":
            return np.maximum(x, 0)
        case _:
            return x / (1 + np.exp(-x))


def by_the_book(weights: dict[str, np.ndarray], config: BertConfig, words: np.ndarray) -> np.ndarray:
    """One text's word vectors through BERT by the book, head by head, in float64."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.layer_norm_eps)
        return scaled * w[f"{name}.LayerNorm.weight"] + w[f"{name}.LayerNorm.bias"]

    positions, types = (w[f"embeddings.{kind}_embeddings.weight"] for kind in ("position", "token_type"))
    x = norm(words + positions[config.position_offset :][: len(words)] + types[0], "embeddings")
    width = config.hidden_size // config.num_attention_heads
    for i in range(config.num_hidden_layers):
        layer = f"encoder.layer.{i}"
        q, k, v = (dense(x, f"{layer}.attention.self.{part}") for part in ("query", "key", "value"))
        heads = []
        for start in range(0, config.hidden_size, width):
            head = slice(start, start + width)
            scores = np.exp(q[:, head] @ k[:, head].T / np.sqrt(width))
            heads.append(scores / scores.sum(-1, keepdims=True) @ v[:, head])
        mixed = dense(np.concatenate(heads, -1), f"{layer}.attention.output.dense")
        x = norm(x + mixed, f"{layer}.attention.output")
        inner = _activate(config.hidden_act, dense(x, f"{layer}.intermediate.dense"))
        x = norm(x + dense(inner, f"{layer}.output.dense"), f"{layer}.output")
    return x
