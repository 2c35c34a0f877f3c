"""BERT's encoder in Flax NNX: embeddings, transformer layers, optional pooler.

Shapes are those of a batch, `texts tokens …`; a single text is a batch of one.

References:
    Devlin, Chang, Lee, Toutanova (2019), BERT: Pre-training of Deep Bidirectional Transformers for
    Language Understanding.
    Liu et al. (2019), RoBERTa: A Robustly Optimized BERT Pretraining Approach; as a model, a BERT whose
    positions are counted from elsewhere.
"""

# mypy: disable-error-code="misc, no-any-return"
# (mypy does not follow flax: a module class has a base of type Any, and calling a module returns Any.)

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from .config import BertConfig

_ACTIVATE: dict[str, Callable[[Array], Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
}


class BertOutput(NamedTuple):
    """Hold what BERT makes of a batch of texts.

    Args:
        last: Vector of each token after the last layer.
        pooled: Pooler's vector of each text; None for a BERT without pooler.
        hidden: Vectors after the embeddings and after each layer, when asked for; else None.
    """

    last: Float[Array, "texts tokens dim"]
    pooled: Float[Array, "texts dim"] | None
    hidden: Float[Array, "levels texts tokens dim"] | None


class Bert(nnx.Module):
    """Turn token ids into token vectors.

    Args:
        config: Sizes and rates.
        has_pooler: Whether to end in BERT's pooler, a dense layer on the first token.
        dtype: Type of the matrix products. Parameters, sums, norms and softmax stay float32.
        rngs: Source of the initial parameters.
    """

    def __init__(
        self,
        config: BertConfig,
        *,
        has_pooler: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.embeddings = Embeddings(config, rngs=rngs)
        self.layers = nnx.List([Layer(config, dtype, rngs=rngs) for _ in range(config.num_hidden_layers)])
        self.pooler = _dense(config.hidden_size, config.hidden_size, dtype, rngs) if has_pooler else None

    def __call__(
        self,
        ids: Int[Array, "texts tokens"],
        is_token: Bool[Array, "texts tokens"],
        types: Int[Array, "texts tokens"] | None = None,
        *,
        with_hidden: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> BertOutput:
        """Compute the vectors of a batch of texts.

        Args:
            ids: Rows of the word table.
            is_token: False at padding, which no token attends to. Each text needs one token at least.
            types: Token types; None means that all are of type 0.
            with_hidden: Whether to return the vectors after every layer too.
            rngs: Source of the dropout masks; None means no dropout.

        Returns:
            The vectors; those at padding positions mean nothing.
        """
        words = self.embeddings.word(ids)
        return self.from_words(words, is_token, types, with_hidden=with_hidden, rngs=rngs)

    def from_words(
        self,
        words: Float[Array, "texts tokens dim"],
        is_token: Bool[Array, "texts tokens"],
        types: Int[Array, "texts tokens"] | None = None,
        *,
        with_hidden: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> BertOutput:
        """Compute likewise from word vectors, which need not be rows of the word table."""
        x = self.embeddings(words, types, rngs)
        # Added to scores before the softmax; the lowest float32 itself would overflow in the sum.
        bias = jnp.where(is_token, 0.0, jnp.finfo(jnp.float32).min / 2)[:, None, None, :]
        hidden = [x]
        for layer in self.layers:
            x = layer(x, bias, rngs)
            hidden.append(x)
        pooled = None if self.pooler is None else jnp.tanh(_float32(self.pooler(x[:, 0])))
        return BertOutput(x, pooled, jnp.stack(hidden) if with_hidden else None)


class Embeddings(nnx.Module):
    """Sum word, position and type vectors of each token, and normalise; the word vectors are given."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.word = nnx.Embed(config.vocab_size, config.hidden_size, rngs=rngs)
        self.position = nnx.Embed(config.max_position_embeddings, config.hidden_size, rngs=rngs)
        self.type = nnx.Embed(config.type_vocab_size, config.hidden_size, rngs=rngs)
        self.norm = _norm(config, rngs)
        self.dropout = nnx.Dropout(config.hidden_dropout_prob)
        self.position_offset, self.max_tokens = config.position_offset, config.max_tokens

    def __call__(
        self,
        words: Float[Array, "texts tokens dim"],
        types: Int[Array, "texts tokens"] | None,
        rngs: nnx.Rngs | None,
    ) -> Float[Array, "texts tokens dim"]:
        """Compute the input of the first layer."""
        n_tokens = words.shape[1]
        if n_tokens > self.max_tokens:
            raise ValueError(f"{n_tokens} tokens, but only {self.max_tokens} positions")
        # The rows as a slice: a lookup by constant indices would be a gather at run time.
        position = self.position.embedding[self.position_offset : self.position_offset + n_tokens]
        kind = self.type.embedding[0] if types is None else self.type(types)
        return _drop(self.dropout, self.norm(words + position + kind), rngs)


class Layer(nnx.Module):
    """Attend, then feed forward; each with a residual sum that is normalised after."""

    def __init__(self, config: BertConfig, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        dim, inner = config.hidden_size, config.intermediate_size
        self.attention = Attention(config, dtype, rngs=rngs)
        self.attention_norm = _norm(config, rngs)
        self.widen = _dense(dim, inner, dtype, rngs)
        self.narrow = _dense(inner, dim, dtype, rngs)
        self.norm = _norm(config, rngs)
        self.dropout = nnx.Dropout(config.hidden_dropout_prob)
        self.activation = config.hidden_act

    def __call__(
        self,
        x: Float[Array, "texts tokens dim"],
        bias: Float[Array, "texts 1 1 tokens"],
        rngs: nnx.Rngs | None,
    ) -> Float[Array, "texts tokens dim"]:
        """Compute the next level of token vectors."""
        attended = _float32(self.attention(x, bias, rngs))
        x = self.attention_norm(x + _drop(self.dropout, attended, rngs))
        fed = _float32(self.narrow(_ACTIVATE[self.activation](self.widen(x))))
        return self.norm(x + _drop(self.dropout, fed, rngs))


class Attention(nnx.Module):
    """Let every token take a weighted mean of all tokens' values, once per head.

    softmax(Q Kᵀ / √d + bias) V, with queries, keys and values from one matrix product.
    """

    def __init__(self, config: BertConfig, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        self.n_heads = config.num_attention_heads
        self.qkv = _dense(config.hidden_size, 3 * config.hidden_size, dtype, rngs)
        self.out = _dense(config.hidden_size, config.hidden_size, dtype, rngs)
        self.dropout = nnx.Dropout(config.attention_probs_dropout_prob)

    def __call__(
        self,
        x: Float[Array, "texts tokens dim"],
        bias: Float[Array, "texts 1 1 tokens"],
        rngs: nnx.Rngs | None,
    ) -> Float[Array, "texts tokens dim"]:
        """Compute the attention's part of the residual sum."""
        n_texts, n_tokens, dim = x.shape
        width = dim // self.n_heads
        # One transpose for all three, to `part texts heads tokens width`: the layout in which both
        # products below are plain batched matrix products.
        parts = self.qkv(x).reshape(n_texts, n_tokens, 3, self.n_heads, width).transpose(2, 0, 3, 1, 4)
        query, key, value = parts
        scores = _float32((query * width**-0.5) @ key.swapaxes(-1, -2))
        weights = _drop(self.dropout, jax.nn.softmax(scores + bias), rngs)
        mixed = weights.astype(value.dtype) @ value
        return self.out(mixed.transpose(0, 2, 1, 3).reshape(n_texts, n_tokens, dim))


def _dense(n_in: int, n_out: int, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.Linear:
    # An accelerator multiplies float32 in TensorFloat-32 unless it is told not to.
    precision = jax.lax.Precision.HIGHEST if jnp.dtype(dtype) == jnp.float32 else None
    return nnx.Linear(n_in, n_out, dtype=dtype, precision=precision, rngs=rngs)


def _norm(config: BertConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # The variance as E[(x-m)²]: E[x²]-m² loses digits where one coordinate is large, as in BERT's outputs.
    return nnx.LayerNorm(
        config.hidden_size, epsilon=config.layer_norm_eps, use_fast_variance=False, rngs=rngs
    )


def _drop(dropout: nnx.Dropout, x: Array, rngs: nnx.Rngs | None) -> Array:
    return dropout(x, deterministic=rngs is None, rngs=rngs)


def _float32(x: Array) -> Array:
    return x.astype(jnp.float32)
