"""`swap-encoder`: a database turns to another encoder."""

from dataclasses import asdict
from typing import Annotated

import typer

from bandit.cli.opening import opened_engine
from bandit.cli.options import DEFAULT_DATABASE, AsJson, Database, example, group
from bandit.cli.printing import counted, print_json, print_line

DEFAULT = "default"
COMPONENTS = {
    "shipped": "made for this encoder",
    "fitted": "fitted to the database's texts",
    "random": "random until there are 256 different texts",
}

app = group()


@app.command(
    "swap-encoder", epilog=example("swap-encoder tuned", "swap-encoder default --database ads.db --json")
)
def swap_encoder(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help=f"A checkpoint's folder or hub id; {DEFAULT!r} is the default."),
    ],
    *,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Turn a database to another encoder, such as a tuned one; no count is lost.

    All creatives are encoded anew, and the posterior is fitted anew to all counts, in one transaction, while
    others use the database. They go on by the new vectors, and refuse new texts until they are opened with
    the new encoder.
    """
    with opened_engine(database, is_learning=True) as engine:
        from encoders import TextEncoder

        swapped = engine.swap_encoder(TextEncoder(None if model == DEFAULT else model, progress=False))
    if as_json:
        print_json(asdict(swapped))
        return
    print_line(
        f"encoder {swapped.before or 'none'} -> {swapped.after}: {counted(swapped.creatives, 'creative')} of "
        f"{counted(swapped.campaigns, 'campaign')} have new features; components are "
        f"{COMPONENTS[swapped.components]}"
    )
    print_line("open the database with this encoder from now on (CREATIVE_BANDIT_ENCODER, or encoder=…)")
