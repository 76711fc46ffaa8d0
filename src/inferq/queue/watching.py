"""Waiting for tasks of a queue in this process and hearing of its events: its hub listens to every commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from inferq.door import checked_place, checked_position
from inferq.errors import StoreClosed, TaskNotFound, WaitTimeout
from inferq.events import Event, type_filter
from inferq.given import checked_seconds
from inferq.handle import Duration
from inferq.queue.opened import Opened
from inferq.store import LoggedChunk, Position
from inferq.task import Task, TaskResult


class Watching(Opened):
    """Results when they are there, streams as they grow, events as they are committed."""

    async def wait(self, id: str, timeout: Duration | None = None) -> Task:
        """The task when it has ended, however. Raises WaitTimeout, TaskNotFound."""
        limit = checked_seconds(timeout, "timeout")
        waiter = self._open_hub.end_of(id)
        try:
            task = await self.get(id)
            if task.state.is_final:
                return task
            async with asyncio.timeout(limit):
                await waiter
        except TimeoutError:
            raise WaitTimeout(f"task {id} has not ended within {limit:g} s; it goes on, ask again later") from None
        except asyncio.CancelledError:
            if waiter.cancelled():
                raise StoreClosed("the queue was closed while waiting; the task goes on when it is opened again") from None
            raise
        finally:
            self._forget(id, waiter)
        return await self.wait(id, timeout=timeout)

    def _forget(self, id: str, waiter: asyncio.Future[None]) -> None:
        if self._hub is not None:
            self._hub.forget(id, waiter)

    async def _result_of(self, id: str) -> TaskResult:
        found = await self.store.result(id)
        if found is None:
            raise TaskNotFound(f"the result of task {id} is gone: it was pruned")
        return found

    def stream(self, id: str, after: Position = Position()) -> AsyncGenerator[LoggedChunk]:
        """Every chunk after a place up to and with the `end` record. Raises TaskNotFound, InvalidTask."""
        return self._open_hub.stream(id, checked_place(after))

    async def events(self, *types: str, after: int | None = None) -> AsyncGenerator[Event]:
        """Events after a position (None: from now on; 0: from the beginning of the log), and on as they come.

        `types` are names or patterns such as `task.*`; raises ValueError for one that fits nothing.
        """
        async with aclosing(self._open_hub.events(type_filter(types), checked_position(after))) as found:
            async for event in found:
                yield event

    def subscribe(self, callback: Callable[[Event], None], *types: str) -> Callable[[], None]:
        """Call `callback` on the event loop for each event from now on; returns the way to unsubscribe."""
        return self._open_hub.subscribe(callback, type_filter(types))
