"""Which words carry a number that is read off a creative's vector: integrated gradients through BERT.

References:
    Sundararajan, Taly, Yan (2017), Axiomatic Attribution for Deep Networks, equation 1.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int
from tokenizers import Encoding

from .batches import BATCH_TOKENS, WIDTHS
from .bert import Bert
from .forward import unit_vectors_from_words
from .progress import progress_bar
from .recipe import Pooling

POINTS = (64, 128, 256)
"""How many points of the path are tried, one after the other, until the shares sum up.

With 64 the sum missed the difference by at most 1.2e-4 of it, over six headlines through the default encoder
and random directions; by 4e-3 with 32, by 0.1 with 16.
"""

TOLERANCE = 1e-3
"""By how much the shares' sum may miss the difference that they are of, as a part of it."""

ROUNDING = 1e-6
"""What float32 leaves of any difference, as a part of |d|, which is the largest that the number can be."""

_MANY_TOKENS = 20_000  # some three seconds on two CPU cores, forward and backward
_CANCELLED = 0.1  # of the shares' sizes: the difference's stand-in where they cancel out, and nothing is left


class Word(NamedTuple):
    """One word of a creative, and what it carries.

    Args:
        field: The field it stands in.
        start: Where it begins in the field's text.
        end: Where it ends there.
        share: What it adds to the number; negative where it takes from it.
    """

    field: str
    start: int
    end: int
    share: float


class Attribution(NamedTuple):
    """What the words of a creative carry.

    Args:
        texts: Each field's text as the tokenizer read it; words count its characters.
        words: In reading order, field by field.
        baseline: The number with every word masked.
        total: The number of the creative as it is: baseline + all shares, to `TOLERANCE` or `ROUNDING`.
        n_points: Points of the path that were computed.
        cut: Fields of which only the beginning was read; words after it carry nothing.
    """

    texts: Mapping[str, str]
    words: tuple[Word, ...]
    baseline: float
    total: float
    n_points: int
    cut: tuple[str, ...]


class Read(NamedTuple):
    """Hold one field of a creative as the tokenizer read it.

    Args:
        text: The text that its offsets count in.
        encoding: Its tokens.
        weight: Of the field in the creative's vector.
    """

    text: str
    encoding: Encoding
    weight: float


class _Creative(NamedTuple):
    """A creative as arrays, its fields padded to one width."""

    ids: Int[np.ndarray, "fields tokens"]
    masked: Int[np.ndarray, "fields tokens"]
    n_tokens: Int[np.ndarray, "fields"]
    weight: Float[np.ndarray, "fields"]


Numbers = Callable[[_Creative, np.ndarray, np.ndarray], tuple[Array, Array]]


def compile_numbers(bert: Bert, pooling: Pooling) -> Numbers:
    """Make the function that gives a creative's number, and its gradient, at points of the path.

    f(α) = d · v / |v|,  v = Σ_f w_f e_f(b + α (x − b))

    with e_f the unit vector of field f, x its words' vectors, and b the same with every word masked.

    Args:
        bert: The model.
        pooling: How token vectors become the vector of a text.

    Returns:
        A function of the creative, the direction d `[dim]` and the points α `[points]`, to the numbers
        `[points]` and each token's (x − b) · ∂f/∂(word vector) `[points, fields, tokens]`.
    """
    graph, state = nnx.split(bert)
    return partial(jax.jit(partial(_numbers, graph, pooling)), state)


