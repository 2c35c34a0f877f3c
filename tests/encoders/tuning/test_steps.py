"""One step of the tiny BERT against gradients that are taken apart from it."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from encoders.config import parse_config, read_json
from encoders.errors import TuningError
from encoders.tuning import TuningSettings, tune
from encoders.tuning.fitting import load, tokenised, trained_of
from encoders.tuning.head import Head
from encoders.tuning.model import Model, Tunable, model_of, vectors
from encoders.tuning.objective import profiled_gain
from encoders.tuning.packing import Packed, pack
from encoders.tuning.training import Scale, make_step
from tests.encoders.tuning.worlds import planted, with_conversions
from tests.paths import TINY

SETTINGS = TuningSettings(layers=1, clip=1e6, dropout=0.0, own_effect=0.0, conversions=3.0)
SOURCE = load(TINY)
HEADS = [Head(np.random.default_rng(seed).normal(size=24) * 0.3, 0.4 / (1 + seed)) for seed in range(2)]
KEY = jax.random.key(0)
CAMPAIGNS = with_conversions(planted(2, seed=0), seed=1)
CLICKS = float(sum(campaign.clicks.sum() for campaign in CAMPAIGNS))


def model_with(dtype: Any = jnp.float32) -> Model:
    config = parse_config(read_json(TINY / "config.json"), "tiny")
    calm = replace(config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return model_of(calm, SOURCE.parameters, trained_of(SOURCE, SETTINGS), SOURCE.recipe, dtype)


def batches_of(groups: list[list[int]]) -> list[Packed]:
    tokens = tokenised(SOURCE, CAMPAIGNS, SETTINGS, own_effect=0.0)
    return [next(pack([tokens[i] for i in group], 32)) for group in groups]


def start() -> Tunable:
    return Tunable(
        trained_of(SOURCE, SETTINGS).initial, jnp.asarray([head.weights for head in HEADS], jnp.float32)
    )


def stepped(
    batches: list[Packed], settings: TuningSettings, dtype: Any = jnp.float32
) -> tuple[Tunable, Any, list[float]]:
    """Return what is trained, the first moments of AdamW, and the losses, after one step."""
    n = len(batches)
    optimiser, step = make_step(model_with(dtype), HEADS, Scale(n, CLICKS / n, n), settings)
    tunable, state, losses = start(), optimiser.init(start()), []
    for batch in batches:
        tunable, state, loss = step(tunable, state, SOURCE.parameters, batch, KEY)
        losses.append(float(loss))
    return tunable, optax.tree.get(state, "mu"), losses


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def assert_close(ours: Any, theirs: Any, tolerance: float) -> None:
    """Compare as vectors: single gradients that are 0 but for rounding have no relative error."""
    assert np.linalg.norm(flat(ours) - flat(theirs)) < tolerance * np.linalg.norm(flat(theirs))


@pytest.mark.slow
def test_two_half_batches_make_the_step_of_a_whole_one() -> None:
    _, moments, (loss,) = stepped(batches_of([[0, 1]]), SETTINGS)
    trained, their_moments, losses = stepped(batches_of([[0], [1]]), replace(SETTINGS, accumulate=2))
    assert_close(their_moments, moments, 1e-4)
    assert np.mean(losses) == pytest.approx(loss, rel=1e-4)
    assert np.abs(np.asarray(trained.heads - start().heads)).max() == pytest.approx(1e-4, rel=0.1)  # one step


@pytest.mark.slow
def test_adversarial_steps_take_the_mean_gradient_of_here_and_there() -> None:
    """Of both outcomes, conversions with a weight of 3."""
    (batch,), length = batches_of([[0, 1]]), 0.05
    model = model_with()

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def loss(tunable: Tunable, shift: jax.Array) -> jax.Array:
        found = vectors(model, SOURCE.parameters, tunable.encoder, batch, None, shift)
        (own, other), (a, b) = tunable.heads, (head.scale for head in HEADS)
        clicks, bought = (
            profiled_gain(found @ head, batch.campaign, batch.trials[i], batch.successes[i], 64).sum()
            for i, head in enumerate(tunable.heads)
        )
        total = own @ own / (2 * a**2) - clicks + 3 * (other @ other / (2 * b**2) - bought)
        return total / CLICKS

    here, (gradient, by_words) = loss(start(), jnp.zeros((*batch.ids.shape, 24)))
    sizes = np.linalg.norm(np.asarray(by_words).reshape(len(by_words), -1), axis=1)
    there, (their_gradient, _) = loss(start(), by_words * (length / np.maximum(sizes, 1e-30))[:, None, None])
    assert float(there - here) == pytest.approx(length * sizes.sum(), rel=0.2)  # to first order
    _, moments, (value,) = stepped([batch], replace(SETTINGS, adversarial=length))
    assert_close(moments, jax.tree.map(lambda a, b: 0.1 * (a + b) / 2, gradient, their_gradient), 1e-3)
    assert np.linalg.norm(flat(gradient) - flat(their_gradient)) > 0.005 * np.linalg.norm(flat(gradient))
    assert value == pytest.approx(float(here), rel=1e-4)


@pytest.mark.slow
def test_bfloat16_computes_about_the_same_and_keeps_float32() -> None:
    batches = batches_of([[0, 1]])
    _, moments, (exact,) = stepped(batches, SETTINGS)
    trained, rounded, (loss,) = stepped(batches, SETTINGS, jnp.bfloat16)
    # Eight bits of mantissa round each number by 0.4 % at most; three layers of them by less than 5 %.
    assert 0 < abs(loss - exact) < 0.05 * abs(exact)
    assert_close(rounded, moments, 0.05)
    assert {leaf.dtype for leaf in jax.tree.leaves((trained, rounded))} == {jnp.dtype("float32")}


@pytest.mark.slow
def test_more_batches_a_step_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="accumulate 9: expected at most 1, the batches of an epoch"):
        tune(planted(20, seed=0), tmp_path / "out", TuningSettings(accumulate=9, layers=1), TINY)
