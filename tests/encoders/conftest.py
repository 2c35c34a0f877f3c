import shutil
from pathlib import Path

import numpy as np
import pytest

from encoders import TextEncoder
from tests.paths import TINY


@pytest.fixture(scope="session")
def tiny() -> Path:
    """A random BERT: 3 layers, 24 wide, 4 heads, 47 words, 32 positions; read only."""
    return TINY


@pytest.fixture
def tiny_copy(tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may damage."""
    folder = tmp_path / "tiny-bert"
    # Without modes: a checkout may be read-only.
    shutil.copytree(TINY, folder, copy_function=shutil.copyfile)
    return folder


@pytest.fixture(scope="session")
def expected() -> dict[str, np.ndarray]:
    """What PyTorch makes of the tiny BERT."""
    with np.load(TINY / "expected.npz") as file:
        return dict(file)


@pytest.fixture(scope="session")
def encoder() -> TextEncoder:
    """The tiny BERT as an encoder."""
    return TextEncoder(TINY)


class CountingEncoder:
    """Lets a real encoder work, and notes what it was asked."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self.dim, self.fingerprint = encoder.dim, encoder.fingerprint
        self.asked: list[list[str]] = []

    def encode(self, texts: list[str]) -> np.ndarray:
        self.asked.append(list(texts))
        return self._encoder.encode(texts)


@pytest.fixture
def counting(encoder: TextEncoder) -> CountingEncoder:
    return CountingEncoder(encoder)


@pytest.fixture(scope="session")
def default_encoder() -> TextEncoder:
    """The default encoder as its makers pool it, in float32 wherever it runs."""
    return TextEncoder(dtype="float32", pooling="mean")
