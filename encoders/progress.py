"""A progress bar for jobs that a person waits for."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_MANY_TEXTS = 1000  # about three seconds on two CPU cores


@contextmanager
def progress_bar(
    what: str, total: int, is_shown: bool | None, *, long_job: int = _MANY_TEXTS
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error.

    Args:
        what: What is done, in words.
        total: How many things are done in all.
        is_shown: Whether to show it; None means on a terminal, for a long job.
        long_job: How many take some seconds.

    Yields:
        A function to call with the number that is newly done.
    """
    if is_shown is None:
        is_shown = total >= long_job and sys.stderr.isatty()
    if not is_shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    # In a log, where nothing can be erased, the finished bar is all that is written.
    with Progress(*columns, console=console, transient=console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda n_done: bar.advance(task, n_done)
