"""A cache is filled with many texts, in parts: what is stopped goes on where it was."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from .cache import Encoder, VectorCache, text_hash
from .progress import progress_bar
from .text import check_texts

PART = 2048  # texts that are lost at most, about six seconds of two CPU cores


class Filled(NamedTuple):
    """What became of the texts.

    Attributes:
        n_texts: Distinct texts.
        n_encoded: Those that were encoded now; the cache had the others.
        seconds: How long it took.
    """

    n_texts: int
    n_encoded: int
    seconds: float

    @property
    def texts_per_s(self) -> float:
        """Texts that were encoded a second; 0 when none had to be."""
        return self.n_encoded / self.seconds if self.n_encoded else 0.0


def fill_cache(
    encoder: Encoder, texts: Sequence[str], cache: VectorCache, *, progress: bool | None = None
) -> Filled:
    """Encode the texts that a cache does not have, and keep their vectors there part by part.

    Args:
        encoder: The encoder.
        texts: Texts; one that occurs twice is encoded once.
        cache: Where vectors are kept.
        progress: Whether to show a progress bar; None means for long jobs, on a terminal.

    Returns:
        How many there were, and how many were new.

    Raises:
        TextTypeError: If one of the texts is not a string; says which, and nothing is encoded.
        CacheError: If the cache cannot be used.
    """
    check_texts(texts)
    began = time.perf_counter()
    by_hash = {text_hash(text): text for text in texts}
    kept = cache.get(list(by_hash), encoder.fingerprint)
    missing = [key for key in by_hash if key not in kept]
    with progress_bar("encoding texts", len(missing), progress) as advance:
        for start in range(0, len(missing), PART):
            part = missing[start : start + PART]
            vectors = encoder.encode([by_hash[key] for key in part])
            cache.add(encoder.fingerprint, dict(zip(part, vectors, strict=True)))
            advance(len(part))
    return Filled(len(by_hash), len(missing), time.perf_counter() - began)
