"""Vectors of texts, shared by all campaigns."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import final

import numpy as np
from jaxtyping import Float32
from sqlalchemy import Connection, select

from storage.database.dialect import in_chunks, insert_or_skip
from storage.database.session import Database
from storage.errors import InvalidValueError
from storage.schema.tables import Embedding
from storage.validation import check_text

Vector = Float32[np.ndarray, "dim"]


@final
class Embeddings:
    """The topic `store.embeddings`: one public method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, hashes: Sequence[str], encoder_fingerprint: str) -> dict[str, Vector]:
        """Return the vectors that are stored, by the hash of their text; the others are left out."""

        def work(connection: Connection) -> dict[str, Vector]:
            query = select(Embedding.text_hash, Embedding.vector).where(
                Embedding.encoder_fingerprint == encoder_fingerprint
            )
            return {
                row.text_hash: np.frombuffer(row.vector, dtype="<f4").astype(np.float32)
                for chunk in in_chunks(hashes)
                for row in connection.execute(query.where(Embedding.text_hash.in_(chunk)))
            }

        return self._database.read(work)

    def add(self, encoder_fingerprint: str, vectors: Mapping[str, Vector], *, created_at: datetime) -> None:
        """Store vectors; one that is there already stays.

        Args:
            encoder_fingerprint: What made them.
            vectors: By the hash of their text; one axis, finite.
            created_at: When.

        Raises:
            InvalidValueError: A vector has another number of axes, or is not finite.
        """
        check_text(encoder_fingerprint, "encoder_fingerprint")
        for text_hash, vector in vectors.items():
            check_text(text_hash, "a text's hash")
            if vector.ndim != 1 or not np.isfinite(vector).all():
                raise InvalidValueError(
                    f"embedding of {text_hash!r}: expected one axis of finite numbers, "
                    f"got {vector.dtype} of shape {vector.shape}"
                )
        rows = [
            {
                "encoder_fingerprint": encoder_fingerprint,
                "text_hash": text_hash,
                "dim": vector.size,
                "vector": np.asarray(vector, dtype="<f4").tobytes(),
                "created_at": created_at,
            }
            for text_hash, vector in sorted(vectors.items())
        ]
        self._database.write(lambda connection: insert_or_skip(connection, Embedding, rows))
