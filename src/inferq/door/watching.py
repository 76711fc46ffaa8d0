"""Waiting for tasks to end, following their streams, hearing of events."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Final, TypeVar

from inferq.door.asking import Asking
from inferq.errors import TaskCancelled, TaskFailed, TaskNotFound, WaitTimeout
from inferq.events import Event
from inferq.given import checked_seconds
from inferq.handle import Duration
from inferq.query import Query, matches, parse, search
from inferq.store import LoggedChunk, Position
from inferq.task import State, Task, TaskResult

_LOOKS: Final = (0.05, 0.1, 0.2, 0.5)
"""Seconds between two looks at a queue that is to become idle."""
Reaction = TypeVar("Reaction", bound=Callable[[Event], object])


class Watching(Asking):
    """What takes as long as it takes; whoever stops waiting stops no task."""

    @abstractmethod
    async def wait(self, id: str, timeout: Duration | None = None) -> Task:
        """The task when it has ended, however. Raises WaitTimeout, TaskNotFound."""

    async def result(self, id: str, timeout: Duration | None = None) -> TaskResult:
        """The result when it is there. Raises TaskFailed, TaskCancelled, WaitTimeout, TaskNotFound."""
        task = await self.wait(id, timeout=timeout)
        if task.state is State.COMPLETED:
            return await self._result_of(id)
        if task.state is State.CANCELLED:
            why = f": {task.error}" if task.error else ""
            raise TaskCancelled(f"task {id} was cancelled{why}", task_id=id, reason=task.error)
        tries = "1 attempt" if task.attempt == 1 else f"{task.attempt or 'no'} attempts"
        raise TaskFailed(
            f"task {id} failed after {tries} with {task.code}: {task.error}",
            task_id=id,
            failure=task.code or "internal",
            attempts=task.attempt,
        )

    @abstractmethod
    async def _result_of(self, id: str) -> TaskResult:
        """The result of a completed task. Raises TaskNotFound when it was pruned."""

    async def idle(self, timeout: Duration | None = None, told: Callable[[int], object] | None = None) -> None:
        """Return when no task runs, in any process; `told` is called with how many still do. Raises WaitTimeout."""
        limit = checked_seconds(timeout, "timeout")
        looks = 0
        try:
            async with asyncio.timeout(limit):
                while running := (await self.stats()).states["running"]:
                    if told is not None:
                        told(running)
                    await asyncio.sleep(_LOOKS[min(looks, len(_LOOKS) - 1)])
                    looks += 1
        except TimeoutError:
            raise WaitTimeout(f"tasks still ran after {limit:g} s; they go on, ask again later") from None

    @abstractmethod
    def stream(self, id: str, after: Position = Position()) -> AsyncGenerator[LoggedChunk]:
        """Every chunk after a place up to and with the `end` record. Raises TaskNotFound, InvalidTask."""

    @abstractmethod
    def events(self, *types: str, after: int | None = None) -> AsyncGenerator[Event]:
        """Events after a position (None: from now on; 0: from the beginning of the log), and on as they come.

        `types` are names or patterns such as `task.*`; raises ValueError for one that fits nothing, InvalidTask for what is no position.
        """

    @abstractmethod
    def subscribe(self, callback: Callable[[Event], None], *types: str) -> Callable[[], None]:
        """Call `callback` on the event loop for each event from now on; returns the way to unsubscribe."""

    def on(self, *types: str, query: str = "") -> Callable[[Reaction], Reaction]:
        """As a decorator: call the function for each such event from now on, in this process, as long as the queue is open.

            @queue.on("task.failed", query="tag:billing")
            async def alert(event): ...

        `types` are as in `events`; `query` is a filter (docs/filters.md) that the event's task must pass. A coroutine function is awaited
        beside. Messages that survive a crash of this program are webhooks. Raises ValueError, InvalidQuery.
        """
        asked = parse(query) if query else None
        if asked is not None:
            search(asked, self._clock.read().wall)

        def add(reaction: Reaction) -> Reaction:
            def told(event: Event) -> None:
                if asked is None:
                    self._react(reaction, event)
                elif getattr(event, "task_id", ""):
                    self.keep(asyncio.create_task(judged(event, asked)))

            async def judged(event: Event, asked: Query) -> None:
                try:
                    task = await self.get(getattr(event, "task_id", ""))
                except TaskNotFound:
                    return
                if matches(task, search(asked, self._clock.read().wall)):
                    self._react(reaction, event)

            self.subscribe(told, *types)
            return reaction

        return add

    def _react(self, reaction: Callable[[Event], object], event: Event) -> None:
        answer = reaction(event)
        if isinstance(answer, Coroutine):
            self.keep(asyncio.create_task(answer))
