"""From reports to the posterior: decisions whose windows are over settle, and what has settled is learnt."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from bandit.learning.learner import Learner
from bandit.types import Settled
from storage import Store

SETTLE_AT_ONCE = 10_000  # decisions a transaction


class Settling:
    """Settles and learns.

    Args:
        store: The database.
        learner: Learns, where this process may.
        lock: The engine's, held for a batch at a time, so that others come in between.
        clock: Gives the time, aware.
        may_learn: Whether this process may learn.
    """

    def __init__(
        self,
        store: Store,
        learner: Learner,
        lock: threading.RLock,
        clock: Callable[[], datetime],
        *,
        may_learn: bool,
    ) -> None:
        self._store = store
        self._learner = learner
        self._lock = lock
        self._clock = clock
        self._may_learn = may_learn

    def settle_and_learn(self, at_most_s: float | None = None) -> Settled:
        """Settle what is due and learn it; see `Engine.settle`."""
        until = math.inf if at_most_s is None else time.monotonic() + at_most_s
        settled = self._settle_some()
        if settled < SETTLE_AT_ONCE:
            return Settled(settled=settled, learnt=self._learn(until))
        # The rest of a backlog settles while what has settled is learnt.
        with ThreadPoolExecutor(1, "creative-bandit settle") as aside:
            settling = aside.submit(self._settle, until)
            learnt = self._learn(until)
            rest = settling.result()
        if rest and time.monotonic() < until:
            learnt += self._learn(until)
        return Settled(settled=settled + rest, learnt=learnt)

    def _settle_some(self) -> int:
        return self._store.outcomes.settle_due(now=self._clock(), limit=SETTLE_AT_ONCE)

    def _settle(self, until: float) -> int:
        settled = 0
        while time.monotonic() < until:
            due = self._settle_some()
            settled += due
            if due < SETTLE_AT_ONCE:
                break
        return settled

    def _learn(self, until: float) -> int:
        """Learn until nothing waits, or the monotonic clock shows a time; at least one batch."""
        learnt = 0
        while self._may_learn:
            with self._lock:
                batch = self._learner.learn()
                self._learner.save_what_is_due()
            learnt += batch
            if batch == 0 or not self._learner.has_more or time.monotonic() >= until:
                break
        return learnt
