from collections.abc import Iterator

import pytest

from encoders import TextEncoder
from tests.bandit.engines import Clock, Engines
from tests.paths import TINY


@pytest.fixture(scope="session")
def tiny_encoder() -> TextEncoder:
    """A real BERT, tiny and random."""
    return TextEncoder(TINY, dtype="float32")


@pytest.fixture
def clock() -> Clock:
    """A clock that moves only when it is told to."""
    return Clock()


@pytest.fixture
def engines(migrated_sqlite_url: str, tiny_encoder: TextEncoder, clock: Clock) -> Iterator[Engines]:
    """Engines on a fresh SQLite file."""
    opener = Engines(migrated_sqlite_url, tiny_encoder, clock)
    yield opener
    opener.close()


@pytest.fixture
def postgres_engines(postgres_url: str, tiny_encoder: TextEncoder, clock: Clock) -> Iterator[Engines]:
    """Engines on a fresh PostgreSQL database."""
    opener = Engines(postgres_url, tiny_encoder, clock)
    yield opener
    opener.close()


@pytest.fixture
def engines_on_both(url: str, tiny_encoder: TextEncoder, clock: Clock) -> Iterator[Engines]:
    """Engines on a fresh SQLite file and on a fresh PostgreSQL database, in turn."""
    opener = Engines(url, tiny_encoder, clock)
    yield opener
    opener.close()


@pytest.fixture(scope="session")
def default_encoder() -> TextEncoder:
    """The default encoder."""
    return TextEncoder(dtype="float32")
