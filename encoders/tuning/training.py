"""Gradient steps: AdamW on the trained parameters and the head, one batch of whole campaigns at a time."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from encoders.bert import Bert
from encoders.forward import unit_vectors
from encoders.recipe import Pooling

from .head import Head
from .objective import profiled_gain
from .packing import Packed, Tokens, pack
from .parameters import Parameters, Trained, with_parameters
from .settings import TuningSettings

_WARM_UP = 0.1  # of the steps


class Model(NamedTuple):
    """Hold what does not change while an encoder is tuned.

    Args:
        graph: The BERT's structure.
        state: Its state, of which only the shapes are used.
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
    """Hold what is trained: parts of the encoder, and the head."""

    encoder: Any
    head: Float[Array, "dim"]


def model_of(bert: Bert, frozen: Parameters, trained: Trained, pooling: Pooling, max_tokens: int) -> Model:
    """Take a BERT apart."""
    graph, state = nnx.split(bert)
    return Model(graph, state, frozen, trained.combine, pooling, max_tokens)


def encoding(model: Model) -> Callable[[Any, Sequence[Tokens]], Float[np.ndarray, "creatives dim"]]:
    """Make the function from trained parameters and campaigns to the creatives' vectors."""
    run = jax.jit(lambda frozen, trained, batch: _vectors(model, frozen, trained, batch, None))

    def encode(trained: Any, campaigns: Sequence[Tokens]) -> Float[np.ndarray, "creatives dim"]:
        found = []
        for batch in pack(campaigns, model.max_tokens):
            n_creatives = int(batch.creative.max()) + 1
            found.append(np.asarray(run(model.frozen, trained, batch))[:n_creatives])
        return np.concatenate(found)

    return encode


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


def train(
    model: Model,
    start: Tunable | Stage,
    campaigns: Sequence[Tokens],
    head: Head,
    settings: TuningSettings,
    after_epoch: Callable[[Stage, float], None],
) -> None:
    """Train for some epochs.

    A batch's loss is its part of the negative log-posterior, (|w|² / 2 scale² / batches - Σ_c gain_c) / the
    mean number of clicks of a batch.

    Args:
        model: What does not change.
        start: What is trained, at its start, or a stage to go on from: what follows is what would have
            followed, to the bit.
        campaigns: To train on.
        head: Gives the ridge of the head.
        settings: How.
        after_epoch: Told the stage after each epoch, from 1, and the epoch's mean loss.
    """
    rng = np.random.default_rng(settings.seed)
    orders = [rng.permutation(len(campaigns)) for _ in range(settings.epochs)]
    batches = [sum(1 for _ in pack([campaigns[i] for i in order], model.max_tokens)) for order in orders]
    n_steps, n_batches = sum(batches), max(batches)
    clicks = sum(float(each.campaign.clicks.sum()) for each in campaigns) / n_batches
    n_warm = min(max(1, round(_WARM_UP * n_steps)), n_steps - 1)
    schedule = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, n_warm, n_steps)
    optimiser = optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(schedule, weight_decay=settings.weight_decay),
    )
    ridge = 1 / (2 * head.scale**2 * n_batches)

    def loss(tunable: Tunable, frozen: Parameters, batch: Packed, key: Array) -> Array:
        vectors = _vectors(model, frozen, tunable.encoder, batch, nnx.Rngs(dropout=key))
        gain = profiled_gain(
            vectors @ tunable.head, batch.campaign, batch.impressions, batch.clicks, len(batch.campaign)
        )
        return (ridge * tunable.head @ tunable.head - gain.sum()) / clicks

    @partial(jax.jit, donate_argnums=1)
    def step(
        tunable: Tunable, state: optax.OptState, frozen: Parameters, batch: Packed, key: Array
    ) -> tuple[Tunable, optax.OptState, Array]:
        value, gradient = jax.value_and_grad(loss)(tunable, frozen, batch, key)
        updates, state = optimiser.update(gradient, state, tunable)
        return optax.apply_updates(tunable, updates), state, value

    stage = start if isinstance(start, Stage) else Stage(0, start, jax.tree.leaves(optimiser.init(start)))
    tunable, number = stage.tunable, sum(batches[: stage.epoch])
    state = jax.tree.unflatten(
        jax.tree.structure(jax.eval_shape(optimiser.init, tunable)), map(jnp.asarray, stage.optimiser)
    )
    keys = jax.random.key(settings.seed)
    for epoch, order in enumerate(orders[stage.epoch :], start=stage.epoch + 1):
        losses = []
        for batch in pack([campaigns[i] for i in order], model.max_tokens):
            tunable, state, value = step(
                tunable, state, model.frozen, batch, jax.random.fold_in(keys, number)
            )
            losses.append(value)
            number += 1
        done = Stage(epoch, tunable, jax.device_get(jax.tree.leaves(state)))  # its own arrays are reused
        after_epoch(done, float(np.mean(jax.device_get(losses))))


def _vectors(
    model: Model, frozen: Parameters, trained: Any, batch: Packed, rngs: nnx.Rngs | None
) -> Float[Array, "texts dim"]:
    """Compute the vectors of a batch's creatives: the weighted mean of their texts', of length 1."""
    bert = with_parameters(model.graph, model.state, model.combine(frozen, trained))
    texts = unit_vectors(bert, model.pooling, batch.ids, batch.n_tokens, rngs)
    n_rows = len(batch.campaign)
    sums = jax.ops.segment_sum(texts * batch.weight[:, None], batch.creative, n_rows)
    # Not `norm`: its derivative at the zeros of padding is not a number.
    return sums * jax.lax.rsqrt(jnp.maximum((sums**2).sum(axis=1, keepdims=True), 1e-24))
