"""Waiting for tasks to end, following their streams, hearing of events, blocking or from a callback thread."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from inferq.door import Reaction
from inferq.events import Event
from inferq.handle import Duration
from inferq.store import LoggedChunk, Position
from inferq.sync.life import D, Life
from inferq.task import Task, TaskResult


class Watching(Life[D]):
    """What takes as long as it takes; whoever stops waiting stops no task."""

    def wait(self, id: str, timeout: Duration | None = None) -> Task:
        """The task when it has ended, however. Raises WaitTimeout, TaskNotFound."""
        return self.call(self.asynchronous.wait(id, timeout=timeout))

    def result(self, id: str, timeout: Duration | None = None) -> TaskResult:
        """The result when it is there. Raises TaskFailed, TaskCancelled, WaitTimeout, TaskNotFound."""
        return self.call(self.asynchronous.result(id, timeout=timeout))

    def idle(self, timeout: Duration | None = None, told: Callable[[int], object] | None = None) -> None:
        """Return when no task runs, in any process; `told` is called with how many still do. Raises WaitTimeout."""
        self.call(self.asynchronous.idle(timeout, None if told is None else functools.partial(self.tell, told)))

    def stream(self, id: str, after: Position = Position()) -> Iterator[LoggedChunk]:
        """Every chunk after a place up to and with the `end` record. Raises TaskNotFound."""
        return self._background.iterate(self.asynchronous.stream(id, after=after))

    def events(self, *types: str, after: int | None = None) -> Iterator[Event]:
        """Events after a position (None: from now on), and on as they come; blocks until the next one."""
        return self._background.iterate(self.asynchronous.events(*types, after=after))

    def subscribe(self, callback: Callable[[Event], None], *types: str) -> Callable[[], None]:
        """Call `callback` from the queue's callback thread for each event from now on, in order; returns the way to unsubscribe."""

        async def add() -> Callable[[], None]:
            return self.asynchronous.subscribe(functools.partial(self.tell, callback), *types)

        stop = self.call(add())

        return lambda: self._background.soon(stop)

    def on(self, *types: str, query: str = "") -> Callable[[Reaction], Reaction]:
        """As a decorator: call the function from the queue's callback thread for each such event from now on, as long as the queue is open.

            @queue.on("task.failed", query="tag:billing")
            def alert(event): ...

        `types` are as in `events`; `query` is a filter (docs/filters.md) that the event's task must pass. Raises ValueError, InvalidQuery.
        """

        def add(reaction: Reaction) -> Reaction:
            async def enter() -> None:
                self.asynchronous.on(*types, query=query)(functools.partial(self.tell, reaction))

            self.call(enter())
            return reaction

        return add
