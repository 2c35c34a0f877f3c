"""Files of results: tidy rows as CSV, a page that needs nothing but a browser, and its pictures as PNGs.

What is there is not replaced unasked.
"""

import csv
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bandit.html_page import Section, settings_id, write_html
from simulations.errors import ResultsExistError
from simulations.reports.plot_style import svg, write_png
from simulations.reports.results import ResultError

_NOT_IN_NAMES = r'[<>:"/\\|?*\x00-\x1f]'  # of files, on any system
FIGURES = "figures"  # end of the name of a report's folder of PNGs
RESULTS = ("results.csv", "report.html", "tuning.csv")


def write_report(
    path: Path, title: str, sections: Sequence[Section], *, lead: str, settings: Mapping[str, object]
) -> None:
    """Write a page, and its pictures as PNGs in a folder beside it; each says which settings made it.

    Args:
        path: of the page, as "out/report.html"; its pictures go to "out/report-figures".
        title: heading of the page.
        sections: its parts, in order.
        lead: what came out, in a sentence or two.
        settings: name -> value of all that is needed to make the report again.

    Raises:
        PageError: as `html_page.write_html`.
    """
    write_html(path, title, sections, lead=lead, settings=settings, svg=svg)
    folder = figures_of(path)
    for old in folder.glob("*.png"):
        old.unlink()
    for section in sections:
        if section.picture is not None:
            words = f"{title} · settings {settings_id(settings)}"
            picture = folder / f"{re.sub(_NOT_IN_NAMES, '_', section.name)}.png"
            write_png(section.picture, picture, heading=section.heading, settings_id=words)


def figures_of(path: Path) -> Path:
    """Return the folder of a report's PNGs."""
    return path.with_name(f"{path.stem}-{FIGURES}")


def write_csv(rows: Sequence[Any], path: Path, *, names: Mapping[str, str] | None = None) -> None:
    """Write records as CSV: a column per field, numbers in full, None and NaN as an empty cell.

    Args:
        rows: NamedTuples or dataclasses, all of one type.
        path: where to; missing folders are made.
        names: field -> name of its column, where they differ.

    Raises:
        ResultError: when there are no rows, or they are not records of one type.
    """
    if not rows:
        raise ResultError(f"expected at least one row to write to {path.name}, got none")
    kinds = {type(row) for row in rows}
    if len(kinds) > 1:
        raise ResultError(
            f"expected rows of one type in {path.name}, got {sorted(kind.__name__ for kind in kinds)}"
        )
    fields = _fields(rows[0])
    cells = [[_cell(getattr(row, field), field) for field in fields] for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([(names or {}).get(field, field) for field in fields])
        writer.writerows(cells)


def _fields(row: Any) -> tuple[str, ...]:
    """List the fields of a record."""
    if dataclasses.is_dataclass(row):
        return tuple(field.name for field in dataclasses.fields(row))
    if isinstance(row, tuple) and hasattr(row, "_fields"):
        return tuple(row._fields)
    raise ResultError(f"expected a NamedTuple or a dataclass as a row, got {type(row).__name__}")


def _cell(value: Any, field: str) -> Any:
    """Turn NumPy's numbers into Python's, whose text is the shortest that reads back the same."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray | list | dict | tuple):
        raise ResultError(f"expected one value per cell, got {type(value).__name__} in {field}")
    is_nothing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if is_nothing else value


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
