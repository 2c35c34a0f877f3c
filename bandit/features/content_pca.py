"""Content components: the linear map from text embeddings to the content features of the design row."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from bandit.errors import ComponentsError
from bandit.features.design import N_CONTENT
from encoders import TextEncoder

MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""sha256 of the weights of sentence-transformers/all-MiniLM-L6-v2."""

SHIPPED = {
    # What the vectors depend on -> their components; how they were made is in the file's metadata.
    (MINILM, "levels", 6): "minilm_components.safetensors",
    (MINILM, "levels", 3): "minilm_3_layers_components.safetensors",
}
BESIDE = "components.safetensors"
"""In the folder of a tuned encoder: the components of its own vectors."""

ALIKE = 1e-4  # of a vector's length; the rounding of single precision is 1e-7 of it
TEXTS_TO_FIT = 256  # distinct texts from which components of an unknown encoder are fitted


class Components(NamedTuple):
    """A linear map from embeddings to content features: (embedding − centre) @ basis.

    Attributes:
        centre: mean embedding, float32 [embedding].
        basis: orthogonal columns of one length, that of the contents' unit, float32 [embedding, 64].
    """

    centre: Float[np.ndarray, "embedding"]
    basis: Float[np.ndarray, "embedding content"]

    def project(self, embeddings: Float[np.ndarray, "texts embedding"]) -> Float[np.ndarray, "texts content"]:
        """Return the content features of unit-norm embeddings, float32 [texts, 64]."""
        # In single precision the last bits would depend on how many texts come at once, and a replay on that.
        return np.asarray((embeddings.astype(float) - self.centre) @ self.basis.astype(float), np.float32)


def fit_components(
    embeddings: Float[np.ndarray, "texts embedding"], n_content: int = N_CONTENT
) -> Components:
    """Fit principal components to the embeddings of distinct texts.

    Args:
        embeddings: unit-norm, one row per distinct text; at least as many as components.
        n_content: how many components; the engine's models have 64.

    Returns:
        Un-whitened components, all in one unit: that in which the texts' contents have a root mean square
        length of 1, so that a prior scale of their weights means the same whatever the encoder, whose vectors
        may all lie near one another. Each column's largest entry is positive, so that refits agree on signs.
    """
    centre = embeddings.mean(axis=0)
    _, singular, right = np.linalg.svd(embeddings - centre, full_matrices=False)
    length = np.sqrt((singular[:n_content] ** 2).sum() / len(embeddings))
    # Texts that are all alike differ by rounding, which must not become their content.
    is_real = length > ALIKE * np.sqrt((embeddings.astype(float) ** 2).sum() / len(embeddings))
    basis = right[:n_content].T / (length if is_real else 1.0)
    signs = np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])])
    return Components(centre.astype(np.float32), _widened(basis * signs, n_content))


def random_components(embedding_dim: int, seed: int) -> Components:
    """Return a seeded random projection, for an encoder whose components are not known yet.

    Its columns are orthogonal and of one length, with which the contents of unit vectors in no particular
    direction have length 1.
    """
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(embedding_dim, N_CONTENT)))
    return Components(
        np.zeros(embedding_dim, np.float32), _widened(basis * np.sqrt(embedding_dim / basis.shape[1]))
    )


def shipped_components(encoder: object) -> Components | None:
    """Return the components that ship for an encoder, with this package or in its own folder.

    Returns:
        None when there are none that were made for its weights, pooling and number of layers.

    Raises:
        ComponentsError: Those in the encoder's folder cannot be used.
    """
    made_by = (
        getattr(encoder, "weights_sha256", ""),
        getattr(encoder, "pooling", ""),
        getattr(encoder, "layers", 0),
    )
    if made_by in SHIPPED:
        return components_from_bytes((files("bandit.features") / SHIPPED[made_by]).read_bytes())
    return _components_beside(encoder) if isinstance(encoder, TextEncoder) else None


def write_components_beside(folder: Path, texts: Sequence[str]) -> None:
    """Fit components to an encoder's vectors and write them into its folder; none if texts are few.

    Args:
        folder: The encoder's.
        texts: What it was trained on; the same text counts once.
    """
    distinct = sorted(set(texts))
    if len(distinct) < TEXTS_TO_FIT:
        return
    encoder = TextEncoder(folder, progress=False)
    components = fit_components(encoder.encode(distinct))
    notes = {"texts": f"{len(distinct)} that the encoder was tuned on", "command": "creative-bandit tune"}
    # In one entry: safetensors writes several in a random order, and the same tuning gives the same bytes.
    made = {"made": json.dumps(_key(encoder) | notes)}
    (folder / BESIDE).write_bytes(components_to_bytes(components, made))


def _components_beside(encoder: TextEncoder) -> Components | None:
    path = encoder.source.folder / BESIDE
    if not path.is_file():
        return None
    remedy = "remove it, and components are fitted to a database's own texts; or tune again"
    try:
        with safe_open(path, framework="numpy") as file:
            notes = dict(json.loads((file.metadata() or {})["made"]))
            components = Components(file.get_tensor("centre"), file.get_tensor("basis"))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ComponentsError(f"{path} cannot be read as components ({error}); {remedy}") from error
    if any(notes.get(name) != value for name, value in _key(encoder).items()):
        return None
    shapes = [list(each.shape) for each in components]
    expected = [[encoder.dim], [encoder.dim, N_CONTENT]]
    if shapes != expected or not all(np.isfinite(each).all() for each in components):
        raise ComponentsError(
            f"{path}: expected finite numbers, centre and basis of shapes {expected}, got {shapes}; {remedy}"
        )
    return components


def _key(encoder: TextEncoder) -> dict[str, str]:
    """Return what an encoder's vectors, and so their components, depend on."""
    return {
        "weights_sha256": encoder.weights_sha256,
        "pooling": encoder.pooling,
        "layers": str(encoder.layers),
    }


def components_to_bytes(components: Components, metadata: dict[str, str] | None = None) -> bytes:
    """Return the components as safetensors bytes."""
    return save({"centre": components.centre, "basis": np.ascontiguousarray(components.basis)}, metadata)


def components_from_bytes(stored: bytes) -> Components:
    """Return the components from safetensors bytes."""
    tensors = load(stored)
    return Components(tensors["centre"], tensors["basis"])


def _widened(basis: np.ndarray, n_content: int = N_CONTENT) -> np.ndarray:
    """Return the basis with zero columns up to a width: a narrow encoder has fewer components."""
    return np.pad(basis, ((0, 0), (0, n_content - basis.shape[1]))).astype(np.float32)
