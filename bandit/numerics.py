"""How numerical code is run: in double precision, on one BLAS thread, with compiled programs kept on disk."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from threadpoolctl import ThreadpoolController

_CACHE_VARIABLE = "CREATIVE_BANDIT_CACHE"


class _OneBlasThread:
    """Limits BLAS to one thread while any thread of ours computes; the limit is the whole process's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._controller: ThreadpoolController | None = None
        self._limiter: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._controller = self._controller or ThreadpoolController()
                self._limiter = self._controller.limit(limits=1, user_api="blas")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._limiter.restore_original_limits()


_one_blas_thread = _OneBlasThread()


@contextmanager
def double_precision() -> Iterator[None]:
    """Run JAX in float64, for this thread and block only, and BLAS on one thread while any such block runs.

    XLA calls LAPACK from threads of its own; when BLAS then starts threads too, the two wait for each other
    and small factorisations take up to thirty times as long.
    """
    with jax.enable_x64(True), _one_blas_thread:
        yield


def keep_compiled_programs() -> None:
    """Keep compiled programs on disk, unless the host program chose a place of its own."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = Path(os.environ.get(_CACHE_VARIABLE) or home / "creative-bandit" / "programs")
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
