"""Sweeps: many independent runs, computed on processes or on a Ray cluster, each kept once it is finished.

A cell is one run: a policy in one setting, in one world. What it gives depends on the cell alone, so the same
sweep gives the same numbers wherever its cells are computed and however often it was interrupted.
"""

import ctypes
import fcntl
import hashlib
import json
import logging
import multiprocessing
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import bandit
import simulations
from simulations.errors import SimulationError

TRIES = 3  # workers that one cell may cost before it is given up
FORMAT = 1  # of a kept cell; another number makes all old ones unknown

ENGINES = ("here", "local", "ray")
Arrays = Mapping[str, np.ndarray]


class SweepError(SimulationError):
    """A sweep that cannot be run, or a cell that ended its worker again and again."""


class Cell(Protocol):
    """One run of a sweep; it must be possible to pickle it."""

    @property
    def identity(self) -> Mapping[str, object]:
        """All that its numbers depend on, as JSON can hold it."""
        ...


C = TypeVar("C", bound=Cell)
Work = Callable[[C], Arrays]
Found = Iterator[tuple[int, Arrays]]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Where the cells of a sweep are computed.

    Attributes:
        engine: "here", in this process; "local", on processes of this machine; "ray", on a Ray cluster.
        n_workers: processes, for "local" and a Ray that is started here.
        address: of a running Ray cluster, on whose machines this package must be installed; None starts a
            Ray on this machine.
    """

    engine: str = "here"
    n_workers: int = 1
    address: str | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise SweepError(f"expected an engine out of {', '.join(ENGINES)}, got {self.engine!r}")
        if self.n_workers < 1:
            raise SweepError(f"expected at least one worker, got {self.n_workers}")
        if self.address is not None and self.engine != "ray":
            raise SweepError(f"an address is for the engine ray, got {self.address!r} for {self.engine}")


HERE = Workers()


def run_cells(
    work: Work[C],
    cells: Sequence[C],
    *,
    workers: Workers = HERE,
    kept: Path | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Arrays]:
    """Compute cells, or read what an earlier call has finished.

    Args:
        work: Computes a cell; a function of a module, so that other processes find it.
        cells: What is to be computed.
        workers: Where.
        kept: Folder in which finished cells are kept, one file each; None keeps nothing.
        advance: Called once for each cell as it is found or finished.

    Returns:
        What each cell gave, in the order of the cells.

    Raises:
        SweepError: A cell ended its worker `TRIES` times, or Ray is not installed.
    """
    results: dict[int, Arrays] = {}
    for i, cell in enumerate(cells):
        found = None if kept is None else _read(_place(kept, cell))
        if found is not None:
            results[i] = found
            advance()
    left = {i: cell for i, cell in enumerate(cells) if i not in results}
    for i, arrays in _COMPUTING[workers.engine](work, left, workers) if left else ():
        results[i] = arrays
        if kept is not None:
            _write(_place(kept, cells[i]), arrays)
        advance()
    return [results[i] for i in range(len(cells))]


@contextmanager
def one_compiles(program: str) -> Iterator[None]:
    """Let one process of this machine run a new program first: it compiles and keeps it, others then load it.

    Compiling takes more memory than all else. Where nothing is kept the block is passed at once.

    Args:
        program: A name for it, fit for a file.
    """
    kept = jax.config.values["jax_compilation_cache_dir"]
    if kept is None:
        yield
        return
    Path(kept).mkdir(parents=True, exist_ok=True)
    with (Path(kept) / f"{program}.lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the end of the process lets go too
        file.seek(0)
        is_kept = file.read() == code_digest()
        if is_kept:
            fcntl.flock(file, fcntl.LOCK_UN)
        yield
        if not is_kept:
            file.truncate(0)
            file.write(code_digest())


@cache
def code_digest() -> str:
    """Return a digest of this package's sources and of the bandit's: numbers of other code are not reused."""
    digest = hashlib.sha256()
    for package in (bandit, simulations):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _here(work: Work[C], cells: Mapping[int, C], _: Workers) -> Found:
    for i, cell in cells.items():
        yield i, _computed(work, cell)


def _computed(work: Work[C], cell: C) -> Arrays:
    """Compute one cell, and hand back the memory that compiling took; malloc would keep all of it."""
    arrays = work(cell)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
    return arrays


def _local(work: Work[C], cells: Mapping[int, C], workers: Workers) -> Found:
    """Compute on processes; when one dies, its cell alone is computed again."""
    # JAX has threads, which a fork would not survive.
    context = multiprocessing.get_context("spawn")
    # A pool of many gives up all that runs in it when one process dies, so each process has its own.
    idle = [ProcessPoolExecutor(1, context) for _ in range(min(workers.n_workers, len(cells)))]
    left, deaths = list(cells), Counter[int]()
    running: dict[Future[Arrays], tuple[int, ProcessPoolExecutor]] = {}
    try:
        while left or running:
            while left and idle:
                i, pool = left.pop(0), idle.pop()
                running[pool.submit(_computed, work, cells[i])] = i, pool
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                i, pool = running[future]
                try:
                    arrays = future.result()
                except BrokenProcessPool as error:
                    deaths[i] += 1
                    if deaths[i] == TRIES:
                        raise _given_up(cells[i]) from error
                    left.insert(0, i)
                    pool = ProcessPoolExecutor(1, context)
                else:
                    yield i, arrays
                del running[future]
                idle.append(pool)
    finally:
        for pool in [*idle, *(pool for _, pool in running.values())]:
            pool.shutdown(cancel_futures=True)


def _ray(work: Work[C], cells: Mapping[int, C], workers: Workers) -> Found:
    """Compute on Ray; when a worker dies, its cell alone is computed again."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers of every start
    try:
        import ray
    except ImportError as error:
        raise SweepError(
            "the engine ray needs Ray: pip install 'creative-bandit[ray]', or take the engine local"
        ) from error
    is_ours = not ray.is_initialized()
    if is_ours:
        n_cpus = workers.n_workers if workers.address is None else None
        ray.init(
            address=workers.address or "local",
            num_cpus=n_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        remote = ray.remote(max_retries=TRIES - 1)(_computed)
        running = {remote.remote(work, cell): i for i, cell in cells.items()}
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            i = running.pop(done)
            try:
                arrays = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.WorkerCrashedError as error:
                raise _given_up(cells[i]) from error
            yield i, arrays
    finally:
        if is_ours:
            ray.shutdown()


def _given_up(cell: Cell) -> SweepError:
    return SweepError(
        f"a cell ended its worker {TRIES} times, so it was given up: {dict(cell.identity)}; is there enough "
        "memory? Fewer workers need less"
    )


_COMPUTING: Mapping[str, Callable[..., Found]] = {"here": _here, "local": _local, "ray": _ray}


def _place(folder: Path, cell: Cell) -> Path:
    text = json.dumps({"format": FORMAT, **cell.identity}, sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"


def _read(path: Path) -> Arrays | None:
    """Return a kept cell; None when it is not there or not whole."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (FileNotFoundError, zipfile.BadZipFile, ValueError, EOFError):
        return None


def _write(path: Path, arrays: Arrays) -> None:
    """Write a cell whole or not at all: a sweep that is killed leaves no half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(f".{os.getpid()}.half")
    with half.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)


def progress_of(console: Console | None) -> Progress:
    """Return a bar with what is played, the time gone and the time left; None shows none."""
    columns = (TextColumn("{task.description:28}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console or Console(quiet=True), transient=True)
