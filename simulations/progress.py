"""The progress bar of a simulation."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def progress_of(console: Console | None) -> Progress:
    """Return a bar with what is played, the time gone and the time left; None shows none."""
    columns = (TextColumn("{task.description:28}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console or Console(quiet=True), transient=True)
