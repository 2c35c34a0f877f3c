"""The one compiled function of a text encoder: token ids -> unit vectors."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from .bert import Bert
from .recipe import Pooling

Forward = Callable[[Int[np.ndarray, "texts tokens"], Int[np.ndarray, "texts"]], Float[Array, "texts dim"]]


def compile_forward(bert: Bert, pooling: Pooling) -> Forward:
    """Make the function from ids and token counts to unit vectors; compiled once per shape.

    The model is split once: `nnx.jit` would take it apart and copy its state at every call.

    Args:
        bert: The model.
        pooling: How token vectors become the vector of a text.

    Returns:
        A function of ids `[texts, tokens]` and token counts `[texts]`, each at least 1. Its vectors are
        float32 of length 1.
    """
    graph, state = nnx.split(bert)
    return partial(jax.jit(partial(_forward, graph, pooling)), state)


def _forward(
    graph: nnx.GraphDef[Bert],
    pooling: Pooling,
    state: nnx.State,
    ids: Int[Array, "texts tokens"],
    n_tokens: Int[Array, "texts"],
) -> Float[Array, "texts dim"]:
    return unit_vectors(nnx.merge(graph, state), pooling, ids, n_tokens)


def unit_vectors(
    bert: Bert,
    pooling: Pooling,
    ids: Int[Array | np.ndarray, "texts tokens"],
    n_tokens: Int[Array | np.ndarray, "texts"],
    rngs: nnx.Rngs | None = None,
) -> Float[Array, "texts dim"]:
    """Compute the vectors of a batch of texts.

    Args:
        bert: The model.
        pooling: How token vectors become the vector of a text.
        ids: Token ids.
        n_tokens: Tokens of each text, each at least 1.
        rngs: Source of the dropout masks; None means no dropout.

    Returns:
        Vectors of length 1, float32.
    """
    return unit_vectors_from_words(bert, pooling, bert.embeddings.word(jnp.asarray(ids)), n_tokens, rngs)


def unit_vectors_from_words(
    bert: Bert,
    pooling: Pooling,
    words: Float[Array, "texts tokens dim"],
    n_tokens: Int[Array | np.ndarray, "texts"],
    rngs: nnx.Rngs | None = None,
) -> Float[Array, "texts dim"]:
    """Compute likewise from word vectors, which need not be rows of the word table."""
    is_token = jnp.arange(words.shape[1]) < n_tokens[:, None]
    last = bert.from_words(words, is_token, rngs=rngs).last
    # The direction alone matters, so the sum over tokens does for their mean.
    vector = last[:, 0] if pooling == "cls" else jnp.where(is_token[..., None], last, 0.0).sum(axis=1)
    # The floor keeps a vector of zeros from becoming NaN; it is what PyTorch's normalize uses.
    return vector / jnp.maximum(jnp.linalg.norm(vector, axis=-1, keepdims=True), 1e-12)
