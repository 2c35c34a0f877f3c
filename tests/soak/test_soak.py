"""The kill test at length: run by `make soak`, never by a plain pytest.

SOAK_RUNS runs of SOAK_SECONDS seconds on each database; their figures are printed and appended to SOAK_FILE,
one JSON object a line.
"""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.processes.killing import kill_and_check

RUNS = int(os.environ.get("SOAK_RUNS", "20"))
SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
FILE = Path(os.environ.get("SOAK_FILE", "soak.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(RUNS))
def test_kills(url: str, tmp_path: Path, seed: int) -> None:
    began = datetime.now(UTC).isoformat(timespec="seconds")
    figures = kill_and_check(url, tmp_path, seconds=SECONDS, seed=seed)
    about = {"began": began, "database": url.partition(":")[0], "machine": platform.machine()}
    line = json.dumps({**about, "cores": os.cpu_count(), **figures._asdict()})
    print(line)  # noqa: T201  the figures are what it is run for
    with FILE.open("a") as file:
        file.write(line + "\n")
