import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bandit.errors import ComponentsError
from bandit.features.content_pca import (
    BESIDE,
    SHIPPED,
    TEXTS_TO_FIT,
    components_from_bytes,
    components_to_bytes,
    fit_components,
    random_components,
    shipped_components,
    write_components_beside,
)
from bandit.features.design import N_CONTENT
from encoders import TextEncoder
from tests.paths import TINY

WORDS = ("free", "shoes", "returns", "always", "flash", "sale", "only", "today", "new", "arrivals", "winter")
TEXTS = [f"{one} {two} {three}" for one in WORDS for two in WORDS for three in WORDS[:3]]


def unit_rows(n: int, dim: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    # Directions of falling weight, so that the order of components is definite.
    rows = random.normal(size=(n, dim)) * 0.9 ** np.arange(dim) + 0.3
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_components_are_the_leading_eigenvectors() -> None:
    embeddings = unit_rows(300, 80).astype(float)
    components = fit_components(embeddings)
    values, vectors = np.linalg.eigh(np.cov(embeddings.T))
    leading = vectors[:, ::-1][:, :N_CONTENT]
    # The unit is that in which contents have length 1: their variances sum to it.
    per_unit = 299 / 300 * values[::-1][:N_CONTENT].sum()
    overlap = np.abs(np.sum(leading * components.basis, axis=0)) * np.sqrt(per_unit)
    np.testing.assert_allclose(overlap[:20], 1, atol=1e-4)
    features = components.project(embeddings)
    assert features.dtype == np.float32
    assert (features.astype(float) ** 2).sum(axis=1).mean() == pytest.approx(1, rel=1e-5)
    # Not whitened: each column keeps its own part of the variance.
    np.testing.assert_allclose(features.var(axis=0, ddof=1), values[::-1][:N_CONTENT] / per_unit, rtol=1e-3)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-6)


def test_signs_do_not_depend_on_the_order_of_texts() -> None:
    embeddings = unit_rows(200, 70)
    first, second = fit_components(embeddings), fit_components(embeddings[::-1])
    np.testing.assert_allclose(first.basis[:, :20], second.basis[:, :20], atol=1e-4)
    largest = np.abs(first.basis).argmax(axis=0)
    assert (first.basis[largest, np.arange(N_CONTENT)] > 0).all()


def test_a_narrow_encoder_keeps_all_it_has() -> None:
    embeddings = unit_rows(100, 24)
    for components in (fit_components(embeddings), random_components(24, seed=1)):
        assert components.basis.shape == (24, N_CONTENT)
        assert not components.basis[:, 24:].any()
        features = components.project(embeddings)
        centred = embeddings - components.centre
        # A rotation in another unit: distances between texts are in proportion to what they were.
        np.testing.assert_allclose(
            features @ features.T / (features**2).sum(), centred @ centred.T / (centred**2).sum(), atol=1e-5
        )


def test_random_components_are_orthogonal_and_repeatable() -> None:
    components = random_components(384, seed=5)
    # Each direction has a 384th of a unit vector's square, and 64 of them are to have all of it.
    np.testing.assert_allclose(components.basis.T @ components.basis, 6 * np.eye(N_CONTENT), atol=1e-5)
    np.testing.assert_array_equal(components.basis, random_components(384, seed=5).basis)
    assert np.abs(components.basis - random_components(384, seed=6).basis).max() > 0.01
    assert not components.centre.any()


def test_all_zero_embedding_gives_finite_features() -> None:
    components = fit_components(unit_rows(100, 70))
    assert np.isfinite(components.project(np.zeros((1, 70), np.float32))).all()


def test_components_survive_storage() -> None:
    components = fit_components(unit_rows(100, 70))
    again = components_from_bytes(components_to_bytes(components))
    np.testing.assert_array_equal(components.basis, again.basis)
    np.testing.assert_array_equal(components.centre, again.centre)


