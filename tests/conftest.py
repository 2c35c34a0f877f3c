"""Fixtures for all tests."""

import os
from pathlib import Path

import jax
import pytest

pytest_plugins = ["tests.databases", "tests.realdata"]

PROGRAMS = Path(__file__).parent.parent / ".cache" / "programs"


def pytest_configure(config: pytest.Config) -> None:
    """Share one cache of compiled programs among all tests and the processes they start."""
    os.environ.setdefault("CREATIVE_BANDIT_CACHE", str(PROGRAMS))
    jax.config.update("jax_compilation_cache_dir", os.environ["CREATIVE_BANDIT_CACHE"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
