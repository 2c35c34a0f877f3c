"""`storage export`, `storage import`, `storage backup`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bandit.cli.opening import opened_store
from bandit.cli.options import AsJson, DatabaseArgument, example, group
from bandit.cli.printing import counted, print_json, print_line, progress_bar

app = group()

ExportedFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="The file; one that ends in .gz is compressed.")
]


@app.command(
    epilog=example(
        "storage export ads.db decisions.csv.gz",
        "storage export ads.db log.csv --format open-bandit --campaign spring-sale",
        "storage export ads.db log.dsjson --format dsjson",
    )
)
def export(
    url: DatabaseArgument,
    file: ExportedFile,
    *,
    format: Annotated[
        Literal["csv", "open-bandit", "dsjson"],
        typer.Option(help="csv can be imported; the others are for Open Bandit Pipeline and Vowpal Wabbit."),
    ] = "csv",
    campaign: Annotated[str | None, typer.Option(metavar="NAME", help="This campaign only.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the decision log to a file: what was decided, with which probabilities, and what came of it.

    The log is read as of one moment and in pieces, however long it is. Decisions that were pruned, imported
    counts and the posterior are not part of it. A csv has a setup beside it (FILE.setup.json), with which it
    can be imported.
    """
    from bandit.decision_log.csv_format import write_csv
    from bandit.decision_log.dsjson import write_dsjson
    from bandit.decision_log.open_bandit import write_open_bandit

    writers = {"csv": write_csv, "open-bandit": write_open_bandit, "dsjson": write_dsjson}
    with opened_store(url) as store:
        if campaign is not None:
            store.campaigns.get(campaign)
        setup = store.exports.setup(store.models.get().model_id, campaign=campaign)
        with progress_bar("decisions", store.exports.count(setup)) as advance:
            n = store.exports.decisions(
                setup, lambda decisions: writers[format](decisions, setup, file, advance)
            )
    if as_json:
        print_json({"file": str(file), "format": format, "decisions": n})
    else:
        print_line(f"wrote {counted(n, 'decision')} to {file}")


@app.command("import", epilog=example("storage import next.db decisions.csv.gz"))
def import_log(
    url: DatabaseArgument,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="From storage export, with its setup beside it.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Add the decisions of an exported csv, with their outcomes, campaigns and creatives.

    They are learnt here as if they had been made here, by the next process that learns; a refit gives the
    posterior of the other database. Decisions that are here already are left as they are, so the same file
    again adds nothing. When a line is bad, nothing is imported.
    """
    from bandit.decision_log.csv_format import read_csv, read_setup
    from bandit.decision_log.importer import import_log as import_decisions
    from storage import Store

    setup = read_setup(file)
    with Store.open(url) as store, progress_bar("decisions") as advance:
        n, there = import_decisions(store, setup, lambda: read_csv(file), advance)
    if as_json:
        print_json({"file": str(file), "imported": n, "were_there": there})
    else:
        were_there = f"; {there:,} were there" if there else ""
        print_line(f"imported {counted(n, 'decision')}{were_there}")


@app.command(epilog=example("storage backup ads.db ads-monday.db"))
def backup(
    url: DatabaseArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The copy, which must not exist.")],
) -> None:
    """Copy an SQLite database as of this moment, while others read and write it."""
    from storage.maintenance.backup import back_up

    with progress_bar("pages") as advance:
        done_before = 0

        def progress(done: int, total: int) -> None:
            nonlocal done_before
            advance(done - done_before)
            done_before = done

        back_up(url, file, progress=progress)
    print_line(f"copied {url} to {file}, {file.stat().st_size:,} bytes")
