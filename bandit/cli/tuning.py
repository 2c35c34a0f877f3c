"""`tune`: teach the encoder what the readers of past campaigns clicked."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bandit.cli.opening import opened_store
from bandit.cli.options import AsJson, example, group
from bandit.cli.printing import print_json, print_line, print_table, progress_bar
from bandit.records import HistoryRow

if TYPE_CHECKING:
    from encoders.tuning import PastCampaign

app = group()


@app.command(
    epilog=example(
        "tune --history history.csv --out tuned",
        "tune --database ads.db --out tuned",
        "tune --history history.csv --out tuned --method lora --rank 8 --epochs 3",
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
    seed: Annotated[int, typer.Option(metavar="N", help="Of the campaigns' order and the dropout.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Tune the encoder to past clicks, and say on later campaigns what that brought.

    A run that was stopped goes on after its last whole epoch when the same command is given again.

    The folder is an encoder like any other: name it by CREATIVE_BANDIT_ENCODER or Engine.open(…, encoder=…)
    for a new database; `swap-encoder` turns one to it that is there.
    """
    from encoders.tuning import TuningSettings
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
        seed=seed,
    )
    campaigns = past_campaigns(read_rows(history, database))
    with progress_bar("epochs", epochs + 1) as advance:  # the encoder as it was is looked at too
        report = tune_encoder(campaigns, out, settings, encoder, told=lambda _: advance(1))
    if as_json:
        measures = [asdict(measure) | {"verdict": measure.verdict} for measure in report.measures]
        print_json(asdict(report) | {"folder": str(report.folder), "measures": measures})
        return
    if report.went_on_after is not None:
        print_line(f"went on after epoch {report.went_on_after} of a run that was stopped")
    counts = report.campaigns
    print_line(
        f"{counts['training']:,} campaigns trained, {counts['stopping']:,} stopped the training, "
        f"{counts['held_out']:,} later ones are reported on"
    )
    print_table(
        ("epoch", "training loss", "gain on the stopping part", ""),
        [
            (
                "before" if epoch.epoch == 0 else str(epoch.epoch),
                "" if epoch.loss is None else f"{epoch.loss:.4f}",
                f"{epoch.stopping_gain:.3f}",
                "kept" if epoch.epoch == report.kept else "",
            )
            for epoch in report.epochs
        ],
    )
    print_line("")
    print_table(
        ("on the held-out campaigns", "cases", "before", "after", "gain", "verdict"),
        [
            (
                measure.name,
                f"{measure.cases:,}",
                f"{measure.before:.3f} ± {measure.before_error:.3f}",
                f"{measure.after:.3f} ± {measure.after_error:.3f}",
                f"{measure.gain:+.3f} ± {measure.gain_error:.3f}",
                measure.verdict,
            )
            for measure in report.measures
        ],
    )
    print_line("")
    print_line(f"the tuned encoder is in {report.folder}")


def read_rows(history: Path | None, database: str | None) -> Sequence[HistoryRow]:
    """Return the counts of a file, or else of a database, whose campaigns come in the order of their ids."""
    if history is not None:
        from bandit.history_file import read_history

        return read_history(history)
    with opened_store(str(database)):  # before JAX is imported, which takes seconds
        pass
    from bandit.history_database import read_database

    found = read_database(str(database))
    order = {name: place for place, name in enumerate(found.campaigns)}
    return sorted(found.rows, key=lambda row: order[row.campaign])


def past_campaigns(rows: Sequence[HistoryRow]) -> list["PastCampaign"]:
    """Return history by campaign, in order of their first rows; contexts are pooled."""
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
        )
        for name, own in campaigns.items()
    ]
