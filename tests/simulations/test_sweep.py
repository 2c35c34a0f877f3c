"""Sweeps: the same numbers on every engine, finished cells are kept, a dead worker costs only its cell."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest
import ray

from simulations.sweep import ENGINES, SweepError, Workers, code_digest, one_compiles, run_cells
from tests.simulations.cell_work import Squared, pids_of, square

N = 6


@contextmanager
def jax_cache(folder: Path) -> Iterator[None]:
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(folder))
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of two workers, started once for all tests here but one."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(params=ENGINES)
def workers(cluster: None, request: pytest.FixtureRequest) -> Workers:
    return Workers(engine=request.param, n_workers=2)


def cells(diary: Path, deaths: int = 0) -> list[Squared]:
    diary.mkdir(exist_ok=True)
    return [Squared(float(i), diary, deaths if i == 2 else 0) for i in range(N)]


@pytest.mark.slow
def test_results_come_in_the_order_of_the_cells(workers: Workers, tmp_path: Path) -> None:
    advanced = []
    results = run_cells(
        square, cells(tmp_path / "diary"), workers=workers, advance=lambda: advanced.append(1)
    )
    assert [float(arrays["square"]) for arrays in results] == [i**2 for i in range(N)]
    assert len(advanced) == N
    pids = {pid for each in pids_of(tmp_path / "diary").values() for pid in each}
    assert (os.getpid() in pids) == (workers.engine == "here")


def test_finished_cells_are_kept(workers: Workers, tmp_path: Path) -> None:
    kept, own = tmp_path / "kept", cells(tmp_path / "diary")
    first = run_cells(square, own[:4], kept=kept, workers=workers)
    advanced = []
    results = run_cells(square, own, kept=kept, workers=workers, advance=lambda: advanced.append(1))
    assert len(advanced) == N, "progress counts what was found"
    assert {len(each) for each in pids_of(tmp_path / "diary").values()} == {1}, "nothing is computed twice"
    for before, after in zip(first, results, strict=False):
        assert before.keys() == after.keys()
        for name in before:
            np.testing.assert_array_equal(before[name], after[name])
            assert before[name].dtype == after[name].dtype


def test_a_broken_file_is_computed_again(tmp_path: Path) -> None:
    kept, own = tmp_path / "kept", cells(tmp_path / "diary")
    run_cells(square, own, kept=kept)
    first, second, *_ = sorted(kept.iterdir())
    first.write_bytes(first.read_bytes()[:50])
    second.write_bytes(b"")
    results = run_cells(square, own, kept=kept)
    assert [float(arrays["square"]) for arrays in results] == [i**2 for i in range(N)]
    assert sorted(len(each) for each in pids_of(tmp_path / "diary").values()) == [1] * (N - 2) + [2, 2]
    assert not list(kept.glob("*.half"))


@pytest.mark.kills
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_worker_that_is_killed_costs_only_its_cell(cluster: None, engine: str, tmp_path: Path) -> None:
    workers = Workers(engine=engine, n_workers=2)
    results = run_cells(square, cells(tmp_path / "diary", deaths=1), workers=workers)
    assert [float(arrays["square"]) for arrays in results] == [i**2 for i in range(N)]
    times = {number: len(pids) for number, pids in pids_of(tmp_path / "diary").items()}
    assert times == {float(i): 1 + (i == 2) for i in range(N)}


@pytest.mark.kills
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_cell_that_kills_every_worker_is_given_up(cluster: None, engine: str, tmp_path: Path) -> None:
    workers, kept = Workers(engine=engine, n_workers=1), tmp_path / "kept"
    with pytest.raises(SweepError, match="3 times"):
        run_cells(square, cells(tmp_path / "diary", deaths=9), workers=workers, kept=kept)
    assert len(pids_of(tmp_path / "diary")[2.0]) == 3
    assert len(list(kept.iterdir())) >= 1, "what was finished before is kept"


def test_an_error_of_a_cell_is_the_sweeps(workers: Workers, tmp_path: Path) -> None:
    own = [*cells(tmp_path / "diary"), Squared(-1.0, tmp_path / "diary")]
    with pytest.raises(ValueError, match=r"expected a number of 0 or more, got -1\.0"):
        run_cells(square, own, workers=workers)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"engine": "spark"}, "expected an engine out of here, local, ray, got 'spark'"),
        ({"n_workers": 0}, "expected at least one worker, got 0"),
        ({"engine": "local", "address": "auto"}, "an address is for the engine ray, got 'auto' for local"),
    ],
)
def test_wrong_workers_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(SweepError, match=message):
        Workers(**wrong)


@pytest.mark.slow
def test_a_ray_that_is_not_running_is_started_and_ended(tmp_path: Path) -> None:
    if ray.is_initialized():
        ray.shutdown()
    workers = Workers(engine="ray", n_workers=2)
    results = run_cells(square, cells(tmp_path / "diary"), workers=workers)
    assert [float(arrays["square"]) for arrays in results] == [i**2 for i in range(N)]
    assert not ray.is_initialized()


def test_a_new_program_is_run_by_one_process_at_a_time(tmp_path: Path) -> None:
    with jax_cache(tmp_path / "programs"):
        with one_compiles("some"):
            pass
        lock = tmp_path / "programs" / "some.lock"
        assert lock.read_text() == code_digest()
        with one_compiles("some"), lock.open() as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)  # what is kept is waited for by nobody
        lock.write_text("of other sources")
        with one_compiles("some"), lock.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(ValueError, match="no"), one_compiles("other"):
            raise ValueError("no")
        assert not (tmp_path / "programs" / "other.lock").read_text(), "what failed is not kept"
