import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encoders import (
    CacheError,
    EncoderError,
    FileCache,
    TextEncoder,
    TextTypeError,
    encode_cached,
    text_hash,
)
from tests.bandit.engines import wait_for

TEXTS = ["free returns", "flash sale", "free returns", "winter coat"]


@pytest.fixture
def cache(tmp_path: Path) -> FileCache:
    return FileCache(tmp_path / "new folder" / "vectors.npz")


def _unit(seed: int, dim: int = 24) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=dim).astype(np.float32)
    return vector / np.linalg.norm(vector)


def test_the_hash_is_sha256_of_utf8() -> None:
    # The first is the test vector of FIPS 180-2 for "abc".
    assert text_hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert len({text_hash(text) for text in ("", " ", "\u00e9", "e\u0301", "\ud800", "\ud801", "?")}) == 7


def test_only_a_string_has_a_hash() -> None:
    with pytest.raises(TextTypeError, match=r"text is b'sale' of type bytes"):
        text_hash(b"sale")


def test_each_text_is_encoded_once(counting, encoder: TextEncoder, cache: FileCache) -> None:
    first = encode_cached(counting, TEXTS, cache)
    assert counting.asked == [["free returns", "flash sale", "winter coat"]]
    second = encode_cached(counting, ["new arrivals", *TEXTS], cache)
    assert counting.asked[1:] == [["new arrivals"]]
    np.testing.assert_array_equal(second[1:], first)
    np.testing.assert_allclose(second, encoder.encode(["new arrivals", *TEXTS]), rtol=0, atol=1e-6)
    assert second.dtype == np.float32
    encode_cached(counting, TEXTS, cache)
    assert len(counting.asked) == 2


def test_without_a_cache_repeats_are_still_encoded_once(counting) -> None:
    vectors = encode_cached(counting, TEXTS, None)
    assert counting.asked == [["free returns", "flash sale", "winter coat"]]
    np.testing.assert_array_equal(vectors[0], vectors[2])


def test_no_texts(counting, cache: FileCache) -> None:
    assert encode_cached(counting, [], cache).shape == (0, 24)
    assert counting.asked == []


def test_a_text_that_is_no_string_is_named(counting, cache: FileCache) -> None:
    with pytest.raises(TextTypeError, match="text 2 is 5 of type int"):
        encode_cached(counting, ["a", "b", 5], cache)


def test_vectors_of_another_length_are_refused(counting, cache: FileCache) -> None:
    cache.add(counting.fingerprint, {text_hash("flash sale"): _unit(0, 7)})
    with pytest.raises(
        CacheError, match=rf"'flash sale' has shape \[7\], encoder {counting.fingerprint}.*\[24\]"
    ):
        encode_cached(counting, TEXTS, cache)


class TestFileCache:
    def test_gives_what_was_added(self, cache: FileCache, tmp_path: Path) -> None:
        assert cache.get(["a"], "one") == {}
        cache.add("one", {"a": _unit(1), "b": _unit(2)})
        cache.add("one", {"c": _unit(3)})
        for at in (cache, FileCache(tmp_path / "new folder" / "vectors.npz")):
            kept = at.get(["c", "a", "none"], "one")
            assert kept.keys() == {"a", "c"}
            np.testing.assert_array_equal(kept["a"], _unit(1))
            np.testing.assert_array_equal(kept["c"], _unit(3))

    def test_encoders_are_never_mixed(self, cache: FileCache) -> None:
        cache.add("one", {"a": _unit(1)})
        cache.add("two", {"a": _unit(2, 7)})
        assert cache.get(["a"], "three") == {}
        np.testing.assert_array_equal(cache.get(["a"], "one")["a"], _unit(1))
        np.testing.assert_array_equal(cache.get(["a"], "two")["a"], _unit(2, 7))

    def test_others_may_read_it_and_no_draft_stays(self, tmp_path: Path) -> None:
        (tmp_path / "other").write_bytes(b"")
        FileCache(tmp_path / "vectors.npz").add("one", {"a": _unit(1)})
        assert {path.name for path in tmp_path.iterdir()} == {"other", "vectors.npz"}
        assert (tmp_path / "vectors.npz").stat().st_mode == (tmp_path / "other").stat().st_mode

    def test_nothing_to_add_makes_no_file(self, cache: FileCache, tmp_path: Path) -> None:
        cache.add("one", {})
        assert list(tmp_path.iterdir()) == []

    def test_what_another_process_added_is_kept(self, tmp_path: Path) -> None:
        mine, theirs = (FileCache(tmp_path / "vectors.npz") for _ in range(2))
        assert mine.get(["a"], "one") == {}
        theirs.add("one", {"a": _unit(1)})
        mine.add("one", {"b": _unit(2)})
        assert FileCache(tmp_path / "vectors.npz").get(["a", "b"], "one").keys() == {"a", "b"}

    def test_vectors_of_unlike_length_are_refused(self, cache: FileCache, tmp_path: Path) -> None:
        cache.add("one", {"a": _unit(1)})
        with pytest.raises(CacheError, match=r"encoder one .*lengths \[7, 24\]"):
            cache.add("one", {"b": _unit(2, 7)})
        assert FileCache(tmp_path / "new folder" / "vectors.npz").get(["a", "b"], "one").keys() == {"a"}

    @pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 half an archive"])
    def test_a_damaged_file_is_named(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "vectors.npz"
        path.write_bytes(content)
        for use in (
            lambda: FileCache(path).get(["a"], "one"),
            lambda: FileCache(path).add("one", {"a": _unit(1)}),
        ):
            with pytest.raises(CacheError, match=r"vectors\.npz is not a cache of vectors"):
                use()
        assert path.read_bytes() == content

    def test_a_file_of_other_arrays_is_not_overwritten(self, tmp_path: Path) -> None:
        path = tmp_path / "results.npz"
        np.savez(path, regret=np.arange(3))
        before = path.read_bytes()
        with pytest.raises(CacheError, match=r"results\.npz is not a cache of vectors"):
            FileCache(path).add("one", {"a": _unit(1)})
        assert path.read_bytes() == before

    def test_a_folder_is_no_cache(self, tmp_path: Path) -> None:
        with pytest.raises(CacheError, match="is not a cache of vectors"):
            FileCache(tmp_path).get(["a"], "one")

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(CacheError, match=r"vectors\.npz cannot be written: "):
            FileCache(tmp_path / "file" / "vectors.npz").add("one", {"a": _unit(1)})

    @pytest.mark.kills
    @pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
    def test_a_killed_writer_leaves_a_whole_file(self, tmp_path: Path) -> None:
        path = tmp_path / "vectors.npz"
        FileCache(path).add("one", {"first": _unit(0)})
        code = (
            "import sys, numpy as np; from encoders import FileCache\n"
            "cache = FileCache(sys.argv[1])\n"
            "for i in range(10**6): cache.add('one', {str(i): np.ones(24, np.float32)})"
        )
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
        try:
            wait_for(lambda: len(FileCache(path).get([str(i) for i in range(5)], "one")) == 5)
        finally:
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
        assert FileCache(path).get(["first", "0", "4"], "one").keys() == {"first", "0", "4"}


def test_every_error_has_the_packages_root() -> None:
    assert issubclass(CacheError, EncoderError)
    assert issubclass(TextTypeError, EncoderError)
