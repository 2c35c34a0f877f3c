"""Work for sweeps in tests: other processes must find it in a module."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulations.sweep import Arrays


@dataclass(frozen=True)
class Squared:
    """A cell that writes down each time it is computed.

    Attributes:
        number: what is squared.
        diary: the folder of its marks.
        deaths: how many workers it ends before it gives a number.
    """

    number: float
    diary: Path
    deaths: int = 0

    @property
    def identity(self) -> dict[str, object]:
        return {"number": self.number}


def square(cell: Squared) -> Arrays:
    mark = cell.diary / f"{cell.number}"
    with mark.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if len(mark.read_text().splitlines()) <= cell.deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    if cell.number < 0:
        raise ValueError(f"expected a number of 0 or more, got {cell.number}")
    return {"square": np.asarray(cell.number**2), "steps": np.arange(int(cell.number))}


def pids_of(diary: Path) -> dict[float, list[int]]:
    """Return who computed each number, in order."""
    return {float(mark.name): [int(pid) for pid in mark.read_text().splitlines()] for mark in diary.iterdir()}
