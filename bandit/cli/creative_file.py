"""Creatives from a CSV file: all of its bad lines are named at once."""

from collections.abc import Collection
from pathlib import Path

from bandit.csv_rows import PLAIN, Line, read_rows
from bandit.errors import InvalidCreativeError
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
    lines: dict[str, int] = {}
    with read_rows(path, InvalidCreativeError, what=PLAIN) as rows:
        if "creative" not in rows.columns or not set(TEXT_FIELDS) & set(rows.columns):
            raise InvalidCreativeError(
                f"{path}: expected the column creative and at least one of {', '.join(TEXT_FIELDS)}; "
                f"got {', '.join(rows.columns) or 'no line'}"
            )

        def new(line: Line) -> Creative:
            creative = _creative(line)
            if creative.id in taken:
                raise InvalidCreativeError(f"campaign {campaign!r} has a creative {creative.id!r} already")
            if creative.id in lines:
                raise InvalidCreativeError(
                    f"creative {creative.id!r} is on line {lines[creative.id]} already"
                )
            lines[creative.id] = rows.number
            return creative

        creatives = list(rows.parsed(new, (InvalidCreativeError,)))
    if rows.problems:
        raise InvalidCreativeError(f"{path}: {rows.told('; nothing was added')}")
    if not creatives:
        raise InvalidCreativeError(f"{path}: no creatives below the header; nothing was added")
    return creatives


def _creative(row: Line) -> Creative:
    """Return the creative of a line."""
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


def _fraction(row: Line, name: str, default: float) -> float:
    """Return a limit; an empty field is the default."""
    text = row.get(name)
    try:
        return float(text) if text else default
    except ValueError as error:
        raise InvalidCreativeError(
            f"creative {row['creative']!r}: expected {name} to be a number, got {text!r}"
        ) from error
