"""Processes that start quickly: forked from one that has imported everything and has no threads."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess

from sqlalchemy import event

from storage.database.session import Database
from tests.bandit.inspect import connection_pool_of

PRELOADED = "tests.processes.worker"


def start(work: Callable[..., None], *given: object) -> ForkServerProcess:
    """Run a function of a module in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    process = context.Process(target=work, args=given, daemon=True)
    process.start()
    return process


def after_statements(database: Database, beginning: str, act: Callable[[], None]) -> None:
    """Call a function, in this process, after each statement of a write transaction that begins so."""

    def look(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(beginning):
            act()

    event.listen(connection_pool_of(database), "after_cursor_execute", look)
