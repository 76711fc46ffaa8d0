"""A task in the hand of a program without an event loop."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from inferq.handle import AsyncHandle, Duration
from inferq.store import LoggedChunk, Position
from inferq.task import AttemptRecord, Task, TaskResult
from inferq.waiting import Waiting

if TYPE_CHECKING:
    from inferq.sync.submitting import Submitting


class Handle:
    """Ask for its result, follow its stream, cancel it; can be made again from an id. See AsyncHandle."""

    __slots__ = ("_queue", "id")

    def __init__(self, queue: Submitting[Any], id: str) -> None:
        self._queue = queue
        self.id = id

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"

    def result(self, timeout: Duration | None = None) -> TaskResult:
        """Wait for the end. Raises TaskFailed, TaskCancelled, or WaitTimeout (then the task goes on)."""
        return self._queue.result(self.id, timeout=timeout)

    def wait(self, timeout: Duration | None = None) -> Task:
        """Wait for the end, however it comes. Raises WaitTimeout."""
        return self._queue.wait(self.id, timeout=timeout)

    def stream(self, after: Position = Position()) -> Iterator[LoggedChunk]:
        """Every chunk after a place, logged or still to come, up to and with the `end` record."""
        return self._queue.stream(self.id, after=after)

    def text_stream(self) -> Iterator[str]:
        """Only the answer's text."""
        for logged in self.stream():
            if logged.chunk.kind in ("text", "stdout"):
                yield logged.chunk.text

    def refresh(self) -> Task:
        """The task as it stands. Raises TaskNotFound."""
        return self._queue.get(self.id)

    def attempts(self) -> list[AttemptRecord]:
        """Its ended attempts, first to last. Raises TaskNotFound."""
        return self._queue.attempts(self.id)

    def explain(self) -> Waiting:
        """Why it waits: the gate that holds it, its position, an estimated start. Raises TaskNotFound."""
        return self._queue.explain(self.id)

    def set_priority(self, priority: int | str) -> None:
        """Move it while it waits. Raises WrongState, InvalidTask."""
        self._queue.set_priority(self.id, priority)

    def cancel(self, reason: str = "") -> None:
        """Waiting: it ends at once. Running: fenced at once and the backend call closed. Raises WrongState when it has ended."""
        self._queue.cancel(self.id, reason=reason)

    def retry(self) -> None:
        """Make a failed or cancelled task wait again. Raises WrongState."""
        self._queue.retry(self.id)

    def future(self) -> concurrent.futures.Future[TaskResult]:
        """A future of the result, for `concurrent.futures.wait` and the like."""
        return self._queue.begin(self._queue.asynchronous.result(self.id))

    def add_done_callback(self, callback: Callable[[Handle], object]) -> None:
        """Call `callback(handle)` from the queue's callback thread when the task has ended, however it ended."""

        async def add() -> None:
            AsyncHandle(self._queue.asynchronous, self.id).add_done_callback(lambda _: self._queue.tell(callback, self))

        self._queue.call(add())