def attribute(
    numbers: Numbers,
    fields: Mapping[str, Read],
    direction: Float[np.ndarray, "dim"],
    mask_id: int,
    max_tokens: int,
    *,
    progress: bool | None = None,
) -> Attribution:
    """Attribute a number to words: by Gauss and Legendre's rule on the straight path from the masked words.

    share_i = Σ_k g_k (x_i − b_i) · ∂f/∂x_i (α_k),  summed over the tokens of a word

    Args:
        numbers: See `compile_numbers`.
        fields: The creative, one field at least.
        direction: d.
        mask_id: The token that stands for a word that is not known.
        max_tokens: Longest text that the model takes.
        progress: Whether to show a progress bar; None means for long jobs, on a terminal.

    Returns:
        The shares of all words.
    """
    creative = _laid_out(list(fields.values()), mask_id, max_tokens)
    at_once = max(1, BATCH_TOKENS // creative.ids.size)

    def computed(alphas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, products = [], []
        long_job = _MANY_TOKENS // creative.ids.size
        with progress_bar("reading words", len(alphas), progress, long_job=long_job) as advance:
            for start in range(0, len(alphas), at_once):
                part = alphas[start : start + at_once]
                padded = np.pad(part, (0, at_once - len(part)))
                value, product = jax.device_get(numbers(creative, direction, padded))
                values.append(value[: len(part)])
                products.append(product[: len(part)])
                advance(len(part))
        return np.concatenate(values).astype(float), np.concatenate(products).astype(float)

    baseline, total = computed(np.array([0.0, 1.0]))[0].tolist()
    for n_points in POINTS:
        nodes, weights = np.polynomial.legendre.leggauss(n_points)
        tokens = np.tensordot(weights / 2, computed((nodes + 1) / 2)[1], axes=1)
        size = max(abs(total - baseline), _CANCELLED * np.abs(tokens).sum())
        may_miss = max(TOLERANCE * size, ROUNDING * np.linalg.norm(direction))
        if abs(tokens.sum() - (total - baseline)) <= may_miss:
            break
    words = tuple(
        Word(name, start, end, float(tokens[row, places].sum()))
        for row, (name, field) in enumerate(fields.items())
        for start, end, places in words_of(field.text, field.encoding)
    )
    cut = tuple(name for name, field in fields.items() if field.encoding.overflowing)
    return Attribution(
        {name: field.text for name, field in fields.items()}, words, baseline, total, n_points, cut
    )


def words_of(text: str, encoding: Encoding) -> list[tuple[int, int, list[int]]]:
    """List the words of a text: where each begins and ends, and the places of its tokens."""
    places: dict[int, list[int]] = {}
    for place, word in enumerate(encoding.word_ids):
        if word is not None:
            places.setdefault(word, []).append(place)
    words = []
    for own in places.values():
        start, end = encoding.offsets[own[0]][0], encoding.offsets[own[-1]][1]
        # To some tokenizers the space before a word is a part of it.
        words.append((end - len(text[start:end].lstrip()), end, own))
    return words


def _laid_out(fields: Sequence[Read], mask_id: int, max_tokens: int) -> _Creative:
    n_tokens = [len(field.encoding.ids) for field in fields]
    widths = (*(width for width in WIDTHS if width < max_tokens), max_tokens)
    ids = np.zeros((len(fields), next(width for width in widths if width >= max(n_tokens))), np.int32)
    masked = np.zeros_like(ids)
    for row, (field, length) in enumerate(zip(fields, n_tokens, strict=True)):
        ids[row, :length] = field.encoding.ids
        is_special = np.array(field.encoding.special_tokens_mask, bool)
        masked[row, :length] = np.where(is_special, field.encoding.ids, mask_id)
    weight = np.array([field.weight for field in fields], np.float32)
    return _Creative(ids, masked, np.array(n_tokens, np.int32), weight)


def _numbers(
    graph: nnx.GraphDef[Bert],
    pooling: Pooling,
    state: nnx.State,
    creative: _Creative,
    direction: Float[Array, "dim"],
    alphas: Float[Array, "points"],
) -> tuple[Float[Array, "points"], Float[Array, "points fields tokens"]]:
    bert = nnx.merge(graph, state)
    base = bert.embeddings.word(creative.masked)
    step = bert.embeddings.word(creative.ids) - base
    n_points, n_fields = len(alphas), len(creative.weight)

    def number(words: Float[Array, "points fields tokens dim"]) -> tuple[Array, Array]:
        flat = words.reshape(n_points * n_fields, *words.shape[2:])
        n_tokens = jnp.tile(creative.n_tokens, n_points)
        vectors = unit_vectors_from_words(bert, pooling, flat, n_tokens)
        sums = jnp.einsum("pfd,f->pd", vectors.reshape(n_points, n_fields, -1), creative.weight)
        values = sums @ direction / jnp.maximum(jnp.linalg.norm(sums, axis=1), 1e-12)
        # Points do not see each other: the gradient of the sum holds that of each.
        return values.sum(), values

    gradient, values = jax.grad(number, has_aux=True)(base + alphas[:, None, None, None] * step)
    return values, (gradient * step).sum(axis=-1)
