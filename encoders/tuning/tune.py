"""Past campaigns -> a tuned encoder's folder, and what tuning brought."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import jax
import jax.numpy as jnp
from tokenizers import Tokenizer

from encoders.checkpoint import load_bert, weight_files, weights_hash
from encoders.config import parse_config, read_json
from encoders.locate import Found, find_default, find_model
from encoders.recipe import Recipe, load_tokenizer, read_recipe, tokenise

from .campaigns import Parts, PastCampaign, discounted, divide
from .evaluation import compare
from .export import check_free, export, settings_files
from .head import choose_head, counts_of, gains
from .packing import Tokens, texts_of
from .parameters import last_layers, low_rank, parameters_of
from .report import Epoch, TuningReport, epochs_table, provenance
from .settings import TuningSettings
from .training import Stage, Tunable, encoding, model_of, train
from .unfinished import (
    collected,
    hashed,
    history_of,
    place_of,
    read_unfinished,
    restored,
    write_unfinished,
)


def tune(
    campaigns: Sequence[PastCampaign],
    out: Path,
    settings: TuningSettings | None = None,
    model: str | Path | None = None,
    told: Callable[[Epoch], None] = lambda _: None,
) -> TuningReport:
    """Tune an encoder to the clicks of past campaigns.

    The epoch that does best on the stopping part is written, the first one at least: whether that is better
    than the encoder as it was is what the report says, on campaigns that nothing was chosen by.

    After every epoch all that the next one depends on is kept beside the folder. If the process is killed,
    the same call goes on from there, and ends with the same bytes as one that was not.

    Args:
        campaigns: In order of time, the latest last.
        out: Folder of the tuned encoder; must not be there.
        settings: None means the defaults.
        model: The encoder to tune: a folder or a hub id; None means the default one.
        told: Called with every epoch, those of a stopped run included.

    Returns:
        What it brought.

    Raises:
        TuningError: The campaigns do not suffice, the folder is there or cannot be written, or another
            tuning for it was not finished.
        TextTypeError: A text is no string.
        EncoderError: The encoder cannot be loaded.
    """
    settings = settings or TuningSettings()
    check_free(out)
    parts = _divided(campaigns, settings)
    found = find_default() if model is None else find_model(model)
    config = parse_config(read_json(found.folder / "config.json"), str(found.folder / "config.json"))
    recipe = read_recipe(found.folder, config)
    tokenizer, _ = load_tokenizer(found.folder, config, recipe.max_tokens)
    bert = load_bert(found.folder, config)
    frozen = parameters_of(bert)
    trained = (
        last_layers(frozen, config.num_hidden_layers, settings.layers)
        if settings.method == "last"
        else low_rank(frozen, settings.rank, jax.random.key(settings.seed))
    )

    place, task = place_of(out), _task(campaigns, settings, found)
    unfinished = read_unfinished(place, task)
    tokens = Parts(*(_tokenised(tokenizer, recipe, part) for part in parts))
    constant = model_of(bert, frozen, trained, recipe.pooling, recipe.max_tokens)
    encode = encoding(constant)
    stopping_counts = counts_of(parts.stopping)
    epochs: list[Epoch] = []
    best: list[Tunable] = []
    if unfinished is None:
        head = choose_head(
            encode(trained.initial, tokens.training),
            counts_of(parts.training),
            encode(trained.initial, tokens.stopping),
            stopping_counts,
        )
        before = encode(trained.initial, tokens.held_out) @ head.weights
        start: Tunable | Stage = Tunable(trained.initial, jnp.asarray(head.weights, jnp.float32))
    else:
        head, before, start, best, epochs = restored(unfinished, trained)

    def kept() -> Epoch:
        # The first of equals; the encoder as it was is none of them.
        return max(epochs[1:], key=lambda epoch: epoch.stopping_gain)

    def note(stage: Stage, loss: float | None) -> None:
        scores = encode(stage.tunable.encoder, tokens.stopping) @ jax.device_get(stage.tunable.head)
        gain = float(gains(scores, stopping_counts).mean())
        epochs.append(Epoch(epoch=stage.epoch, loss=loss, stopping_gain=gain))
        if stage.epoch and kept() == epochs[-1]:
            best[:] = [stage.tunable]
        if stage.epoch:
            write_unfinished(place, task, collected(head, before, stage, best[0], epochs))
        told(epochs[-1])

    if isinstance(start, Stage):
        for epoch in epochs:
            told(epoch)
    else:
        note(Stage(0, start, ()), None)
    train(constant, start, tokens.training, head, settings, note)
    tuned = best[0]
    after = encode(tuned.encoder, tokens.held_out) @ jax.device_get(tuned.head)
    measures = compare(parts.held_out, before, after)
    report = TuningReport(
        campaigns={name: len(part) for name, part in parts._asdict().items()},
        epochs=epochs,
        kept=kept().epoch,
        measures=measures,
        folder=out,
        went_on_after=start.epoch if isinstance(start, Stage) else None,
    )
    parameters = constant.combine(frozen, tuned.encoder)
    tuned_from = {"place": found.place, "weights_sha256": weights_hash(weight_files(found.folder))}
    notes = provenance(tuned_from, (parts.training[0].name, parts.training[-1].name), settings, report)
    export(found.folder, out, config, parameters, notes, epochs_table(report))
    place.unlink(missing_ok=True)
    return report


def _divided(campaigns: Sequence[PastCampaign], settings: TuningSettings) -> Parts[PastCampaign]:
    parts = divide(campaigns, settings.held_out, settings.stopping)
    # What is reported on is counted as it happened.
    training, stopping = (
        [discounted(campaign, settings.own_effect) for campaign in part]
        for part in (parts.training, parts.stopping)
    )
    return parts._replace(training=training, stopping=stopping)


def _tokenised(tokenizer: Tokenizer, recipe: Recipe, campaigns: Sequence[PastCampaign]) -> list[Tokens]:
    made = []
    for campaign in campaigns:
        texts = texts_of(campaign)
        encodings = tokenise(tokenizer, recipe, [text for text, _, _ in texts])
        made.append(Tokens([(e.ids, *t[1:]) for e, t in zip(encodings, texts, strict=True)], campaign))
    return made


def _task(campaigns: Sequence[PastCampaign], settings: TuningSettings, found: Found) -> dict[str, str]:
    """Return what must be the same for a tuning to go on."""
    return {
        "settings": hashed(asdict(settings)),
        "campaigns": hashed(history_of(campaigns)),
        "an encoder": hashed(
            [weights_hash(weight_files(found.folder)), *(p.read_text() for p in settings_files(found.folder))]
        ),
    }
