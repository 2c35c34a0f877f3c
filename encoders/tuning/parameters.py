"""Which of a BERT's parameters train: its last layers, or low-rank additions to its matrices.

References:
    Hu et al. (2022), LoRA: Low-Rank Adaptation of Large Language Models, section 4.1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from encoders.bert import Bert
from encoders.errors import TuningError

Parameters = dict[str, Array]  # by dotted path, such as layers.0.attention.qkv.kernel
LORA_SCALE = 2.0  # alpha / rank


class Trained(NamedTuple):
    """Hold what trains.

    Args:
        initial: Its start, with which the model is unchanged.
        combine: Makes all parameters of the model from those of the checkpoint and what was trained.
    """

    initial: Any
    combine: Callable[[Parameters, Any], Parameters]


def parameters_of(bert: Bert) -> Parameters:
    """Return a model's parameters by name."""
    return {_name(path): variable.get_value() for path, variable in nnx.to_flat_state(nnx.state(bert))}


def with_parameters(graph: nnx.GraphDef[Bert], state: nnx.State, parameters: Parameters) -> Bert:
    """Build a model from parameters by name; also inside a compiled function.

    Args:
        graph: The model's structure.
        state: Any state of it; its values are not used.
        parameters: All of them.
    """
    flat = [(path, variable.replace(parameters[_name(path)])) for path, variable in nnx.to_flat_state(state)]
    bert: Bert = nnx.merge(graph, nnx.from_flat_state(flat))
    return bert


def last_layers(parameters: Parameters, n_layers: int, n_trained: int) -> Trained:
    """Let the last layers train.

    Args:
        parameters: The checkpoint's.
        n_layers: Layers of the model.
        n_trained: How many of them.

    Raises:
        TuningError: The model has fewer.
    """
    if n_trained > n_layers:
        raise TuningError(f"asked to train the last {n_trained} layers, but the model has {n_layers}")
    prefixes = tuple(f"layers.{index}." for index in range(n_layers - n_trained, n_layers))
    chosen = {name: value for name, value in parameters.items() if name.startswith(prefixes)}
    return Trained(chosen, lambda frozen, trained: frozen | trained)


def low_rank(parameters: Parameters, rank: int, key: Array) -> Trained:
    """Let W + 2 A B train in place of every layer's matrices W, of which A and B are the trained part.

    Args:
        parameters: The checkpoint's.
        rank: Columns of A, rows of B.
        key: Of A's random start; B starts at 0.

    Raises:
        TuningError: The rank is not below the matrices'.
    """
    names = sorted(name for name in parameters if name.startswith("layers.") and name.endswith(".kernel"))
    if rank >= (most := min(min(parameters[name].shape) for name in names)):
        raise TuningError(f"rank {rank}: the matrices have {most}; expected less")
    pairs = {}
    for name, key_matrix in zip(names, jax.random.split(key, len(names)), strict=True):
        n_in, n_out = parameters[name].shape
        # As spread as the rows of a dense layer's usual start.
        start = jax.random.normal(key_matrix, (n_in, rank)) / jnp.sqrt(n_in)
        pairs[name] = (start, jnp.zeros((rank, n_out)))

    def combine(frozen: Parameters, trained: dict[str, tuple[Array, Array]]) -> Parameters:
        added = {name: frozen[name] + LORA_SCALE * (a @ b) for name, (a, b) in trained.items()}
        return frozen | added

    return Trained(pairs, combine)


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
