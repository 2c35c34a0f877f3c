"""Rows that are committed after the answer: the queue of durability "relaxed", and its thread."""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar, final

from storage.errors import DATABASE_ERRORS, BacklogLostError

Row = TypeVar("Row")

logger = logging.getLogger(__name__)

# Rows: what a killed process can lose, and at 2 kB each what they take of memory. One call may have more.
MOST_WAITING: Final = 8_192
MOST_AT_ONCE: Final = 1_024  # rows a transaction
TRY_AGAIN_S: Final = 1.0


@final
class WriteBehindQueue(Generic[Row]):
    """Commits rows in the background, in the order in which they came.

    While the database fails, rows stay and are tried again once a second; every failure is logged, and raised
    at the next call. A row that the database refuses whatever is tried is given up, which is told likewise.

    Args:
        commit: Stores rows in one transaction, all or none; what was stored already stays as it is.
        name_of: Gives the id of a row.
        most: How many rows may wait; more are not taken until enough are committed. Those of one call that
            has more wait alone.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Row]], object],
        name_of: Callable[[Row], str],
        *,
        most: int = MOST_WAITING,
    ) -> None:
        self._commit = commit
        self._name_of = name_of
        self._most = most
        self._changed = threading.Condition()
        self._waiting: dict[str, Row] = {}
        self._failure: Exception | None = None
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def add(self, rows: Sequence[Row]) -> None:
        """Take rows whose ids are in no one else's hands; waits while there are too many.

        Raises:
            StorageError: An earlier commit failed; these rows were not taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or self._has_room(len(rows)))
            self._tell()
            self._waiting.update((self._name_of(row), row) for row in rows)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="creative-bandit commit")
                self._thread.start()
            self._changed.notify_all()

    def wait_for(self, names: Iterable[str]) -> None:
        """Wait until the rows of these ids are committed; others are not waited for.

        Raises:
            StorageError: A commit failed meanwhile.
        """
        if not self._waiting:  # nearly always; a row of ours was added before we were called
            return
        wanted = list(names)
        with self._changed:
            self._changed.wait_for(
                lambda: self._failure is not None or not any(name in self._waiting for name in wanted)
            )
            self._tell()

    def flush(self) -> None:
        """Wait until all that was added is committed.

        Raises:
            StorageError: A commit failed; what was not given up stays, and is tried again.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or not self._waiting)
            self._tell()

    def close(self) -> None:
        """Commit what waits, and stop the thread.

        Raises:
            StorageError: It could not be committed; says how many rows are lost.
        """
        with self._changed:
            self._failure = self._failure if isinstance(self._failure, BacklogLostError) else None
        try:
            self.flush()
        except DATABASE_ERRORS as error:
            lost = len(self._waiting)
            raise BacklogLostError(
                f"{lost} decisions that were answered could not be stored, and are lost: {error}"
            ) from error
        finally:
            with self._changed:
                self._is_closed = True
                self._changed.notify_all()
            if self._thread is not None:
                self._thread.join()

    def _has_room(self, n: int) -> bool:
        return not self._waiting or len(self._waiting) + n <= self._most

    def _tell(self) -> None:
        """Raise the failure that nobody was told yet; the condition is held."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or bool(self._waiting))
                if self._is_closed:
                    return
                rows = [row for row, _ in zip(self._waiting.values(), range(MOST_AT_ONCE), strict=False)]
            try:
                failure = self._store(rows)
            except DATABASE_ERRORS as error:
                logger.warning("%d decisions are not stored yet, it is tried again: %s", len(rows), error)
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._is_closed, TRY_AGAIN_S)
                continue
            with self._changed:
                for row in rows:
                    del self._waiting[self._name_of(row)]
                if failure is not None or not isinstance(self._failure, BacklogLostError):
                    self._failure = failure  # what the database could not do before is done now
                self._changed.notify_all()

    def _store(self, rows: Sequence[Row]) -> Exception | None:
        """Commit rows; one that can never be stored is given up, and the error returned."""
        try:
            self._commit(rows)
        except DATABASE_ERRORS:
            raise
        except Exception as error:
            if len(rows) > 1:
                failures = [self._store([row]) for row in rows]
                return next((failure for failure in failures if failure is not None), None)
            name = self._name_of(rows[0])
            logger.exception("decision %r is refused, and lost", name)
            lost = BacklogLostError(f"decision {name!r} was answered and could not be stored: {error}")
            lost.__cause__ = error
            return lost
        return None
