"""How a command opens the database: quickly refused when it cannot be used, learning only when asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bandit.engine import Engine
    from storage import Store


@contextmanager
def opened_store(url: str) -> Iterator["Store"]:
    """Open a database that must be there; a mistyped place must not leave an empty file behind.

    Raises:
        StorageError: There is none, or it cannot be used.
    """
    from storage import DatabaseNotFoundError, Store
    from storage.database.urls import database_url, shown

    try:
        store = Store.open(url, create=False)
    except DatabaseNotFoundError as error:
        raise DatabaseNotFoundError(
            f"there is no creative-bandit database at {shown(database_url(url))}; give another, "
            "or make it with: creative-bandit campaign add"
        ) from error
    with store:
        yield store


@contextmanager
def opened_engine(url: str, *, is_created: bool = False, is_learning: bool = False) -> Iterator["Engine"]:
    """Open an engine for one command.

    Args:
        url: The database.
        is_created: Whether it may be made.
        is_learning: Whether the command learns; all others leave that to a process that may run already.

    Yields:
        The engine, which learns in `settle` only.

    Raises:
        StorageError: The database cannot be used.
    """
    if not is_created:
        # Before JAX is imported, which takes seconds.
        with opened_store(url):
            pass
    from bandit.engine import Engine

    with Engine.open(url, role="both" if is_learning else "select", learn="manual") as engine:
        yield engine
