"""Sweeps: the same numbers on every engine, finished cells are kept, a dead worker costs only its cell."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

from simulations.cells import ENGINES, SweepError, Workers, run_cells
from tests.simulations.cell_work import Squared, pids_of, square

N = 6


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


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_worker_that_is_killed_costs_only_its_cell(cluster: None, engine: str, tmp_path: Path) -> None:
    workers = Workers(engine=engine, n_workers=2)
    results = run_cells(square, cells(tmp_path / "diary", deaths=1), workers=workers)
    assert [float(arrays["square"]) for arrays in results] == [i**2 for i in range(N)]
    times = {number: len(pids) for number, pids in pids_of(tmp_path / "diary").items()}
    assert times == {float(i): 1 + (i == 2) for i in range(N)}


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


def test_a_ray_that_is_not_running_is_started_and_ended(tmp_path: Path) -> None:
    if ray.is_initialized():
        ray.shutdown()
    workers = Workers(engine="ray", n_workers=2)
    results = run_cells(square, cells(tmp_path / "diary"), workers=workers)
    assert [float(arrays["square"]) for arrays in results] == [i**2 for i in range(N)]
    assert not ray.is_initialized()
