"""Content components: the linear map from text embeddings to the content features of the design row."""

from importlib.resources import files
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from safetensors.numpy import load, save

from bandit.features import N_CONTENT

MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""sha256 of the weights of sentence-transformers/all-MiniLM-L6-v2."""

SHIPPED = {
    # What the vectors depend on -> their components; how they were made is in the file's metadata.
    (MINILM, "levels", 6): "minilm_components.safetensors",
    (MINILM, "levels", 3): "minilm_3_layers_components.safetensors",
}


class Components(NamedTuple):
    """A linear map from embeddings to content features: (embedding − centre) @ basis.

    Attributes:
        centre: mean embedding, float32 [embedding].
        basis: orthonormal columns, float32 [embedding, 64].
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
        Un-whitened components; each column's largest entry is positive, so that refits agree on signs.
    """
    centre = embeddings.mean(axis=0)
    _, _, right = np.linalg.svd(embeddings - centre, full_matrices=False)
    basis = right[:n_content].T
    signs = np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])])
    return Components(centre.astype(np.float32), _widened(basis * signs, n_content))


def random_components(embedding_dim: int, seed: int) -> Components:
    """Return a seeded orthonormal projection, for an encoder whose components are not known yet."""
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(embedding_dim, N_CONTENT)))
    return Components(np.zeros(embedding_dim, np.float32), _widened(basis))


def shipped_components(encoder: object) -> Components | None:
    """Return the components that ship for an encoder, or None when there are none for it."""
    made_by = (
        getattr(encoder, "weights_sha256", ""),
        getattr(encoder, "pooling", ""),
        getattr(encoder, "layers", 0),
    )
    name = SHIPPED.get(made_by)
    return None if name is None else components_from_bytes((files("bandit") / name).read_bytes())


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
