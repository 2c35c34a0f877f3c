"""Fixtures for all tests."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from bandit.jax_runtime import double_precision as in_double_precision

pytest_plugins = ["tests.databases", "tests.realdata"]

MOST_MAPS = 20_000
PROGRAMS = Path(__file__).parent.parent / ".cache" / "programs"


def pytest_configure(config: pytest.Config) -> None:
    """Share one cache of compiled programs among all tests and the processes they start."""
    os.environ.setdefault("CREATIVE_BANDIT_CACHE", str(PROGRAMS))
    jax.config.update("jax_compilation_cache_dir", os.environ["CREATIVE_BANDIT_CACHE"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(scope="module")
def double_precision() -> Iterator[None]:
    """JAX in float64, as the package runs its numerical core."""
    with in_double_precision():
        yield


@pytest.fixture(scope="module", autouse=True)
def forgotten_programs() -> Iterator[None]:
    """Drop the compiled programs before their memory maps reach the kernel's limit, 65,530 in one process.

    Every program keeps some maps for its code. All tests together compile more than fit; LLVM then aborts.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
        gc.collect()
