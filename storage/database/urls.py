"""What a user may write for a database, and how it is shown without its password."""

import os
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from storage.errors import InvalidUrlError

POSTGRES_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg")
SQLITE_SCHEMES = ("sqlite", "sqlite+pysqlite")
EXAMPLES = "give a file such as ads.db, sqlite:///ads.db, or postgresql://user@host/database"


def database_url(address: str | os.PathLike[str]) -> URL:
    """Turn what a user wrote into the URL that we use.

    Args:
        address: A path of an SQLite file, or a URL. `postgres://` and `postgresql://` mean psycopg 3.

    Returns:
        An SQLAlchemy URL with the driver named.

    Raises:
        InvalidUrlError: It is empty, malformed, in memory, or of a database that we do not support.

    Example:
        >>> str(database_url("ads.db"))
        'sqlite:///ads.db'
        >>> str(database_url("postgres://ann@db.example/ads"))
        'postgresql+psycopg://ann@db.example/ads'
    """
    text = os.fspath(address)
    if not text.strip() or "\0" in text:
        raise InvalidUrlError(f"the database's place is empty or holds a NUL: {text!r}; {EXAMPLES}")
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser()))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        scheme = text.split("://", maxsplit=1)[0]
        # The rest may hold a password, and so may the error's text.
        raise InvalidUrlError(
            f"cannot read the database URL that begins with {scheme}://; {EXAMPLES}"
        ) from error
    if url.drivername in POSTGRES_SCHEMES:
        return url.set(drivername="postgresql+psycopg")
    if url.drivername not in SQLITE_SCHEMES:
        raise InvalidUrlError(f"databases of kind {url.drivername!r} are not supported; {EXAMPLES}")
    if url.database in (None, "", ":memory:") or "mode=memory" in text:
        raise InvalidUrlError(f"a database in memory is lost with the process: {text!r}; {EXAMPLES}")
    return url


def shown(url: URL) -> str:
    """Write the URL for people: without a password, wherever it stands.

    Example:
        >>> shown(database_url("postgresql://ann:secret@db.example/ads?password=x"))
        'postgresql://ann:***@db.example/ads'
    """
    public = url.difference_update_query([name for name in url.query if "pass" in name.lower()])
    return public.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def sqlite_path(url: URL) -> Path | None:
    """Return the file of an SQLite database; None for a server, or a `file:` URI that SQLite reads."""
    if url.get_backend_name() != "sqlite" or url.database is None or url.database.startswith("file:"):
        return None
    return Path(url.database)
