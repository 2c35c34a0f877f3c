"""From the name of a file to the reader of its format."""

import csv
from pathlib import Path

from bandit.csv_rows import opened_text
from bandit.decision_log import open_bandit, own_logs
from bandit.decision_log.dsjson import read_dsjson
from bandit.decision_log.logs import Log
from bandit.errors import LogError

CSV = (".csv", ".csv.gz")
DSJSON = (".dsjson", ".dsjson.gz", ".json", ".json.gz")
FILES = (*CSV, *DSJSON)


def read_log(path: Path, campaign: str | None = None) -> Log:
    """Read a file: a CSV of `storage export`, one with Open Bandit's columns, or dsjson.

    Args:
        path: one of `FILES`.
        campaign: whose decisions, where the file has several campaigns.

    Raises:
        LogError: the file cannot be evaluated; names every bad line, and every column that is missing.
        FileNotFoundError: there is no such file.
    """
    if path.name.endswith(DSJSON):
        return read_dsjson(path, campaign)
    names = header_of(path)
    missing = {
        kind: [name for name in needed if name not in names]
        for kind, needed in (("an export of ours", own_logs.COLUMNS), ("Open Bandit's", open_bandit.COLUMNS))
    }
    ours, theirs = missing.values()
    if not ours:
        return own_logs.read_export(path, campaign)
    if theirs:
        lacks = "; ".join(f"for {kind}: {', '.join(columns)}" for kind, columns in missing.items())
        raise LogError(f"{path}: these columns are missing {lacks}")
    if campaign is not None:
        raise LogError(f"{path}: a file with Open Bandit's columns has one campaign, got {campaign!r}")
    return open_bandit.read_open_bandit(path)


def header_of(path: Path) -> list[str]:
    """Return the names of a CSV's columns."""
    with opened_text(path, LogError) as file:
        return next(csv.reader(file), [])
