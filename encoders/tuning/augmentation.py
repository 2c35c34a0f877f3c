"""What a step sees less of, or otherwise, than what is there: masked tokens, dropped fields, moved words.

References:
    Miyato, Dai, Goodfellow (2017), Adversarial Training Methods for Semi-Supervised Text Classification,
    equation 5.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from tokenizers import Tokenizer

from encoders.errors import TuningError
from encoders.recipe import mask_token

from .packing import Packed


class Words(NamedTuple):
    """Hold what masking has to know of a tokenizer.

    Args:
        mask: Id of the token that stands for a word that is not known; None where there is none.
        special: Ids of those that begin and end every text.
    """

    mask: int | None
    special: tuple[int, ...]


def words_of(tokenizer: Tokenizer) -> Words:
    """Read off a tokenizer what masking has to know."""
    return Words(mask_token(tokenizer), tuple(tokenizer.encode("").ids))


def mask_tokens(batch: Packed, share: float, words: Words, rng: np.random.Generator) -> Packed:
    """Put a mask in the place of some tokens, but of those that begin and end a text.

    Args:
        batch: Tokens.
        share: Of them, on average.
        words: What to know of the tokenizer.
        rng: Chooses.

    Raises:
        TuningError: The tokenizer has no mask.
    """
    if words.mask is None:
        raise TuningError(
            f"mask {share:g}: the tokenizer has no mask token ([MASK] or <mask>); tune without masking"
        )
    is_token = np.arange(batch.ids.shape[1]) < batch.n_tokens[:, None]
    chosen = is_token & ~np.isin(batch.ids, words.special) & (rng.random(batch.ids.shape) < share)
    return batch._replace(ids=np.where(chosen, np.int32(words.mask), batch.ids))


def drop_fields(batch: Packed, share: float, rng: np.random.Generator) -> Packed:
    """Take some texts' weight in their creatives' vectors; a creative that would lose all keeps all.

    Args:
        batch: Tokens.
        share: Of the texts, on average.
        rng: Chooses.
    """
    is_kept = rng.random(len(batch.weight)) >= share
    left = np.bincount(batch.creative, batch.weight * is_kept, len(batch.weight))
    return batch._replace(weight=np.where(is_kept | (left == 0)[batch.creative], batch.weight, np.float32(0)))


def worst_shift(
    gradient: Float[Array, "texts tokens dim"], length: float
) -> Float[Array, "texts tokens dim"]:
    """Return the step of a given length, for each text, along which the loss grows most.

    r = ε g / |g|, with g the gradient by all of the text's word vectors; 0 where g is 0, as at padding.

    Args:
        gradient: g.
        length: ε.
    """
    size = jnp.sqrt((gradient**2).sum(axis=(1, 2), keepdims=True))
    return jax.lax.stop_gradient(jnp.where(size > 0, length * gradient / jnp.where(size > 0, size, 1.0), 0.0))
