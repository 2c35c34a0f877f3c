"""A refit that lasts longer than the lease keeps it."""

from pathlib import Path

import pytest

from tests.processes.refitting import watch

N_CONTEXTS = 30_000
LEASE_S = 4.0  # instead of 8; `make soak` has a refit that is longer than those


@pytest.mark.kills
@pytest.mark.slow
def test_a_refit_longer_than_the_lease_keeps_it(url: str, tmp_path: Path) -> None:
    figures = watch(url, tmp_path, n_contexts=N_CONTEXTS, lease_s=LEASE_S)
    print(figures)  # noqa: T201  shown when it fails
    assert figures.refit_s > figures.lease_s
