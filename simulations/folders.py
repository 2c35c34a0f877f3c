"""Folders of results: what is there is not replaced unasked."""

from pathlib import Path

from simulations.errors import ResultsExistError


def check_free(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that has results.

    Raises:
        ResultsExistError: there are some, and `overwrite` is not set.
    """
    if (out / "results.csv").exists() and not overwrite:
        raise ResultsExistError(
            f"{out} has results.csv already: name another folder, or allow it to be replaced (--overwrite)"
        )
