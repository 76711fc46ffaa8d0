"""A task in the hand of a program: ask for its result, follow its stream, cancel it. Can be made again from an id, anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from datetime import timedelta
from typing import Any, Protocol

from inferq.store import LoggedChunk, Position
from inferq.task import AttemptRecord, Task, TaskResult
from inferq.waiting import Waiting

Duration = float | str | timedelta


class Door(Protocol):
    """What a handle needs of its queue."""

    async def result(self, id: str, timeout: Duration | None = None) -> TaskResult: ...
    async def wait(self, id: str, timeout: Duration | None = None) -> Task: ...
    def stream(self, id: str, after: Position = Position()) -> AsyncIterator[LoggedChunk]: ...
    async def get(self, id: str) -> Task: ...
    async def attempts(self, id: str) -> list[AttemptRecord]: ...
    async def explain(self, id: str) -> Waiting: ...
    async def set_priority(self, id: str, priority: int | str) -> None: ...
    async def cancel(self, *ids: str, reason: str = "") -> None: ...
    async def retry(self, *ids: str) -> None: ...
    def keep(self, task: asyncio.Task[Any]) -> None: ...


class AsyncHandle:
    """Await it for the result: `result = await handle`. It holds no state of the task but its id."""

    def __init__(self, queue: Door, id: str) -> None:
        self._queue = queue
        self.id = id

    def __repr__(self) -> str:
        return f"AsyncHandle({self.id!r})"

    def __await__(self) -> Generator[Any, None, TaskResult]:
        return self.result().__await__()

    async def result(self, timeout: Duration | None = None) -> TaskResult:
        """Wait for the end. Raises TaskFailed, TaskCancelled, or WaitTimeout (then the task goes on)."""
        return await self._queue.result(self.id, timeout=timeout)

    async def wait(self, timeout: Duration | None = None) -> Task:
        """Wait for the end, however it comes. Raises WaitTimeout."""
        return await self._queue.wait(self.id, timeout=timeout)

    def stream(self, after: Position = Position()) -> AsyncIterator[LoggedChunk]:
        """Every chunk after a place, logged or still to come, up to and with the `end` record. Any number may follow, from any process."""
        return self._queue.stream(self.id, after=after)

    async def text_stream(self) -> AsyncIterator[str]:
        """Only the answer's text. Text of an attempt that was thrown away is not taken back: use `stream` to see `reset` records."""
        async for logged in self.stream():
            if logged.chunk.kind in ("text", "stdout"):
                yield logged.chunk.text

    async def refresh(self) -> Task:
        """The task as it stands. Raises TaskNotFound."""
        return await self._queue.get(self.id)

    async def attempts(self) -> list[AttemptRecord]:
        """Its ended attempts, first to last. Raises TaskNotFound."""
        return await self._queue.attempts(self.id)

    async def explain(self) -> Waiting:
        """Why it waits: the gate that holds it, its position, an estimated start. Raises TaskNotFound."""
        return await self._queue.explain(self.id)

    async def set_priority(self, priority: int | str) -> None:
        """Move it while it waits. Raises WrongState, InvalidTask."""
        await self._queue.set_priority(self.id, priority)

    async def cancel(self, reason: str = "") -> None:
        """Waiting: it ends at once. Running: fenced at once and the backend call closed. Raises WrongState when it has ended."""
        await self._queue.cancel(self.id, reason=reason)

    async def retry(self) -> None:
        """Make a failed or cancelled task wait again. Raises WrongState."""
        await self._queue.retry(self.id)

    def future(self) -> asyncio.Future[TaskResult]:
        """A future of the result, for `asyncio.wait` and the like."""
        return asyncio.ensure_future(self.result())

    def add_done_callback(self, callback: Callable[[AsyncHandle], object]) -> None:
        """Call `callback(handle)` on the event loop when the task has ended, however it ended, or at once if it has.

        A queue that closes before forgets it, for the task has not ended: whoever opens the queue again asks anew.
        """

        async def call() -> None:
            await self.wait()
            callback(self)

        self._queue.keep(asyncio.create_task(call()))
