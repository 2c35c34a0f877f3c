"""The function that is tuned: tokens of whole campaigns -> vectors of their creatives."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from encoders.bert import Bert
from encoders.config import BertConfig
from encoders.forward import unit_vectors_from_words
from encoders.recipe import Pooling, Recipe

from .packing import Packed, Tokens, pack
from .parameters import Parameters, Trained, with_parameters

# From what trains and campaigns to the creatives' vectors.
Encode = Callable[[Any, Sequence[Tokens]], Float[np.ndarray, "creatives dim"]]


class Model(NamedTuple):
    """Hold what does not change while an encoder is tuned.

    Args:
        graph: The BERT's structure.
        state: Its state, without values.
        frozen: The checkpoint's parameters.
        combine: Makes all parameters from these and the trained ones.
        pooling: How token vectors become the vector of a text.
        max_tokens: Longest text.
    """

    graph: nnx.GraphDef[Bert]
    state: nnx.State
    frozen: Parameters
    combine: Callable[[Parameters, Any], Parameters]
    pooling: Pooling
    max_tokens: int


class Tunable(NamedTuple):
    """Hold what is trained: parts of the encoder, and a head for each outcome."""

    encoder: Any
    heads: Float[Array, "outcomes dim"]


def model_of(
    config: BertConfig,
    frozen: Parameters,
    trained: Trained,
    recipe: Recipe,
    dtype: DTypeLike = jnp.float32,
) -> Model:
    """Make the model around a checkpoint's parameters.

    Args:
        config: Of the BERT; its dropout is that of training.
        frozen: The parameters.
        trained: Which of them train.
        recipe: Pooling and longest text.
        dtype: Type of the matrix products.
    """
    bert = nnx.eval_shape(lambda: Bert(config, dtype=dtype, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(bert)
    return Model(graph, state, frozen, trained.combine, recipe.pooling, recipe.max_tokens)


def encoding(model: Model) -> Encode:
    """Make the function from trained parameters and campaigns to the creatives' vectors."""
    run = jax.jit(lambda frozen, trained, batch: vectors(model, frozen, trained, batch))

    def encode(trained: Any, campaigns: Sequence[Tokens]) -> Float[np.ndarray, "creatives dim"]:
        found = []
        for batch in pack(campaigns, model.max_tokens):
            n_creatives = int(batch.creative.max()) + 1
            found.append(np.asarray(run(model.frozen, trained, batch))[:n_creatives])
        return np.concatenate(found)

    return encode


def vectors(
    model: Model,
    frozen: Parameters,
    trained: Any,
    batch: Packed,
    rngs: nnx.Rngs | None = None,
    shift: Float[Array, "texts tokens dim"] | float = 0.0,
) -> Float[Array, "texts dim"]:
    """Compute the vectors of a batch's creatives: the weighted mean of their texts', of length 1.

    Args:
        model: What does not change.
        frozen: Its parameters, apart so that a compiled function does not hold them as constants.
        trained: What trains.
        batch: Tokens.
        rngs: Source of the dropout masks; None means no dropout.
        shift: Is added to the word vectors.
    """
    bert = with_parameters(model.graph, model.state, model.combine(frozen, trained))
    words = bert.embeddings.word(jnp.asarray(batch.ids)) + shift
    texts = unit_vectors_from_words(bert, model.pooling, words, batch.n_tokens, rngs)
    n_rows = len(batch.campaign)
    sums = jax.ops.segment_sum(texts * batch.weight[:, None], batch.creative, n_rows)
    # Not `norm`: its derivative at the zeros of padding is not a number.
    return sums * jax.lax.rsqrt(jnp.maximum((sums**2).sum(axis=1, keepdims=True), 1e-24))
