"""Plain SQL, as an operator would type it."""

from typing import Any

from sqlalchemy import create_engine, text

from storage.database.urls import database_url


def fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    """Run a query and return its rows."""
    engine = create_engine(database_url(url))
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]
    finally:
        engine.dispose()


def execute(url: str, *statements: str) -> None:
    """Run statements that change something, past all our checks."""
    engine = create_engine(database_url(url))
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        engine.dispose()
