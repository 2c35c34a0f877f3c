"""Gradient steps: AdamW on the trained parameters and the heads, one batch of whole campaigns at a time."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array

from encoders.errors import TuningError

from .augmentation import Words, drop_fields, mask_tokens, worst_shift
from .head import Head
from .model import Model, Tunable, vectors
from .objective import profiled_gain
from .packing import Packed, Tokens, pack
from .parameters import Parameters
from .settings import TuningSettings

_WARM_UP = 0.1  # of the steps

Step = Callable[[Tunable, optax.OptState, Parameters, Packed, Array], tuple[Tunable, optax.OptState, Array]]


class Stage(NamedTuple):
    """Hold where training stands between two epochs.

    Args:
        epoch: The last one that is done.
        tunable: What is trained.
        optimiser: The arrays of the optimiser's state.
    """

    epoch: int
    tunable: Tunable
    optimiser: Sequence[Array | np.ndarray]


class Scale(NamedTuple):
    """Hold what a batch's loss is measured by.

    Args:
        n_batches: Batches of an epoch: each bears its part of the ridge.
        clicks: Of a batch, on average.
        n_batches_ever: Of all epochs.
    """

    n_batches: int
    clicks: float
    n_batches_ever: int


def train(
    model: Model,
    start: Tunable | Stage,
    campaigns: Sequence[Tokens],
    heads: Sequence[Head],
    words: Words,
    settings: TuningSettings,
    after_epoch: Callable[[Stage, float], None],
) -> None:
    """Train for some epochs.

    Args:
        model: What does not change.
        start: What is trained, at its start, or a stage to go on from: what follows is what would have
            followed, to the bit.
        campaigns: To train on.
        heads: Give the ridge of each outcome's head.
        words: What masking has to know.
        settings: How.
        after_epoch: Told the stage after each epoch, from 1, and the epoch's mean loss.

    Raises:
        TuningError: There are fewer batches than make one step.
    """
    rng = np.random.default_rng(settings.seed)
    orders = [rng.permutation(len(campaigns)) for _ in range(settings.epochs)]
    batches = [sum(1 for _ in pack([campaigns[i] for i in order], model.max_tokens)) for order in orders]
    clicks = sum(float(each.outcomes[0].clicks.sum()) for each in campaigns)
    scale = Scale(max(batches), clicks / max(batches), sum(batches))
    if settings.accumulate > scale.n_batches:
        raise TuningError(
            f"accumulate {settings.accumulate}: expected at most {scale.n_batches}, the batches of an epoch"
        )
    optimiser, step = make_step(model, heads, scale, settings)

    stage = start if isinstance(start, Stage) else Stage(0, start, jax.tree.leaves(optimiser.init(start)))
    tunable, number = stage.tunable, sum(batches[: stage.epoch])
    state = jax.tree.unflatten(
        jax.tree.structure(jax.eval_shape(optimiser.init, tunable)), map(jnp.asarray, stage.optimiser)
    )
    keys = jax.random.key(settings.seed)
    for epoch, order in enumerate(orders[stage.epoch :], start=stage.epoch + 1):
        losses = []
        for batch in pack([campaigns[i] for i in order], model.max_tokens):
            seen = _seen(batch, words, settings, number)
            tunable, state, value = step(tunable, state, model.frozen, seen, jax.random.fold_in(keys, number))
            losses.append(value)
            number += 1
        done = Stage(epoch, tunable, jax.device_get(jax.tree.leaves(state)))  # its own arrays are reused
        after_epoch(done, float(np.mean(jax.device_get(losses))))


def make_step(
    model: Model, heads: Sequence[Head], scale: Scale, settings: TuningSettings
) -> tuple[optax.GradientTransformation, Step]:
    """Make the optimiser, and the compiled function of one batch.

    The loss is a batch's part of the negative log-posterior, per click; λ is 1 for clicks:

        Σ_k λ_k (|w_k|² / (2 scale_k² batches) - Σ_c gain_kc) / clicks

    Args:
        model: What does not change.
        heads: Give the ridge of each outcome's head.
        scale: What the loss is measured by.
        settings: How.
    """
    ridges = [1 / (2 * head.scale**2 * scale.n_batches) for head in heads]
    optimiser = _optimiser(scale.n_batches_ever // settings.accumulate, settings)

    def loss(tunable: Tunable, shift: Array | float, frozen: Parameters, batch: Packed, key: Array) -> Array:
        found = vectors(model, frozen, tunable.encoder, batch, nnx.Rngs(dropout=key), shift)
        total = jnp.zeros(())
        for outcome, (weight, ridge) in enumerate(zip(settings.outcome_weights, ridges, strict=True)):
            head = tunable.heads[outcome]
            trials, successes = batch.trials[outcome], batch.successes[outcome]
            gain = profiled_gain(found @ head, batch.campaign, trials, successes, len(batch.campaign))
            total += weight * (ridge * head @ head - gain.sum())
        return total / scale.clicks

    def moved(tunable: Tunable, frozen: Parameters, batch: Packed, key: Array) -> tuple[Array, Tunable]:
        """Return the loss, and the mean of its gradient and of that where it grows most."""
        here = jnp.zeros((*batch.ids.shape, frozen["embeddings.word.embedding"].shape[1]))
        value, (gradient, by_words) = jax.value_and_grad(loss, argnums=(0, 1))(
            tunable, here, frozen, batch, key
        )
        there = jax.grad(loss)(tunable, worst_shift(by_words, settings.adversarial), frozen, batch, key)
        return value, jax.tree.map(lambda one, other: (one + other) / 2, gradient, there)

    @partial(jax.jit, donate_argnums=1)
    def step(
        tunable: Tunable, state: optax.OptState, frozen: Parameters, batch: Packed, key: Array
    ) -> tuple[Tunable, optax.OptState, Array]:
        if settings.adversarial:
            value, gradient = moved(tunable, frozen, batch, key)
        else:
            value, gradient = jax.value_and_grad(loss)(tunable, 0.0, frozen, batch, key)
        updates, state = optimiser.update(gradient, state, tunable)
        return optax.apply_updates(tunable, updates), state, value

    return optimiser, step


def _optimiser(n_steps: int, settings: TuningSettings) -> optax.GradientTransformation:
    n_warm = min(max(1, round(_WARM_UP * n_steps)), n_steps - 1)
    schedule = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, n_warm, n_steps)
    optimiser = optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(schedule, weight_decay=settings.weight_decay),
    )
    if settings.accumulate == 1:
        return optimiser
    return optax.MultiSteps(optimiser, settings.accumulate).gradient_transformation()


def _seen(batch: Packed, words: Words, settings: TuningSettings, number: int) -> Packed:
    """Return what is left of a batch; the same for the same number of the step."""
    rng = np.random.default_rng((settings.seed, number))
    if settings.mask:
        batch = mask_tokens(batch, settings.mask, words, rng)
    if settings.field_dropout:
        batch = drop_fields(batch, settings.field_dropout, rng)
    return batch
