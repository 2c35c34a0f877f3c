"""`learn`: a process that learns, and does nothing else."""

import signal
import threading
import time
from typing import TYPE_CHECKING, Annotated

import typer

from bandit.cli.opening import opened_store
from bandit.cli.options import example, group
from bandit.cli.printing import print_line

if TYPE_CHECKING:
    from bandit.engine import Engine

LOOK_EVERY_S = 0.2
TELL_EVERY_S = 10.0

app = group()


@app.command(epilog=example("learn ads.db", "learn postgresql://user@host/database"))
def learn(
    database: Annotated[str, typer.Argument(metavar="DATABASE", help="An SQLite file or a URL.")],
) -> None:
    """Learn what has settled, until Ctrl-C or SIGTERM; it ends with a snapshot.

    Of all processes that may learn a database one does; this one waits while another does, and takes over
    within 10 seconds of its end.
    """
    # Before JAX is imported, which takes seconds.
    with opened_store(database):
        pass
    from bandit.engine import Engine

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # Learning is done here, not by a thread, so that a failure ends the command with its message.
    with Engine.open(database, role="learn", learn="manual") as engine:
        _learn_until(stop, engine)
    print_line("stopped; what was learnt is stored")


def _learn_until(stop: threading.Event, engine: "Engine") -> None:
    state = ""
    settled = learnt = 0
    told_at = time.monotonic()
    while not stop.is_set():
        done = engine.settle(at_most_s=1.0)
        settled, learnt = settled + done.settled, learnt + done.learnt
        now = "this process learns"
        if not engine.is_learner:
            now = f"{engine.learner or 'nobody'} learns; waiting to take over"
        if now != state:
            state = now
            print_line(state)
        if learnt and time.monotonic() - told_at >= TELL_EVERY_S:
            print_line(f"learnt {learnt:,} decisions, settled {settled:,} by the clock")
            settled, learnt, told_at = 0, 0, time.monotonic()
        if not done.learnt:
            stop.wait(LOOK_EVERY_S)
    if learnt:
        print_line(f"learnt {learnt:,} decisions, settled {settled:,} by the clock")
