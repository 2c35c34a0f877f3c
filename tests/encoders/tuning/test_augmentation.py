"""What a step sees less of, or otherwise, than what is there."""

import jax.numpy as jnp
import numpy as np
import pytest

from encoders.errors import TuningError
from encoders.tuning.augmentation import Words, drop_fields, mask_tokens, worst_shift
from encoders.tuning.packing import Packed

WORDS = Words(mask=9, special=(2, 3))


def batch_of(texts: list[list[int]], creative: list[int]) -> Packed:
    width = max(map(len, texts))
    ids = np.array([text + [0] * (width - len(text)) for text in texts], np.int32)
    counts = np.zeros((1, len(texts)), np.float32)
    return Packed(
        ids=ids,
        n_tokens=np.array([len(text) for text in texts], np.int32),
        creative=np.array(creative, np.int32),
        weight=np.array([1.0, 0.5] * (len(texts) // 2), np.float32),
        campaign=np.zeros(len(texts), np.int32),
        trials=counts,
        successes=counts,
    )


def test_masking_takes_its_share_of_words_and_nothing_else() -> None:
    batch = batch_of([[2, *range(10, 60), 3], [2, *range(10, 30), 3]] * 100, list(range(200)))
    masked = mask_tokens(batch, 0.2, WORDS, np.random.default_rng(0)).ids
    is_word = batch.ids >= 10
    np.testing.assert_array_equal(masked[~is_word], batch.ids[~is_word])  # [CLS], [SEP] and padding
    is_masked = masked == 9
    np.testing.assert_array_equal(masked[is_word & ~is_masked], batch.ids[is_word & ~is_masked])
    assert is_masked[is_word].mean() == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / is_word.sum()))


def test_masking_needs_a_mask() -> None:
    batch = batch_of([[2, 10, 3], [2, 11, 3]], [0, 1])
    with pytest.raises(TuningError, match=r"mask 0\.1: the tokenizer has no mask token"):
        mask_tokens(batch, 0.1, WORDS._replace(mask=None), np.random.default_rng(0))


def test_field_dropout_leaves_every_creative_a_field() -> None:
    n = 1000
    batch = batch_of([[2, 10, 3]] * 2 * n, list(np.repeat(range(n), 2)))
    kept = drop_fields(batch, 0.4, np.random.default_rng(0)).weight.reshape(n, 2) > 0
    assert kept.any(axis=1).all()
    # Both are dropped with 0.16, and come back then.
    assert kept[:, 0].mean() == pytest.approx(0.6 + 0.16, abs=4 * np.sqrt(0.25 / n))
    alone = drop_fields(batch._replace(creative=np.arange(2 * n)), 0.4, np.random.default_rng(0))
    np.testing.assert_array_equal(alone.weight, batch.weight)


def test_the_worst_shift_has_its_length_and_the_gradients_direction() -> None:
    gradient = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 5))).at[1].set(0.0)
    shift = np.asarray(worst_shift(gradient, 0.3))
    np.testing.assert_allclose(np.linalg.norm(shift.reshape(3, -1), axis=1), [0.3, 0.0, 0.3], rtol=1e-6)
    for text in (0, 2):
        ratio = shift[text] / np.asarray(gradient[text])
        np.testing.assert_allclose(ratio, ratio.max(), rtol=1e-5)
        assert ratio.max() > 0
