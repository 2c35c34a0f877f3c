"""`tune`: teach the encoder what the readers of past campaigns clicked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bandit.cli.opening import opened_store
from bandit.cli.options import AsJson, example, group
from bandit.cli.printing import console, print_json, progress_bar
from bandit.cli.tuning_report import print_report, print_search
from bandit.types import HistoryRow

if TYPE_CHECKING:
    from encoders.tuning import PastCampaign

app = group()


@app.command(
    epilog=example(
        "tune --history history.csv --out tuned",
        "tune --database ads.db --out tuned",
        "tune --history history.csv --out tuned --method lora --rank 8 --epochs 3",
        "tune --history history.csv --out tuned --trials 20",
    )
)
def tune(
    *,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The tuned encoder's; must not be there.")],
    history: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A CSV as for `import`, its campaigns in order of time: the latest are held out.",
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Instead of a file: a database, with all that it has learnt."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="MODEL", help="What is tuned: a folder or hub id; else the default.")
    ] = None,
    method: Annotated[
        Literal["last", "lora"],
        typer.Option(help="Train the last layers, or low-rank additions to all layers."),
    ] = "last",
    layers: Annotated[int, typer.Option(metavar="N", help="How many layers train with last.")] = 2,
    rank: Annotated[int, typer.Option(metavar="N", help="Rank of the additions with lora.")] = 8,
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over the campaigns, at most.")] = 2,
    learning_rate: Annotated[float, typer.Option(metavar="RATE", help="Its peak.")] = 1e-4,
    held_out: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the campaigns that the report is about.")
    ] = 0.2,
    trials: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="First search for learning rate, dropout and rank in N trials, on campaigns that nothing is "
            "reported on; goes on where it was stopped. Needs creative-bandit[search].",
        ),
    ] = None,
    dropout: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of numbers dropped; else the encoder's own.")
    ] = None,
    conversions: Annotated[
        float,
        typer.Option(
            metavar="WEIGHT",
            help="Learn conversions given clicks too, with this weight beside clicks; a file then has a "
            "column conversions.",
        ),
    ] = 0.0,
    mask: Annotated[float, typer.Option(metavar="SHARE", help="Of tokens hidden from a step.")] = 0.0,
    field_dropout: Annotated[
        float, typer.Option(metavar="SHARE", help="Of a creative's fields hidden from a step, never all.")
    ] = 0.0,
    adversarial: Annotated[
        float, typer.Option(metavar="EPS", help="How far words are moved to where the loss grows most.")
    ] = 0.0,
    accumulate: Annotated[
        int, typer.Option(metavar="N", help="Batches that make one step by their mean gradient.")
    ] = 1,
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Type of the matrix products while training.")
    ] = "float32",
    seed: Annotated[int, typer.Option(metavar="N", help="Of the campaigns' order and the dropout.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Tune the encoder to past clicks, and say on later campaigns what that brought.

    A run that was stopped goes on after its last whole epoch when the same command is given again.

    The folder is an encoder like any other: name it by CREATIVE_BANDIT_ENCODER or Engine.open(…, encoder=…)
    for a new database; `swap-encoder` turns one to it that is there.
    """
    from bandit.features.content_pca import BESIDE, write_components_beside
    from encoders.tuning import TuningSettings, search_and_tune
    from encoders.tuning import tune as tune_encoder

    if (history is None) == (database is None):
        raise typer.BadParameter(
            "give either --history or --database: where the clicks are", param_hint="--history"
        )
    settings = TuningSettings(
        method=method,
        layers=layers,
        rank=rank,
        epochs=epochs,
        learning_rate=learning_rate,
        held_out=held_out,
        dropout=dropout,
        conversions=conversions,
        mask=mask,
        field_dropout=field_dropout,
        adversarial=adversarial,
        accumulate=accumulate,
        dtype=dtype,
        seed=seed,
    )
    campaigns = past_campaigns(read_rows(history, database, with_conversions=conversions > 0))
    n_epochs = epochs + 1  # the encoder as it was is looked at too
    search = None
    if trials is None:
        with _told_how_to_go_on(out), progress_bar("epochs", n_epochs) as advance:
            report = tune_encoder(
                *(campaigns, out, settings, encoder),
                told=lambda _: advance(1),
                add_files=write_components_beside,
            )
    else:
        # A trial takes about as long as the tuning at the end.
        with _told_how_to_go_on(out), progress_bar("epochs", (trials + 1) * n_epochs) as advance:
            search, report = search_and_tune(
                *(campaigns, out, settings, trials, encoder),
                told=lambda _: advance(1),
                told_trial=lambda _: advance(n_epochs),
                add_files=write_components_beside,
            )
    has_components = (report.folder / BESIDE).is_file()
    if as_json:
        measures = [asdict(measure) | {"verdict": measure.verdict} for measure in report.measures]
        document = asdict(report) | {
            "folder": str(report.folder),
            "measures": measures,
            "has_components": has_components,
        }
        print_json(document | ({} if search is None else {"search": asdict(search)}))
        return
    if search is not None:
        print_search(search)
    print_report(report, has_components=has_components)


@contextmanager
def _told_how_to_go_on(out: Path) -> Iterator[None]:
    """Say after Ctrl-C what is kept of a tuning."""
    from encoders.tuning.search import study_of
    from encoders.tuning.unfinished import place_of

    try:
        yield
    except KeyboardInterrupt:
        kept = [str(path) for path in (place_of(out), study_of(out)) if path.exists()]
        console(is_error=True).print(
            f"stopped; the same command goes on from {' and '.join(kept)}"
            if kept
            else "stopped before anything was done that could be kept",
            soft_wrap=True,
        )
        raise


def read_rows(
    history: Path | None, database: str | None, *, with_conversions: bool = False
) -> Sequence[HistoryRow]:
    """Return the counts of a file, or else of a database, whose campaigns come in the order of their ids."""
    if history is not None:
        from bandit.warm_start.csv_files import read_history

        return read_history(history, with_conversions=with_conversions)
    with opened_store(str(database)):  # before JAX is imported, which takes seconds
        pass
    from bandit.warm_start.database import read_database

    found = read_database(str(database), with_conversions=with_conversions)
    order = {name: place for place, name in enumerate(found.campaigns)}
    return sorted(found.rows, key=lambda row: order[row.campaign])


def past_campaigns(rows: Sequence[HistoryRow]) -> list["PastCampaign"]:
    """Return history by campaign, in order of their first rows; contexts are pooled.

    Where a part of a campaign's clicks came without a count of conversions, its conversions are not known.
    """
    import numpy as np

    from encoders.tuning import PastCampaign

    campaigns: dict[str, list[HistoryRow]] = {}
    for row in rows:
        campaigns.setdefault(row.campaign, []).append(row)
    return [
        PastCampaign(
            name,
            tuple(row.creative.texts for row in own),
            np.array([row.impressions for row in own], float),
            np.array([row.clicks for row in own], float),
            np.array([row.conversions or 0 for row in own], float)
            if all(row.conversions is not None or not row.clicks for row in own)
            else None,
        )
        for name, own in campaigns.items()
    ]
