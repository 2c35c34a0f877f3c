"""A copy of a live SQLite database, as of one moment; on PostgreSQL that is the server's business."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from storage.database.error_translation import translate
from storage.database.urls import database_url, shown, sqlite_path
from storage.errors import BackupError

PAGES: Final = 1_024  # copied at once: 4 MB of the usual pages


def back_up(
    url: str | os.PathLike[str],
    file: Path,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Copy an SQLite database, its write-ahead log included, while others read and write it.

    Args:
        url: The database.
        file: The copy, which must not exist; it appears when it is whole.
        progress: Called with the pages that are done and all pages.

    Raises:
        BackupError: It is a PostgreSQL database, there is none, or the copy exists already.
        StorageError: It cannot be read, or the copy cannot be written.
    """
    target = database_url(url)
    address, path = shown(target), sqlite_path(target)
    if path is None:
        raise BackupError(
            f"{address} is a PostgreSQL database; make the copy by: pg_dump --format=custom {address}"
        )
    if not path.is_file():
        raise BackupError(f"there is no database at {address}; nothing was copied")
    if file.exists():
        raise BackupError(f"{file} exists already; give another name, or remove it first")
    partial = file.with_name(f"{file.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(partial)) as copy:
            # Inside a reading transaction: the copy is of this moment, and writers do not make it begin anew.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(copy, pages=PAGES, progress=lambda _, left, total: progress(total - left, total))
            source.rollback()
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.rename(file)
    except sqlite3.Error as error:
        raise translate(error, address) from error
    finally:
        partial.unlink(missing_ok=True)
