"""The engine's threads: one learns what has settled, one renews the lease."""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

GATHER_S = 0.2  # how long the first settled outcome waits for others
RENEW_S = 2.0
IDLE_S = 1.0  # how often settling is looked for without any report


class Background:
    """Calls the engine's work from threads of its own until it is stopped.

    Args:
        learn: Settles and learns all there is; called soon after `wake`, and once a second.
        renew: Renews the lease.
        begin: Called once.
    """

    def __init__(
        self,
        *,
        learn: Callable[[], object] | None,
        renew: Callable[[], object],
        begin: Callable[[], object] | None,
    ) -> None:
        self._stop = threading.Event()
        self._wake = threading.Event()
        works = [(self._renewing, renew)]
        works += [(self._learning, learn)] if learn is not None else []
        works += [(_attempt, begin)] if begin is not None else []
        self._threads = [
            threading.Thread(
                target=target, args=(work,), daemon=True, name=f"creative-bandit {work.__name__}"
            )
            for target, work in works
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Say that outcomes have settled."""
        self._wake.set()

    @property
    def is_stopping(self) -> bool:
        """Whether the threads have been told to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Stop the threads and wait for them."""
        self._stop.set()
        self._wake.set()
        for thread in self._threads:
            thread.join()

    def _learning(self, work: Callable[[], object]) -> None:
        while not self._stop.is_set():
            if self._wake.wait(IDLE_S):
                self._wake.clear()
                self._stop.wait(GATHER_S)
            if not self._stop.is_set():
                _attempt(work)

    def _renewing(self, work: Callable[[], object]) -> None:
        while not self._stop.wait(RENEW_S):
            _attempt(work)


def _attempt(work: Callable[[], object]) -> None:
    """Run one round; a failure is logged and tried again in the next, for nothing is lost by it."""
    try:
        work()
    except Exception:
        logger.exception("learning failed; it is tried again")
