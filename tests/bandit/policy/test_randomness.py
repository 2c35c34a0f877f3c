"""The uniform numbers of a decision: from its id and the seed alone, uniform, independent."""

from hashlib import blake2b

import numpy as np
from scipy.stats import kstest

from bandit.policy.quasi_random import N_SETS
from bandit.policy.randomness import Uniforms, uniforms_of_ids

N = 20_000
IDS = [f"d{i}" for i in range(N)]


def test_it_is_the_keyed_hash_of_the_id() -> None:
    digest = blake2b("décision-1".encode(), digest_size=48, key=(7).to_bytes(8, "little")).digest()
    words = [int.from_bytes(digest[i : i + 8], "little") for i in range(0, 48, 8)]
    uniforms = uniforms_of_ids(["other", "décision-1"], 7)
    assert int(uniforms.point_set[1]) == words[0] % 2**32
    assert [float(numbers[1]) for numbers in uniforms[1:]] == [(word >> 12) / 2**52 for word in words[1:]]


def test_a_batch_is_its_ids_one_by_one() -> None:
    batch = uniforms_of_ids(IDS[:50], 3)
    for i in range(50):
        assert all(a[0] == b[i] for a, b in zip(uniforms_of_ids([IDS[i]], 3), batch, strict=True))


def test_numbers_are_uniform_and_independent_over_ids_and_seeds() -> None:
    first, other = uniforms_of_ids(IDS, 0), uniforms_of_ids(IDS, 1)
    assert first.point_set.dtype == np.uint32
    counts = np.bincount(first.point_set % N_SETS, minlength=N_SETS)
    assert np.abs(counts - N / N_SETS).max() < 5 * np.sqrt(N / N_SETS)
    columns = [first.point_set / 2**32, *first[1:], *other[1:]]
    for column in columns:
        assert column.min() >= 0
        assert column.max() < 1
        assert kstest(column, "uniform").pvalue > 1e-4
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 5 / np.sqrt(N)


def test_seeds_of_any_size_serve() -> None:
    seeds = (-1, 0, 2**63, 2**70 + 5)
    assert len({float(uniforms_of_ids(["a"], seed).point[0]) for seed in seeds}) == len(seeds)
    assert isinstance(uniforms_of_ids([], 0), Uniforms)
