"""A process that serves traffic until it is killed, and notes every answer that it got in a file of its own.

Its ids are its name and a number, so that the one that is started after it asks again what had no answer, as
a caller would; everything else follows from the number.
"""

import os
import signal
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from threading import Event

from bandit import Engine, StorageError
from tests.bandit.inspect import database_of, store_of
from tests.paths import TINY
from tests.processes.forked import after_statements

CAMPAIGN = "spring"
PAUSE_S = 0.05  # after an error, before the same is asked again


def serve(url: str, notes: Path, stops_after: str = "") -> None:
    """Select and report one impression after the other; the file's name is the worker's.

    Lines are "decided ID CREATIVE VERSION", "reported ID CLICK CONVERSIONS", "failed ID ERROR", "stops PID".

    Args:
        url: A migrated database with the campaign.
        notes: Where every answer is noted.
        stops_after: The beginning of a statement. After SIGUSR1 the process stops, as by SIGSTOP, when it has
            run the next of them: inside a transaction that has locked what the statement writes.
    """
    engine = Engine.open(url, encoder=TINY)
    # One write of a few bytes to a file opened for appending is there whole, or not at all.
    file = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(*words: object) -> None:
        os.write(file, (" ".join(map(str, words)) + "\n").encode())

    if stops_after:
        stop_after(engine, stops_after, lambda: note("stops", os.getpid()))
    number = reported_in(notes)
    while True:
        name = f"{notes.stem}-{number}"
        try:
            decision = engine.select(CAMPAIGN, context(number), decision_id=name)
            note("decided", name, decision.creative_id, decision.model_version)
            note("reported", name, *report(engine, name, number))
        except StorageError as error:
            note("failed", name, " ".join(str(error).split()))
            time.sleep(PAUSE_S)
        else:
            number += 1


def stop_after(engine: Engine, beginning: str, say: Callable[[], None]) -> None:
    """Let SIGUSR1 bring about that this process stops inside a transaction, once."""
    is_armed = Event()

    def stop() -> None:
        if is_armed.is_set():
            is_armed.clear()
            say()
            os.kill(os.getpid(), signal.SIGSTOP)

    after_statements(database_of(store_of(engine)), beginning, stop)
    signal.signal(signal.SIGUSR1, lambda *_: is_armed.set())


def report(engine: Engine, name: str, number: int) -> tuple[int, int]:
    """Report the outcomes of a decision, some of them twice; return its click and its conversions."""
    # Not a function of the context: clicks are to be what they are in life, not told by the device.
    click, n_orders = zlib.crc32(name.encode()) % 4 == 0, number % 5 // 3
    for order in range(n_orders):
        engine.update(name, conversion=True, value=2.0, key=f"order-{order}")
    for _ in range(1 + (number % 7 == 0)):
        engine.update(name, click=click)
    return int(click), n_orders


def context(number: int) -> dict[str, str | float | bool]:
    """Return the context of a worker's request."""
    return {"device": ("mobile", "desktop", "tablet")[number % 3], "hour": float(number % 24)}


def reported_in(notes: Path) -> int:
    """Count the decisions whose reports were answered."""
    return sum(line.startswith("reported ") for line in notes.read_text().splitlines())
