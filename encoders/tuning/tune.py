"""Past campaigns -> a tuned encoder's folder, and what tuning brought."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from encoders.checkpoint import load_bert, weight_files, weights_hash
from encoders.config import parse_config, read_json
from encoders.locate import Found, find_default, find_model
from encoders.recipe import load_tokenizer, read_recipe, tokenise

from .campaigns import Parts, PastCampaign, discounted, divide
from .evaluation import Measure, compare
from .export import check_free, export
from .head import choose_head, counts_of, gains
from .packing import Tokens, texts_of
from .parameters import last_layers, low_rank, parameters_of
from .settings import TuningSettings
from .training import Tunable, encoding, model_of, train


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one pass over the training campaigns brought.

    Attributes:
        epoch: From 1; 0 is the encoder as it was.
        loss: Mean training loss, per click; None for epoch 0.
        stopping_gain: Log-likelihood gained over equal scores on the stopping part, in nats per campaign.
    """

    epoch: int
    loss: float | None
    stopping_gain: float


@dataclass(frozen=True, kw_only=True)
class TuningReport:
    """What tuning did.

    Attributes:
        campaigns: How many campaigns trained, stopped the training, and are reported on.
        epochs: What each epoch brought.
        kept: The epoch whose encoder was written.
        measures: Before and after, on the held-out campaigns.
        folder: The tuned encoder's.
    """

    campaigns: dict[str, int]
    epochs: list[Epoch]
    kept: int
    measures: list[Measure]
    folder: Path


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

    Args:
        campaigns: In order of time, the latest last.
        out: Folder of the tuned encoder; must not be there.
        settings: None means the defaults.
        model: The encoder to tune: a folder or a hub id; None means the default one.
        told: Called with every epoch.

    Returns:
        What it brought.

    Raises:
        TuningError: The campaigns do not suffice, or the folder is there or cannot be written.
        TextTypeError: A text is no string.
        EncoderError: The encoder cannot be loaded.
    """
    settings = settings or TuningSettings()
    check_free(out)
    parts = divide(campaigns, settings.held_out, settings.stopping)
    # What is reported on is counted as it happened.
    training, stopping = (
        [discounted(campaign, settings.own_effect) for campaign in part]
        for part in (parts.training, parts.stopping)
    )
    parts = parts._replace(training=training, stopping=stopping)
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

    def tokenised(some: Sequence[PastCampaign]) -> list[Tokens]:
        made = []
        for campaign in some:
            texts = texts_of(campaign)
            encodings = tokenise(tokenizer, recipe, [text for text, _, _ in texts])
            made.append(Tokens([(e.ids, *t[1:]) for e, t in zip(encodings, texts, strict=True)], campaign))
        return made

    tokens = Parts(*map(tokenised, parts))
    constant = model_of(bert, frozen, trained, recipe.pooling, recipe.max_tokens)
    encode = encoding(constant)
    stopping_counts = counts_of(parts.stopping)
    stopping_vectors = encode(trained.initial, tokens.stopping)
    head = choose_head(
        encode(trained.initial, tokens.training), counts_of(parts.training), stopping_vectors, stopping_counts
    )
    start = Tunable(trained.initial, jnp.asarray(head.weights, jnp.float32))
    before = encode(start.encoder, tokens.held_out) @ head.weights
    epochs: list[Epoch] = []
    best: list[tuple[float, Epoch, Tunable]] = []

    def note(epoch: int, loss: float | None, tunable: Tunable) -> None:
        scores = encode(tunable.encoder, tokens.stopping) @ jax.device_get(tunable.head)
        gain = float(gains(scores, stopping_counts).mean())
        epochs.append(Epoch(epoch=epoch, loss=loss, stopping_gain=gain))
        told(epochs[-1])
        if epoch and (not best or gain > best[0][0]):
            best[:] = [(gain, epochs[-1], tunable)]

    note(0, None, start)
    train(constant, start, tokens.training, head, settings, note)
    _, kept, tuned = best[0]
    after = encode(tuned.encoder, tokens.held_out) @ jax.device_get(tuned.head)
    measures = compare(parts.held_out, before, after)
    report = TuningReport(
        campaigns={name: len(part) for name, part in parts._asdict().items()},
        epochs=epochs,
        kept=kept.epoch,
        measures=measures,
        folder=out,
    )
    parameters = constant.combine(frozen, tuned.encoder)
    export(found.folder, out, config, parameters, _provenance(found, parts, settings, report))
    return report


def _provenance(
    found: Found, parts: Parts[PastCampaign], settings: TuningSettings, report: TuningReport
) -> dict[str, object]:
    return {
        "tuned_from": {"place": found.place, "weights_sha256": weights_hash(weight_files(found.folder))},
        "settings": asdict(settings),
        "campaigns": report.campaigns,
        "trained_on": [parts.training[0].name, parts.training[-1].name],
        "epochs": [asdict(epoch) for epoch in report.epochs],
        "kept_epoch": report.kept,
        "held_out": [asdict(measure) | {"verdict": measure.verdict} for measure in report.measures],
    }
