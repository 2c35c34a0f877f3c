"""The encoder of a database: loaded when it is needed, its vectors kept in SQL."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from jaxtyping import Float

from bandit.errors import EncoderChangedError
from encoders import Encoder, TextEncoder
from storage import Store


class SqlVectors:
    """The vectors kept in the database, as the encoder's cache."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def get(self, hashes: Sequence[str], fingerprint: str) -> Mapping[str, np.ndarray]:
        """Return the vectors that are there, by hash."""
        return self._store.embeddings.get(hashes, fingerprint)

    def add(self, fingerprint: str, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep vectors, by hash."""
        self._store.embeddings.add(fingerprint, vectors, created_at=self._clock())


class LazyEncoder:
    """The model's encoder, loaded when a text comes that the database has no vector of.

    Args:
        encoder: An encoder, a checkpoint's folder or hub id, or None for the default one.
        fingerprint: Of the encoder that made the database's vectors; None before the first.
        dim: Its width, if known.
    """

    def __init__(
        self, encoder: Encoder | str | Path | None, fingerprint: str | None = None, dim: int | None = None
    ) -> None:
        self._given = encoder
        self._fingerprint = fingerprint
        self._dim = dim
        self._loaded: Encoder | None = None

    def load(self) -> Encoder:
        """Return the encoder itself.

        Raises:
            MissingEncoderError: There is none; says how to get it.
            EncoderChangedError: It is not the one that made the database's vectors.
        """
        if self._loaded is None:
            given = self._given
            self._loaded = TextEncoder(given) if given is None or isinstance(given, str | Path) else given
        if self._fingerprint is None:
            self._fingerprint, self._dim = self._loaded.fingerprint, self._loaded.dim
        if self._loaded.fingerprint != self._fingerprint:
            raise EncoderChangedError(
                f"the database's vectors were made by the encoder {self._fingerprint}, this one is "
                f"{self._loaded.fingerprint}; open it with the same encoder, or change the database's "
                "for good by: creative-bandit swap-encoder"
            )
        return self._loaded

    def expect(self, fingerprint: str | None, dim: int) -> bool:
        """Take note of the encoder that made the database's vectors, stored since by another process.

        Where it is not ours, stored vectors serve on, and `load` will refuse.

        Returns:
            Whether it is another one than before.
        """
        before, self._fingerprint, self._dim = self._fingerprint, fingerprint, dim
        return before not in (None, fingerprint)

    @property
    def fingerprint(self) -> str:
        """The encoder's fingerprint."""
        return self._fingerprint or self.load().fingerprint

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self._dim or self.load().dim

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "texts dim"]:
        """Encode texts."""
        return self.load().encode(texts)
