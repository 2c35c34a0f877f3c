"""How numerical code is run: in double precision, on one BLAS thread, with compiled programs kept on disk."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from threadpoolctl import ThreadpoolController

_CACHE_VARIABLE = "CREATIVE_BANDIT_CACHE"
_blas = ThreadpoolController()


@contextmanager
def double_precision() -> Iterator[None]:
    """Run JAX in float64, for this thread and block only.

    XLA calls LAPACK from threads of its own; when BLAS then starts threads too, the two wait for each other
    and
    small factorisations take up to thirty times as long. One BLAS thread is used meanwhile.
    """
    with jax.enable_x64(True), _blas.limit(limits=1, user_api="blas"):
        yield


def keep_compiled_programs() -> None:
    """Keep compiled programs on disk, unless the host program chose a place of its own."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = Path(os.environ.get(_CACHE_VARIABLE) or home / "creative-bandit" / "programs")
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
