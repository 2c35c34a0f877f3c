"""How numerical code is run: in double precision, on one BLAS thread, with compiled programs kept on disk."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import jax
from threadpoolctl import ThreadpoolController

YIELD_S = 0.001  # between two blocks: a lock let go and taken again at once is never got by those who wait
_CACHE_VARIABLE = "CREATIVE_BANDIT_CACHE"


_computing = threading.RLock()


@cache
def _blas() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401  JAX calls LAPACK from SciPy's OpenBLAS, which must be loaded to be found

    return ThreadpoolController()


@contextmanager
def double_precision() -> Iterator[None]:
    """Run JAX in float64, for this block only, one thread of the process at a time.

    XLA calls LAPACK from the threads of its pool. When BLAS starts threads too, small factorisations take up
    to thirty times as long; one BLAS thread is used meanwhile, which is a setting of the whole process. So a
    block computes alone, and its caller takes the results to the host, or waits for them, inside.
    """
    with _computing, jax.enable_x64(True), _blas().limit(limits=1, user_api="blas"):
        yield


def keep_compiled_programs() -> None:
    """Keep compiled programs on disk, unless the host program chose a place of its own."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = Path(os.environ.get(_CACHE_VARIABLE) or home / "creative-bandit" / "programs")
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
