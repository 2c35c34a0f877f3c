"""Files of rows: compressed by their name, and there only when they are whole."""

import gzip
import io
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


def _text(binary: io.BufferedWriter | gzip.GzipFile) -> Iterator[TextIO]:
    text = io.TextIOWrapper(binary, encoding="utf-8", newline="")
    yield text
    text.flush()
    text.detach()
