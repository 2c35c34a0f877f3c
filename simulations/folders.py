"""Folders of results: what is there is not replaced unasked."""

from pathlib import Path

from simulations.errors import ResultsExistError

RESULTS = ("results.csv", "report.html", "tuning.csv")


def check_free(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that has results.

    Raises:
        ResultsExistError: there are some, and `overwrite` is not set.
    """
    there = [name for name in RESULTS if (out / name).exists()]
    if there and not overwrite:
        raise ResultsExistError(
            f"{out} has {', '.join(there)} already: name another folder, or allow the results to be replaced "
            "(--overwrite)"
        )
