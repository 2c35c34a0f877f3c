"""Files of rows: compressed by their name, and there only when they are whole."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def replaced(path: Path) -> Iterator[TextIO]:
    """Write a text file that takes its place when all is written; one that ends in .gz is compressed."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as raw:
            if path.suffix == ".gz":
                # Neither name nor time inside: equal logs are equal files.
                with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed:
                    yield from _text(packed)
            else:
                yield from _text(raw)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def opened(path: Path) -> TextIO:
    """Open a text file for reading, a compressed one too."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


@contextmanager
def opened_csv(path: Path, refusal: type[Exception]) -> Iterator[TextIO]:
    """Open a CSV for reading; one that cannot be read as such is refused with an error of a kind."""
    try:
        with opened(path) as file:
            yield file
    except (UnicodeDecodeError, csv.Error, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise refusal(f"{path}: expected a CSV in UTF-8 (gzipped if named .gz): {error}") from error


def _text(binary: io.BufferedWriter | gzip.GzipFile) -> Iterator[TextIO]:
    text = io.TextIOWrapper(binary, encoding="utf-8", newline="")
    yield text
    text.flush()
    text.detach()
