"""Creatives from a CSV file: all of its bad lines are named at once."""

import csv
from collections.abc import Collection
from pathlib import Path

from bandit.errors import InvalidCreativeError, listed
from bandit.types import TEXT_FIELDS, Creative


def read_creatives(path: Path, campaign: str, taken: Collection[str]) -> list[Creative]:
    """Read creatives.

    Args:
        path: CSV in UTF-8 with the column creative and any of headline, body, call_to_action, picture, floor,
            cap.
        campaign: The campaign's name, for the error.
        taken: Ids that the campaign has.

    Returns:
        The creatives, in the order of the file.

    Raises:
        InvalidCreativeError: Columns are missing, lines are bad (all are named with their numbers), or there
            are none.
        FileNotFoundError: There is no such file.
    """
    creatives: list[Creative] = []
    problems: list[str] = []
    lines: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if "creative" not in columns or not set(TEXT_FIELDS) & set(columns):
                raise InvalidCreativeError(
                    f"{path}: expected the column creative and at least one of {', '.join(TEXT_FIELDS)}; "
                    f"got {', '.join(columns) or 'no line'}"
                )
            for row in reader:
                number = reader.line_num
                try:
                    creative = _creative(row)
                    if creative.id in taken:
                        raise InvalidCreativeError(
                            f"campaign {campaign!r} has a creative {creative.id!r} already"
                        )
                    if creative.id in lines:
                        raise InvalidCreativeError(
                            f"creative {creative.id!r} is on line {lines[creative.id]} already"
                        )
                except InvalidCreativeError as error:
                    problems.append(f"line {number}: {error}")
                else:
                    lines[creative.id] = number
                    creatives.append(creative)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidCreativeError(f"{path}: expected a CSV in UTF-8: {error}") from error
    if problems:
        plural = "line" if len(problems) == 1 else "lines"
        raise InvalidCreativeError(
            f"{path}: {len(problems)} bad {plural}; nothing was added{listed(problems)}"
        )
    if not creatives:
        raise InvalidCreativeError(f"{path}: no creatives below the header; nothing was added")
    return creatives


def _creative(row: dict[str, str | None]) -> Creative:
    """Return the creative of a line; DictReader keeps what is beyond the header under the key None."""
    if None in row:
        raise InvalidCreativeError("more columns than the header; put quotes around a text with commas")
    if not row["creative"]:
        raise InvalidCreativeError("the creative's id is empty")
    return Creative(
        row["creative"],
        **{name: row.get(name) or "" for name in TEXT_FIELDS},
        picture=row.get("picture") or None,
        floor=_fraction(row, "floor", 0.0),
        cap=_fraction(row, "cap", 1.0),
    )


def _fraction(row: dict[str, str | None], name: str, default: float) -> float:
    """Return a limit; an empty field is the default."""
    text = row.get(name)
    try:
        return float(text) if text else default
    except ValueError as error:
        raise InvalidCreativeError(
            f"creative {row['creative']!r}: expected {name} to be a number, got {text!r}"
        ) from error
