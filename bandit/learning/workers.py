"""The engine's threads: one follows other processes, one learns what has settled, one renews the lease."""

import logging
import threading
from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

GATHER_S = 0.2  # how long the first settled outcome waits for others
NOTIFIED_S = 0.05  # how long the first step of another process that was told of waits for others
RENEW_S = 2.0
IDLE_S = 1.0  # how often settling is looked for without any report
FOLLOW_EVERY_S = 0.5  # half of the second in which changes are to be seen: looking and folding take time too


class Background:
    """Calls the engine's work from threads of its own until it is stopped.

    Args:
        follow: Sees what other processes have changed; called every half a second, and soon after
            `wait_for_notification`.
        wait_for_notification: Waits at most so many seconds for a step of another process, and returns
            whether one came. None where nobody tells.
        learn: Settles and learns all there is; called soon after `wake`, and once a second.
        renew: Renews the lease.
        begin: Called once.
    """

    def __init__(
        self,
        *,
        follow: Callable[[], object] | None,
        wait_for_notification: Callable[[float], bool] | None,
        learn: Callable[[], object] | None,
        renew: Callable[[], object],
        begin: Callable[[], object] | None,
    ) -> None:
        self._stop = threading.Event()
        self._stop_renewing = threading.Event()
        self._wake = threading.Event()
        self._wait_for_notification = wait_for_notification
        works = [(self._following, follow), (self._learning, learn), (_attempt, begin)]
        self._working = [_thread(target, work) for target, work in works if work is not None]
        self._renewer = _thread(self._renewing, renew)

    def start(self) -> None:
        """Start the threads."""
        for thread in (*self._working, self._renewer):
            thread.start()

    def wake(self) -> None:
        """Say that outcomes have settled."""
        self._wake.set()

    @property
    def is_stopping(self) -> bool:
        """Whether the threads have been told to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Stop all threads but the one that renews the lease, and wait for them."""
        self._stop.set()
        self._wake.set()
        _join(self._working)

    def stop_renewing(self) -> None:
        """Stop the last one too: after the last step, or a long one would lose the lease."""
        self._stop_renewing.set()
        _join([self._renewer])

    def _following(self, work: Callable[[], object]) -> None:
        while not self._stop.is_set():
            if self._is_notified():
                self._stop.wait(NOTIFIED_S)
            if not self._stop.is_set():
                _attempt(work)

    def _is_notified(self) -> bool:
        """Wait for a step of another process, or until it is time to look; return whether one came."""
        if self._wait_for_notification is not None:
            try:
                return self._wait_for_notification(FOLLOW_EVERY_S)
            except Exception as error:
                logger.warning("nobody tells of other processes' steps, they are looked for: %s", error)
        self._stop.wait(FOLLOW_EVERY_S)
        return False

    def _learning(self, work: Callable[[], object]) -> None:
        while not self._stop.is_set():
            if self._wake.wait(IDLE_S):
                self._wake.clear()
                self._stop.wait(GATHER_S)
            if not self._stop.is_set():
                _attempt(work)

    def _renewing(self, work: Callable[[], object]) -> None:
        while not self._stop_renewing.wait(RENEW_S):
            _attempt(work)


def _thread(target: Callable[..., object], work: Callable[..., object]) -> threading.Thread:
    name = f"creative-bandit {getattr(work, '__name__', 'work')}"
    return threading.Thread(target=target, args=(work,), daemon=True, name=name)


def _join(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


def _attempt(work: Callable[[], object]) -> None:
    """Run one round; a failure is logged and tried again in the next, for nothing is lost by it."""
    try:
        work()
    except Exception:
        logger.exception("work in the background failed; it is tried again")