@pytest.mark.parametrize(
    "encoder", [None, SimpleNamespace(weights_sha256="0" * 64, pooling="levels", layers=6)]
)
def test_an_unknown_encoder_has_no_shipped_components(encoder: object) -> None:
    assert shipped_components(encoder) is None


@pytest.mark.parametrize(("sha256", "pooling", "layers"), SHIPPED)
def test_a_known_encoder_has_those_of_its_pooling_and_layers(sha256: str, pooling: str, layers: int) -> None:
    known = SimpleNamespace(weights_sha256=sha256, pooling=pooling, layers=layers)
    components = shipped_components(known)
    assert components is not None
    gram = components.basis.T @ components.basis
    assert_allclose(gram / gram[0, 0], np.eye(64), atol=1e-5)
    assert 3 < gram[0, 0] < 4  # the levels' mean of texts lies near one another
    for other in ({"pooling": "cls"}, {"layers": 2}):
        assert shipped_components(SimpleNamespace(**{**vars(known), **other})) is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An encoder that brings its components."""
    folder = tmp_path / "tuned"
    shutil.copytree(TINY, folder)
    write_components_beside(folder, TEXTS)
    return folder


def test_an_encoder_brings_its_components(folder: Path) -> None:
    encoder = TextEncoder(folder)
    components = shipped_components(encoder)
    assert components is not None
    fitted = fit_components(encoder.encode(TEXTS))
    again = (folder / BESIDE).read_bytes()
    write_components_beside(folder, TEXTS[::-1])
    assert (folder / BESIDE).read_bytes() == again
    assert_allclose(components.centre, fitted.centre, atol=1e-6)
    assert_allclose(components.basis[:, :8], fitted.basis[:, :8], atol=1e-3 * np.abs(fitted.basis).max())


def test_too_few_texts_make_no_components(tmp_path: Path) -> None:
    write_components_beside(tmp_path, TEXTS[: TEXTS_TO_FIT - 1] * 2)
    assert list(tmp_path.iterdir()) == []


def test_components_serve_only_what_they_were_made_for(folder: Path) -> None:
    assert shipped_components(TextEncoder(folder, pooling="levels")) is None
    assert shipped_components(TextEncoder(folder, layers=2)) is None
    shutil.copy(TINY / "model_prefixed.safetensors", folder / "model.safetensors")  # of another hash
    assert shipped_components(TextEncoder(folder)) is None


def test_components_that_cannot_be_used_are_named(folder: Path) -> None:
    encoder, path = TextEncoder(folder), folder / BESIDE
    whole = path.read_bytes()
    key = {"made": json.dumps({"weights_sha256": encoder.weights_sha256, "pooling": "mean", "layers": "3"})}
    path.write_bytes(whole[:-100])
    with pytest.raises(ComponentsError, match=f"{path} cannot be read as components"):
        shipped_components(encoder)
    path.write_bytes(components_to_bytes(fit_components(unit_rows(100, 30)), key))
    with pytest.raises(ComponentsError, match=r"shapes \[\[24\], \[24, 64\]\], got \[\[30\], \[30, 64\]\]"):
        shipped_components(encoder)
    path.write_bytes(components_to_bytes(fit_components(unit_rows(100, 24))))
    with pytest.raises(ComponentsError, match=f"{path} cannot be read as components \\('made'\\)"):
        shipped_components(encoder)
    broken = fit_components(unit_rows(100, 24))
    broken.centre[3] = np.nan
    path.write_bytes(components_to_bytes(broken, key))
    with pytest.raises(ComponentsError, match="expected finite numbers"):
        shipped_components(encoder)


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_texts_that_are_all_alike_have_no_contents(noise: float) -> None:
    alike = np.full((300, 24), 24**-0.5) + noise * np.random.default_rng(0).normal(size=(300, 24))
    contents = fit_components(alike.astype(np.float32)).project(alike)
    assert np.abs(contents).max() < 1e-5
