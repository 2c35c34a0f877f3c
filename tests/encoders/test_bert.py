"""The BERT itself: against PyTorch's outputs, and against the equations in float64 NumPy."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from encoders.bert import Bert
from encoders.checkpoint import load_bert
from encoders.config import BertConfig, parse_config, read_json
from tests.encoders.by_the_book import by_the_book


@pytest.fixture(scope="module")
def config(tiny: Path) -> BertConfig:
    return parse_config(read_json(tiny / "config.json"))


@pytest.fixture(scope="module")
def bert(tiny: Path, config: BertConfig) -> Bert:
    return load_bert(tiny, config, has_pooler=True)


@pytest.fixture(scope="module")
def batch(expected: dict[str, np.ndarray]) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(expected["input_ids"]), jnp.asarray(expected["attention_mask"] == 1)


def test_every_level_is_pytorchs(bert: Bert, batch, expected: dict[str, np.ndarray]) -> None:
    output = bert(*batch, with_hidden=True)
    # Padding positions mean nothing, but PyTorch computes them too, by the same rule.
    np.testing.assert_allclose(output.hidden, expected["hidden_states"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(output.last, output.hidden[-1])
    np.testing.assert_allclose(output.pooled, expected["pooler_output"], rtol=0, atol=1e-5)


def test_token_types_are_pytorchs(bert: Bert, expected: dict[str, np.ndarray]) -> None:
    ids, types = (jnp.asarray(expected[f"pair_{name}"]) for name in ("input_ids", "token_type_ids"))
    is_token = jnp.asarray(expected["pair_attention_mask"] == 1)
    hidden = bert(ids, is_token, types, with_hidden=True).hidden
    np.testing.assert_allclose(hidden, expected["pair_hidden_states"], rtol=0, atol=1e-5)
    assert np.abs(bert(ids, is_token).last - expected["pair_hidden_states"][-1]).max() > 1e-3


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish"])
def test_activations_are_those_of_the_equations(tiny: Path, config: BertConfig, name: str) -> None:
    config = replace(config, hidden_act=name)
    ids = np.array([2, 40, 41, 25, 31, 32, 3])
    last = load_bert(tiny, config)(jnp.asarray(ids[None]), jnp.ones((1, len(ids)), bool)).last[0]
    weights = load_file(tiny / "model.safetensors")
    reference = by_the_book(weights, config, weights["embeddings.word_embeddings.weight"][ids])
    np.testing.assert_allclose(last, reference, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_batch_is_its_texts_one_by_one(bert: Bert, batch) -> None:
    together = bert(*batch)
    lengths = batch[1].sum(axis=1).tolist()
    # Every length is a program to compile, so one text of each of two lengths is taken.
    for n_tokens in (min(lengths), max(lengths)):
        row = lengths.index(n_tokens)
        ids, is_token = (part[row, :n_tokens] for part in batch)
        alone = bert(ids[None], is_token[None])
        np.testing.assert_allclose(together.last[row, :n_tokens], alone.last[0], rtol=0, atol=2e-6)
        np.testing.assert_allclose(together.pooled[row], alone.pooled[0], rtol=0, atol=2e-6)


def test_what_stands_at_padding_does_not_matter(bert: Bert, batch) -> None:
    ids, is_token = batch
    other = bert(jnp.where(is_token, ids, 7), is_token).last
    np.testing.assert_array_equal(np.where(is_token[..., None], other - bert(ids, is_token).last, 0), 0)


def test_more_tokens_than_positions_are_refused(bert: Bert) -> None:
    with pytest.raises(ValueError, match="33 tokens, but only 32 positions"):
        bert(jnp.zeros((1, 33), int), jnp.ones((1, 33), bool))


@pytest.mark.parametrize("rates", [(0.5, 0.0), (0.0, 0.5)])
def test_each_rate_drops_on_its_own(
    tiny: Path, config: BertConfig, batch, rates: tuple[float, float]
) -> None:
    hidden, attention = rates
    bert = load_bert(
        tiny, replace(config, hidden_dropout_prob=hidden, attention_probs_dropout_prob=attention)
    )
    calm = bert(*batch).last
    dropped = [bert(*batch, rngs=nnx.Rngs(dropout=seed)).last for seed in (0, 0, 1)]
    np.testing.assert_array_equal(calm, bert(*batch).last)
    np.testing.assert_array_equal(dropped[0], dropped[1])
    assert np.abs(dropped[0] - dropped[2]).max() > 1e-2
    assert np.abs(dropped[0] - calm).max() > 1e-2


def test_without_rates_nothing_is_dropped(tiny: Path, config: BertConfig, batch) -> None:
    bert = load_bert(tiny, replace(config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    np.testing.assert_array_equal(bert(*batch).last, bert(*batch, rngs=nnx.Rngs(0)).last)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_type_is_promoted_silently(tiny: Path, config: BertConfig, batch, dtype: str) -> None:
    bert = load_bert(tiny, config, has_pooler=True, dtype=dtype)
    with jax.numpy_dtype_promotion("strict"):
        # Types are settled by tracing alone.
        output = nnx.eval_shape(lambda: bert(*batch, rngs=nnx.Rngs(0), with_hidden=True))
    assert {leaf.dtype for leaf in output} == {jnp.dtype("float32")}


def test_bfloat16_products_stay_near(tiny: Path, config: BertConfig, batch, expected) -> None:
    last = load_bert(tiny, config, dtype="bfloat16")(*batch).last
    error = np.abs(last - expected["hidden_states"][-1])[expected["attention_mask"] == 1].max()
    # A product's relative rounding is 2^-9; coordinates are of size 1 after a norm, over three layers.
    assert 1e-5 < error < 0.1
