"""A progress bar for jobs that a person waits for."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LONG_JOB = 1000  # texts; about three seconds on two CPU cores


@contextmanager
def progress_bar(n_texts: int, is_shown: bool | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error while texts are encoded.

    Args:
        n_texts: Texts in all.
        is_shown: Whether to show it; None means on a terminal, for a long job.

    Yields:
        A function to call with the number of texts that are newly done.
    """
    if is_shown is None:
        is_shown = n_texts >= _LONG_JOB and sys.stderr.isatty()
    if not is_shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("encoding texts"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    # In a log, where nothing can be erased, the finished bar is all that is written.
    with Progress(*columns, console=console, transient=console.is_terminal) as bar:
        task = bar.add_task("", total=n_texts)
        yield lambda n_done: bar.advance(task, n_done)
