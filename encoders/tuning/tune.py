"""Past campaigns -> a tuned encoder's folder, and what tuning brought."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from .campaigns import PastCampaign, divide, visits
from .evaluation import Measure, compare
from .export import check_free, export, settings_files
from .fitting import Fitted, Progress, Source, fit, load, scores_of, tokenised, trained_of
from .model import encoding
from .packing import texts_of
from .report import Epoch, TuningReport, epochs_table, provenance
from .settings import TuningSettings
from .unfinished import (
    collected,
    hashed,
    history_of,
    place_of,
    read_unfinished,
    restored,
    write_unfinished,
)

AddFiles = Callable[[Path, Sequence[str]], None]


def tune(
    campaigns: Sequence[PastCampaign],
    out: Path,
    settings: TuningSettings | None = None,
    model: str | Path | None = None,
    told: Callable[[Epoch], None] = lambda _: None,
    add_files: AddFiles = lambda *_: None,
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
        add_files: Called with the finished folder, before it gets its name, and with the texts that trained
            or stopped the training; what it writes there belongs to the encoder.

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
    parts = divide(campaigns, settings.held_out, settings.stopping)
    source = load(model)
    place, task = place_of(out), task_of(campaigns, settings, source)
    unfinished = read_unfinished(place, task)
    so_far = None if unfinished is None else restored(unfinished, trained_of(source, settings))

    def note(progress: Progress) -> None:
        if progress.stage.epoch:
            write_unfinished(place, task, collected(progress))
        told(progress.epochs[-1])

    for epoch in so_far.epochs if so_far else ():
        told(epoch)
    fitted = fit(source, parts.training, parts.stopping, settings, note, so_far)
    report = TuningReport(
        campaigns={name: len(part) for name, part in parts._asdict().items()},
        epochs=list(fitted.progress.epochs),
        kept=fitted.kept.epoch,
        measures=_measures(source, fitted, parts.held_out, settings),
        folder=out,
        went_on_after=so_far.stage.epoch if so_far else None,
    )
    notes = {
        "pooling": source.recipe.pooling,
        **provenance(
            {"place": source.found.source, "weights_sha256": source.weights_sha256},
            (parts.training[0].name, parts.training[-1].name),
            settings,
            report,
        ),
    }
    parameters = fitted.model.combine(source.parameters, fitted.progress.best.encoder)
    texts = [text for each in (*parts.training, *parts.stopping) for text, _, _ in texts_of(each)]
    export(
        *(source.found.folder, out, source.config, parameters, notes, epochs_table(report)),
        add_files=lambda folder: add_files(folder, texts),
    )
    place.unlink(missing_ok=True)
    return report


def _measures(
    source: Source, fitted: Fitted, held_out: Sequence[PastCampaign], settings: TuningSettings
) -> list[Measure]:
    tokens = tokenised(source, held_out, settings, own_effect=0.0)  # counted as it happened
    encode = encoding(fitted.model)
    before, after = (scores_of(encode, tunable, tokens) for tunable in (fitted.before, fitted.progress.best))
    measures = compare(held_out, before[0], after[0])
    if settings.conversions:
        visited = [visits(campaign) for campaign in held_out]
        measures += compare(visited, before[1], after[1], prefix="conversions: ")
    return measures


def task_of(campaigns: Sequence[PastCampaign], settings: TuningSettings, source: Source) -> dict[str, str]:
    """Return what must be the same for a tuning to go on."""
    files = settings_files(source.found.folder)
    return {
        "settings": hashed(asdict(settings)),
        "campaigns": hashed(history_of(campaigns)),
        "an encoder": hashed([source.weights_sha256, *(path.read_text() for path in files)]),
    }
