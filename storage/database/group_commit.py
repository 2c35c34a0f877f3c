"""GroupCommit: what many threads ask for at the same time is done as one piece of work."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar, final

from storage.errors import DATABASE_ERRORS

Call = TypeVar("Call")
Answer = TypeVar("Answer")

MOST_TOGETHER: Final = 1024  # units in one group; a call that has more is alone


@final
class GroupCommit(Generic[Call, Answer]):
    """Groups calls without a timer: one thread leads, takes what is queued, and does it for all.

    Who finds nobody leading leads at once, so a single thread never waits. The others queue meanwhile, and
    when the leader has done its group, the first of them leads the next one.

    Args:
        work: Does calls in their order, all or none, and returns an answer for each. It must give the same
            answer when a call that was done already is done again.
        size: The units of a call; a group has at most `MOST_TOGETHER` of them.
        shared_errors: Errors that have nothing to do with any one call; they reach every member of a group.
            After another error the members are done one by one, and each gets what it would get alone.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Call]], Sequence[Answer]],
        *,
        size: Callable[[Call], int] = lambda _: 1,
        shared_errors: tuple[type[Exception], ...] = DATABASE_ERRORS,
    ) -> None:
        self._work = work
        self._size = size
        self._shared_errors = shared_errors
        self._lock = threading.Lock()
        self._queue: deque[_Member[Any, Any]] = deque()
        self._is_led = False

    def run(self, call: Call) -> Answer:
        """Do a call, together with those of other threads.

        Returns:
            What `work` returned for it.

        Raises:
            Exception: What `work` raised for it alone, or an error that all of its group share.
        """
        me: _Member[Call, Answer] = _Member(call)
        with self._lock:
            me.leads = not self._is_led
            self._is_led = True
            if not me.leads:
                self._queue.append(me)
        if not me.leads:
            self._wait(me)
        if me.leads:
            self._lead(me)
        if me.error is not None:
            raise me.error
        answer: Answer = me.answer
        return answer

    def _wait(self, me: "_Member[Call, Answer]") -> None:
        """Wait until a leader has done our call, or made us the next leader."""
        try:
            me.woken.acquire()
        except BaseException:  # interrupted: nobody may wait for us to lead
            with self._lock:
                if me in self._queue:
                    self._queue.remove(me)
                elif me.leads:
                    self._pass_on()
            raise

    def _lead(self, me: "_Member[Call, Answer]") -> None:
        """Do the calls that are queued with ours, and let the next one lead."""
        group = [me]
        try:
            with self._lock:
                n = self._size(me.call)
                while self._queue and (n := n + self._size(self._queue[0].call)) <= MOST_TOGETHER:
                    group.append(self._queue.popleft())
            self._do(group)
        except BaseException:  # such as an interrupt: the next leader does what was begun for others
            with self._lock:
                self._queue.extendleft(member for member in reversed(group[1:]) if not member.is_done)
            raise
        finally:
            with self._lock:
                self._pass_on()
            for member in group[1:]:
                if member.is_done:
                    member.woken.release()

    def _pass_on(self) -> None:
        """Make the first in the queue the leader; the lock is held."""
        self._is_led = bool(self._queue)
        if self._queue:
            member = self._queue.popleft()
            member.leads = True
            member.woken.release()

    def _do(self, group: "Sequence[_Member[Call, Answer]]") -> None:
        try:
            answers = self._work([member.call for member in group])
        except self._shared_errors as error:
            for member in group:
                # An error of its own: one that several threads raise gathers all of their tracebacks.
                own = error if member is group[0] else type(error)(*error.args)
                own.__cause__ = error.__cause__ if own is error else error
                member.fail(own)
        except Exception as error:
            if len(group) == 1:
                group[0].fail(error)
                return
            for member in group:
                self._do([member])
        else:
            for member, answer in zip(group, answers, strict=True):
                member.succeed(answer)


class _Member(Generic[Call, Answer]):
    """A call in a group, and what became of it."""

    __slots__ = ("answer", "call", "error", "is_done", "leads", "woken")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.leads = False
        self.woken = threading.Lock()
        self.woken.acquire()
        self.is_done = False
        self.answer: Any = None
        self.error: Exception | None = None

    def succeed(self, answer: Answer) -> None:
        self.answer = answer
        self.is_done = True

    def fail(self, error: Exception) -> None:
        self.error = error
        self.is_done = True
