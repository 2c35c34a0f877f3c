from pathlib import Path

import numpy as np
import pytest

from encoders import FileCache, TextEncoder, TextTypeError, encode_cached, fill_cache
from encoders.filling import PART


def test_a_second_time_nothing_is_encoded(counting, encoder: TextEncoder, tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "vectors.npz")
    first = fill_cache(counting, ["sale", "coat", "sale"], cache)
    assert (first.n_texts, first.n_encoded) == (2, 2)
    assert first.texts_per_s == pytest.approx(2 / first.seconds)
    again = fill_cache(counting, ["coat", "shoes"], FileCache(tmp_path / "vectors.npz"))
    assert (again.n_texts, again.n_encoded) == (2, 1)
    assert counting.asked == [["sale", "coat"], ["shoes"]]
    cache = FileCache(tmp_path / "vectors.npz")
    kept = encode_cached(counting, ["shoes", "sale"], cache)
    assert len(counting.asked) == 2
    np.testing.assert_allclose(kept, encoder.encode(["shoes", "sale"]), atol=1e-6)
    assert fill_cache(counting, ["sale"], cache).texts_per_s == 0


def test_what_was_encoded_before_a_failure_is_kept(encoder: TextEncoder, tmp_path: Path) -> None:
    class Failing:
        dim, fingerprint = encoder.dim, encoder.fingerprint

        def encode(self, texts: list[str]) -> np.ndarray:
            if "the end" in texts:
                raise KeyboardInterrupt
            return encoder.encode(texts)

    texts = [*(f"offer {n}" for n in range(PART)), "the end"]
    cache = FileCache(tmp_path / "vectors.npz")
    with pytest.raises(KeyboardInterrupt):
        fill_cache(Failing(), texts, cache)
    assert fill_cache(encoder, texts, FileCache(tmp_path / "vectors.npz")).n_encoded == 1


def test_a_text_that_is_none_stops_it_before_it_begins(counting, tmp_path: Path) -> None:
    with pytest.raises(TextTypeError, match="text 1 is 7 of type int"):
        fill_cache(counting, ["sale", 7], FileCache(tmp_path / "vectors.npz"))
    assert counting.asked == []
    assert not (tmp_path / "vectors.npz").exists()
