"""CSV files read line by line; what is wrong with any line is collected, so that all is told at once."""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from bandit.errors import listed

Line = dict[Any, Any]  # column -> text; None where there are fewer, under None what is beyond the header
T = TypeVar("T")
PLAIN = "a CSV in UTF-8"
GZIPPED = f"{PLAIN} (gzipped if named .gz)"


class CsvRows:
    """The lines of a CSV below its header.

    Attributes:
        columns: names in the header.
        problems: what was wrong with lines so far, each with its number.
    """

    def __init__(self, file: TextIO) -> None:
        self._reader = csv.DictReader(file)
        self.columns: list[str] = list(self._reader.fieldnames or [])
        self.problems: list[str] = []

    def __iter__(self) -> Iterator[Line]:
        return iter(self._reader)

    @property
    def number(self) -> int:
        """The number of the line that was read last, from 1."""
        return self._reader.line_num

    def missing(self, wanted: Sequence[str]) -> list[str]:
        """Return the columns that are wanted and not there."""
        return [name for name in wanted if name not in self.columns]

    def parsed(self, parse: Callable[[Line], T], errors: tuple[type[Exception], ...]) -> Iterator[T]:
        """Yield what the good lines say; a line on which `parse` raises one of these errors is a problem."""
        for line in self._reader:
            try:
                yield parse(line)
            except errors as error:
                self.problems.append(f"line {self.number}: {error}")

    def told(self, outcome: str = "") -> str:
        """Return how many lines are bad, what follows from that, and the first twenty."""
        count = f"{len(self.problems)} bad {'line' if len(self.problems) == 1 else 'lines'}"
        return f"{count}{outcome}{listed(self.problems)}"


def opened(path: Path) -> TextIO:
    """Open a text file for reading, a compressed one too."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


@contextmanager
def opened_text(
    path: Path, refusal: type[Exception], what: str = GZIPPED, advice: str = ""
) -> Iterator[TextIO]:
    """Open a text file for reading; one that cannot be read as such is refused with an error of a kind."""
    try:
        with opened(path) as file:
            yield file
    except (UnicodeDecodeError, csv.Error, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise refusal(f"{path}: expected {what}: {error}{advice}") from error


@contextmanager
def read_rows(
    path: Path,
    refusal: type[Exception],
    *,
    what: str = GZIPPED,
    advice: str = "",
    longest: int | None = None,
) -> Iterator[CsvRows]:
    """Read a CSV, gzipped if named .gz.

    Args:
        path: the file.
        refusal: raised when it is no CSV in UTF-8.
        what: what the error says was expected.
        advice: what to do then.
        longest: characters of a field at most; None is what Python's module has.
    """
    before = csv.field_size_limit() if longest is None else csv.field_size_limit(longest)
    try:
        with opened_text(path, refusal, what, advice) as file:
            yield CsvRows(file)
    finally:
        csv.field_size_limit(before)
