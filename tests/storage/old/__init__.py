"""Databases of older schemas, restored."""

import gzip
import sqlite3
from pathlib import Path

import psycopg

FOLDER = Path(__file__).parent


def restore(url: str, revision: str) -> None:
    """Fill an empty database with what code of an older schema wrote.

    Args:
        url: An SQLite file that does not exist, or a PostgreSQL database without a table.
        revision: The schema, such as "0001".
    """
    dialect = url.partition(":")[0]
    script = gzip.decompress((FOLDER / f"{revision}-{dialect}.sql.gz").read_bytes()).decode()
    if dialect == "sqlite":
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(script)
        connection.close()
    else:
        with psycopg.connect(url, autocommit=True) as server:
            server.execute(script.encode())
