"""Campaigns -> the epoch of a training that does best on later campaigns."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from tokenizers import Tokenizer

from encoders.checkpoint import load_bert, weight_files, weights_hash
from encoders.config import BertConfig, parse_config, read_json
from encoders.errors import TuningError
from encoders.locate import Found, find_default, find_model
from encoders.recipe import Recipe, load_tokenizer, read_recipe, tokenise

from .augmentation import words_of
from .campaigns import PastCampaign, discounted, tells, visits
from .head import Counts, Head, choose_head, counts_of, gains
from .model import Encode, Model, Tunable, encoding, model_of
from .packing import Tokens, texts_of
from .parameters import Parameters, Trained, last_layers, low_rank, parameters_of
from .report import Epoch
from .settings import TuningSettings
from .training import Stage, train


class Source(NamedTuple):
    """Hold the checkpoint that is tuned.

    Args:
        found: Where it is.
        weights_sha256: Hash of its weights.
        config: Of its BERT.
        recipe: How it wants its texts encoded.
        tokenizer: Its own.
        parameters: All of them.
    """

    found: Found
    weights_sha256: str
    config: BertConfig
    recipe: Recipe
    tokenizer: Tokenizer
    parameters: Parameters


class Progress(NamedTuple):
    """Hold all that the next epoch depends on.

    Args:
        heads: Of the encoder as it was, one for each outcome.
        stage: Where training stands.
        best: What was trained after the best epoch.
        epochs: What each epoch brought, the encoder as it was first.
    """

    heads: Sequence[Head]
    stage: Stage
    best: Tunable
    epochs: Sequence[Epoch]


class Fitted(NamedTuple):
    """Hold what came of a training.

    Args:
        model: Computes vectors, in float32.
        before: The encoder as it was, with its heads.
        progress: After the last epoch.
    """

    model: Model
    before: Tunable
    progress: Progress

    @property
    def kept(self) -> Epoch:
        """The best epoch."""
        return best_of(self.progress.epochs)


def load(model: str | Path | None) -> Source:
    """Load what is tuned: a folder or a hub id; None means the default encoder.

    Raises:
        EncoderError: It cannot be loaded.
    """
    found = find_default() if model is None else find_model(model)
    config = parse_config(read_json(found.folder / "config.json"), str(found.folder / "config.json"))
    sha256 = weights_hash(weight_files(found.folder))
    recipe = read_recipe(found.folder, config, sha256)
    tokenizer, _ = load_tokenizer(found.folder, config, recipe.max_tokens)
    return Source(found, sha256, config, recipe, tokenizer, parameters_of(load_bert(found.folder, config)))


def trained_of(source: Source, settings: TuningSettings) -> Trained:
    """Return which parameters train.

    Raises:
        TuningError: The model has fewer layers, or smaller matrices, than the settings ask for.
    """
    if settings.method == "last":
        return last_layers(source.parameters, source.config.num_hidden_layers, settings.layers)
    return low_rank(source.parameters, settings.rank, jax.random.key(settings.seed))


def fit(
    source: Source,
    training: Sequence[PastCampaign],
    stopping: Sequence[PastCampaign],
    settings: TuningSettings,
    after_epoch: Callable[[Progress], None],
    so_far: Progress | None = None,
) -> Fitted:
    """Train, and tell which epoch does best.

    Args:
        source: What is tuned.
        training: Campaigns that train.
        stopping: Later ones that choose the heads' ridges and the epoch: the first of equals, and never
            the encoder as it was.
        settings: How.
        after_epoch: Told after every epoch, but those of `so_far`.
        so_far: Of a training that was stopped, to go on from.

    Raises:
        TuningError: The settings ask for what the model, its tokenizer or the campaigns do not have.
    """
    trained = trained_of(source, settings)
    parts = source.parameters, trained, source.recipe
    as_it_is = model_of(source.config, *parts)
    as_it_trains = model_of(_with_dropout(source.config, settings.dropout), *parts, jnp.dtype(settings.dtype))
    encode = encoding(as_it_is)
    tokens, later = (tokenised(source, part, settings, settings.own_effect) for part in (training, stopping))
    _check_conversions(tokens, settings)
    later_counts = _counts(later)
    heads = so_far.heads if so_far else _first_heads(encode, trained, tokens, later)
    before = Tunable(trained.initial, jnp.asarray([head.weights for head in heads], jnp.float32))
    progress = so_far or Progress(heads, Stage(0, before, ()), before, ())

    def note(stage: Stage, loss: float | None) -> None:
        nonlocal progress
        scores = scores_of(encode, stage.tunable, later)
        gain = sum(
            weight * float(gains(own, counts).mean())
            for weight, own, counts in zip(settings.outcome_weights, scores, later_counts, strict=True)
        )
        epochs = (*progress.epochs, Epoch(epoch=stage.epoch, loss=loss, stopping_gain=gain))
        is_best = stage.epoch and best_of(epochs) == epochs[-1]
        progress = Progress(heads, stage, stage.tunable if is_best else progress.best, epochs)
        after_epoch(progress)

    if so_far is None:
        note(progress.stage, None)
    start = before if so_far is None else so_far.stage
    train(as_it_trains, start, tokens, heads, words_of(source.tokenizer), settings, note)
    return Fitted(as_it_is, before, progress)


def best_of(epochs: Sequence[Epoch]) -> Epoch:
    """Return the best epoch: the first of equals, and never the encoder as it was."""
    return max(epochs[1:], key=lambda epoch: epoch.stopping_gain)


def scores_of(
    encode: Encode, tunable: Tunable, campaigns: Sequence[Tokens]
) -> Float[np.ndarray, "outcomes creatives"]:
    """Compute the creatives' scores for each outcome."""
    return np.asarray(jax.device_get(tunable.heads) @ encode(tunable.encoder, campaigns).T)


