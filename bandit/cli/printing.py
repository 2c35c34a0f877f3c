"""What a command prints: one result on standard output, in words or as one JSON document."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 200  # characters; a file or a pipe has no width of its own, and a table must not be cut


def console(*, is_error: bool = False) -> Console:
    """Return a console that prints text as it is: names of campaigns may hold what looks like markup."""
    file = sys.stderr if is_error else sys.stdout
    return Console(
        file=file, width=None if file.isatty() else PIPED_WIDTH, markup=False, emoji=False, highlight=False
    )


def print_line(text: str) -> None:
    """Print one line of result."""
    console().print(Text(text), soft_wrap=True)


def print_error(message: str) -> None:
    """Print an error on standard error; it is not wrapped, so that it stays one line."""
    console(is_error=True).print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document; times in ISO 8601."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, default=_plain) + "\n")


def print_fields(fields: Mapping[str, str]) -> None:
    """Print names and values, one pair a line."""
    grid = Table.grid(padding=(0, 2))
    for name, value in fields.items():
        grid.add_row(Text(name, style="dim"), value)
    console().print(grid)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, n_words: int = 1) -> None:
    """Print a table.

    Args:
        columns: The headings.
        rows: A text per column.
        n_words: How many of the first columns hold words; the others hold numbers, and end at the right.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < n_words else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)


@contextmanager
def progress_bar(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error, where that is a terminal.

    Args:
        what: What is counted, in the plural.
        total: How many there are; None where that is not known.

    Yields:
        A function to call with the number that is newly done.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(is_error=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda n: bar.advance(task, n)


def percent(fraction: float | None, digits: int = 1) -> str:
    """Write a fraction as a percentage.

    Example:
        >>> percent(0.0525), percent(None)
        ('5.2 %', '')
    """
    return "" if fraction is None else f"{100 * fraction:.{digits}f} %"


def counted(number: int, noun: str) -> str:
    """Write a number with its noun.

    Example:
        >>> counted(1, "creative"), counted(2_000, "creative")
        ('1 creative', '2,000 creatives')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _plain(value: object) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
