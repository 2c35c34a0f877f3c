"""`encode`: texts of a file become vectors before anybody waits for them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bandit.cli.opening import opened_store
from bandit.cli.options import AsJson, example, group
from bandit.cli.printing import print_json, print_line

if TYPE_CHECKING:
    from encoders import Filled, VectorCache

TEXT_COLUMNS = ("headline", "body", "call_to_action")

app = group()


@app.command(
    epilog=example("encode catalogue.csv --database ads.db", "encode packages.csv.gz --cache vectors.npz")
)
def encode(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A CSV in UTF-8 with texts in some columns, gzipped or not."),
    ],
    *,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A file for the vectors, as `simulate archive --cache` reads it."),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A database for the vectors: creatives are then added at once."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="NAME",
            help="A column with texts; may be given more than once. Without it: "
            f"those of {', '.join(TEXT_COLUMNS)} that are there.",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A checkpoint's folder or hub id; else the default encoder."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Encode a file's texts and keep their vectors; what is stopped goes on where it was."""
    if (cache is None) == (database is None):
        raise typer.BadParameter(
            "give either --cache or --database: where the vectors are kept", param_hint="--cache"
        )
    texts = read_texts(file, columns)
    if cache is not None:
        from encoders import FileCache

        filled = _fill(texts, FileCache(cache), encoder)
    else:
        with opened_store(str(database)) as store:
            from bandit.model.embeddings import SqlVectors

            filled = _fill(texts, SqlVectors(store, lambda: datetime.now(UTC)), encoder)
    if as_json:
        print_json({**filled._asdict(), "texts_per_s": filled.texts_per_s})
        return
    speed = f", {filled.texts_per_s:,.0f} texts/s" if filled.n_encoded else ""
    print_line(
        f"{filled.n_texts:,} texts, {filled.n_encoded:,} of them encoded now in {filled.seconds:.1f} s{speed}"
    )


def read_texts(file: Path, columns: list[str] | None) -> list[str]:
    """Return the distinct texts of a CSV's columns, in the order in which they come; empty ones are left out.

    Raises:
        HistoryError: Columns are missing, the file is no CSV in UTF-8, or it has no texts.
        FileNotFoundError: There is no such file.
    """
    from bandit.csv_rows import read_rows
    from bandit.errors import HistoryError

    with read_rows(file, HistoryError) as rows:
        wanted = columns or [name for name in TEXT_COLUMNS if name in rows.columns]
        missing = rows.missing(wanted)
        if missing or not wanted:
            raise HistoryError(
                f"{file}: expected the columns {', '.join(missing or TEXT_COLUMNS[:1])}, got "
                f"{', '.join(rows.columns) or 'none'}; name those with texts by --column"
            )
        texts = dict.fromkeys(line[name] for line in rows for name in wanted if line[name])
    if not texts:
        raise HistoryError(f"{file}: expected texts in {', '.join(wanted)}, found none")
    return list(texts)


def _fill(texts: list[str], cache: "VectorCache", encoder: str | None) -> "Filled":
    from encoders import TextEncoder, fill_cache

    return fill_cache(TextEncoder(encoder, progress=False), texts, cache)
