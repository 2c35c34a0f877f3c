"""A refit that lasts longer than the lease: made long by its data, and watched by another process."""

import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bandit import Creative, Engine, HistoryRow
from bandit.engine import utc_now
from bandit.learning import workers as background
from bandit.warm_start.importer import History, import_history
from storage import Store
from tests.bandit.engines import wait_for
from tests.bandit.inspect import model_of, store_of
from tests.paths import TINY
from tests.processes.forked import start
from tests.processes.worker import CAMPAIGN
from tests.storage.sql import fetch

LOOKS_EVERY_S = 0.1
LEASE_S = 8.0
PATIENCE_S = 300.0


class Figures(NamedTuple):
    """How long a refit and the lease lasted, in seconds, and how often another one asked for the lease."""

    refit_s: float
    lease_s: float
    asked: int


def refit(url: str, notes: Path, n_contexts: int, lease_s: float | None) -> None:
    """Import counts of many contexts and fit them, more each time until a fit lasts; then wait to be killed.

    Args:
        url: A migrated database.
        notes: Gets a line when the fits begin, and one with the seconds of the last when it ended.
        n_contexts: How many there are of them at first; each is a row of the fit.
        lease_s: Shorter than the lease is; renewed four times as often. None leaves it as it is.
    """
    engine = Engine.open(url, encoder=TINY, learn="manual")
    if lease_s is not None:
        background.RENEW_S = lease_s / 4
        leases = store_of(engine).leases
        leases.renew = partial(leases.renew, ttl_s=lease_s)  # type: ignore[method-assign]
    engine.add_campaign(CAMPAIGN)
    creatives = [Creative(name, headline=f"the {name} one") for name in ("calm", "urgent")]
    with notes.open("a") as file:
        print("begins", file=file, flush=True)
        known, wanted, took = 0, n_contexts, 0.0
        while took <= (LEASE_S if lease_s is None else lease_s):
            rows = [
                HistoryRow(
                    campaign=CAMPAIGN,
                    creative=creatives[i % 2],
                    impressions=10,
                    clicks=i % 3,
                    context={"age": float(i)},
                )
                for i in range(known, wanted)
            ]
            import_history(store_of(engine), model_of(engine), History(rows=rows), now=utc_now())
            began = time.monotonic()
            engine.refit()
            took = time.monotonic() - began
            known, wanted = wanted, 3 * wanted
        print(f"ended {took}", file=file, flush=True)
    time.sleep(PATIENCE_S)


def watch(url: str, folder: Path, *, n_contexts: int, lease_s: float | None) -> Figures:
    """Let a process refit and ask for its lease meanwhile; that it is given is an AssertionError."""
    notes = folder / "refit"
    notes.touch()
    process = start(refit, url, notes, n_contexts, lease_s)
    try:
        wait_for(lambda: "begins" in notes.read_text(), at_most_s=PATIENCE_S)
        ((number, owner),) = fetch(url, "SELECT number, owner FROM leases")
        asked = 0
        with Store.open(url) as store:
            model_id = store.models.get().model_id
            while "ended" not in notes.read_text():
                assert store.leases.acquire(model_id, "another") is None
                asked += 1
                time.sleep(LOOKS_EVERY_S)
            assert store.leases.acquire(model_id, "another") is None
        assert fetch(url, "SELECT number, owner FROM leases") == [(number, owner)]
        assert fetch(url, "SELECT kind FROM learn_log ORDER BY step DESC LIMIT 1") == [("refit",)]
    finally:
        process.kill()
        process.join()
    refit_s = float(notes.read_text().split()[-1])
    return Figures(refit_s, LEASE_S if lease_s is None else lease_s, asked)