def tokenised(
    source: Source, campaigns: Sequence[PastCampaign], settings: TuningSettings, own_effect: float
) -> list[Tokens]:
    """Tokenise campaigns, with their counts for each outcome that is learnt, discounted."""
    made = []
    for campaign in campaigns:
        texts = texts_of(campaign)
        encodings = tokenise(source.tokenizer, source.recipe, [text for text, _, _ in texts])
        outcomes = (campaign, visits(campaign))[: len(settings.outcome_weights)]
        made.append(
            Tokens(
                [(e.ids, *t[1:]) for e, t in zip(encodings, texts, strict=True)],
                tuple(discounted(outcome, own_effect) for outcome in outcomes),
            )
        )
    return made


def _first_heads(
    encode: Encode, trained: Trained, training: Sequence[Tokens], stopping: Sequence[Tokens]
) -> Sequence[Head]:
    """Fit each outcome's head on the encoder as it was."""
    vectors, later = encode(trained.initial, training), encode(trained.initial, stopping)
    return [
        choose_head(vectors, own, later, its_later)
        for own, its_later in zip(_counts(training), _counts(stopping), strict=True)
    ]


def _counts(campaigns: Sequence[Tokens]) -> list[Counts]:
    """Return the counts for each outcome."""
    return [counts_of(outcome) for outcome in zip(*(each.outcomes for each in campaigns), strict=True)]


def _check_conversions(campaigns: Sequence[Tokens], settings: TuningSettings) -> None:
    if settings.conversions and not any(tells(campaign.outcomes[1]) for campaign in campaigns):
        raise TuningError(
            f"conversions {settings.conversions:g}: none of the {len(campaigns)} campaigns that train has "
            "clicks with and without a conversion, of two creatives; tune without conversions"
        )


def _with_dropout(config: BertConfig, dropout: float | None) -> BertConfig:
    if dropout is None:
        return config
    return replace(config, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
