"""Vectors that are computed once: kept by the hash of the text and the fingerprint of the encoder."""

import hashlib
import os
import threading
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float

from .errors import CacheError, TextTypeError
from .text import check_texts

_Vectors = dict[str, Float[np.ndarray, "dim"]]


class Encoder(Protocol):
    """Turn texts into vectors; `TextEncoder` is one."""

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same text would get another vector."""
        ...

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "texts dim"]:
        """Encode texts as float32 vectors of length 1."""
        ...


class VectorCache(Protocol):
    """Keep vectors by text hash, apart for each encoder's fingerprint."""

    def get(self, hashes: Sequence[str], fingerprint: str) -> Mapping[str, Float[np.ndarray, "dim"]]:
        """Give the vectors that are there, by hash; those that are not are left out."""
        ...

    def add(self, fingerprint: str, vectors: Mapping[str, Float[np.ndarray, "dim"]]) -> None:
        """Keep vectors, by hash; adding one that is there already changes nothing."""
        ...


def text_hash(text: str) -> str:
    """Hash a text's content, for use as a cache's key.

    Args:
        text: Any string.

    Returns:
        The sha256 of its UTF-8 bytes, 64 hex digits.

    Raises:
        TextTypeError: If it is not a string.

    Example:
        >>> text_hash("Free returns, always")[:16]
        '6b64778eb7d80e75'
    """
    if not isinstance(text, str):
        raise TextTypeError(f"text is {text!r} of type {type(text).__name__}, expected a string")
    # Half a surrogate pair is no character, but two texts that differ in it differ.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def encode_cached(
    encoder: Encoder, texts: Sequence[str], cache: VectorCache | None
) -> Float[np.ndarray, "texts dim"]:
    """Encode the texts that a cache does not have, keep them there, and give the vectors of all.

    Args:
        encoder: The encoder.
        texts: Texts; one that occurs twice is encoded once.
        cache: Where vectors are kept; None keeps none.

    Returns:
        The texts' vectors, in the same order.

    Raises:
        TextTypeError: If one of the texts is not a string; says which.
        CacheError: If the cache holds a vector of another length than the encoder's.
    """
    check_texts(texts)
    hashes = [text_hash(text) for text in texts]
    by_hash = dict(zip(hashes, texts, strict=True))
    vectors = dict(cache.get(list(by_hash), encoder.fingerprint)) if cache is not None else {}
    for key, vector in vectors.items():
        if vector.shape != (encoder.dim,):
            raise CacheError(
                f"the cached vector of text {by_hash[key][:40]!r} has shape {list(vector.shape)}, encoder"
                f" {encoder.fingerprint} makes {[encoder.dim]}; remove the cached vectors of this encoder"
            )
    if missing := [key for key in by_hash if key not in vectors]:
        encoded = encoder.encode([by_hash[key] for key in missing])
        new = dict(zip(missing, encoded, strict=True))
        if cache is not None:
            cache.add(encoder.fingerprint, new)
        vectors.update(new)
    if not texts:
        return np.empty((0, encoder.dim), np.float32)
    return np.stack([vectors[key] for key in hashes]).astype(np.float32, copy=False)


class FileCache:
    """Keep vectors in one .npz file.

    The file is read at the first use and replaced as a whole at every `add`, so a reader never sees half of
    it. Made for a few large jobs; two processes that add at the same moment may lose one's vectors, which are
    then encoded again.

    Args:
        path: The file; it need not exist yet.

    Raises:
        CacheError: From `get` and `add`, if the file is not such a cache.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._vectors: dict[str, _Vectors] | None = None
        self._lock = threading.Lock()

    def get(self, hashes: Sequence[str], fingerprint: str) -> _Vectors:
        """Give the vectors that are there.

        Args:
            hashes: Hashes of texts.
            fingerprint: The encoder's.

        Returns:
            Vectors by hash, for those of the hashes that are there.
        """
        with self._lock:
            if self._vectors is None:
                self._vectors = _read(self._path)
            kept = self._vectors.get(fingerprint, {})
            return {key: kept[key] for key in hashes if key in kept}

    def add(self, fingerprint: str, vectors: Mapping[str, Float[np.ndarray, "dim"]]) -> None:
        """Keep vectors.

        Args:
            fingerprint: The encoder's.
            vectors: Vectors by hash of their text.

        Raises:
            CacheError: If the file is not such a cache or cannot be written, or an encoder's vectors differ
                in length.
        """
        if not vectors:
            return
        with self._lock:
            # Read again: another process may have added in the meantime.
            kept = _read(self._path)
            kept.setdefault(fingerprint, {}).update(vectors)
            lengths = sorted({len(vector) for vector in kept[fingerprint].values()})
            if len(lengths) > 1:
                raise CacheError(
                    f"encoder {fingerprint} would have vectors of the lengths {lengths}; use one"
                )
            try:
                _write(self._path, kept)
            except OSError as error:
                raise CacheError(f"the cache {self._path} cannot be written: {error}") from error
            self._vectors = kept


def _read(path: Path) -> dict[str, _Vectors]:
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            prints = [name.removeprefix("hashes/") for name in file.files if name.startswith("hashes/")]
            if len(file.files) != 2 * len(prints):
                raise ValueError(f"it holds {', '.join(file.files)}")
            return {
                name: dict(zip(file[f"hashes/{name}"].tolist(), file[f"vectors/{name}"], strict=True))
                for name in prints
            }
    except (OSError, ValueError, KeyError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise CacheError(
            f"{path} is not a cache of vectors ({error}); remove it, or name another file"
        ) from error


def _write(path: Path, kept: Mapping[str, _Vectors]) -> None:
    arrays = {f"hashes/{name}": np.array(list(vectors)) for name, vectors in kept.items()}
    arrays |= {f"vectors/{name}": np.stack(list(vectors.values())) for name, vectors in kept.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because only there a file can be replaced in one step. Opened by name, not as a
    # temporary file, which only its owner could read.
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with draft.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
