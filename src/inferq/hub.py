"""Tells those who watch: waiters for an end, followers of a stream, subscribers to events. Everything follows the same log."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Final, Generic, TypeVar

from inferq.errors import StoreClosed, TaskNotFound
from inferq.events import TERMINAL, Event
from inferq.executor import Chunk
from inferq.store import Change, Grown, LoggedChunk, Position, Store
from inferq.task import State

T = TypeVar("T", Grown, Event)

log: Final = logging.getLogger("inferq.hub")

_BOUND: Final = 4096
"""Entries that a slow follower may lag behind in memory; past it, it reads the log again instead."""


class Follower(Generic[T]):
    """A bounded mailbox of one reader. `behind` says that entries were dropped or live elsewhere: read the log."""

    __slots__ = ("_ready", "behind", "entries")

    def __init__(self) -> None:
        self.entries: deque[T] = deque()
        self.behind = False
        self._ready = asyncio.Event()

    def put(self, entry: T) -> None:
        if len(self.entries) >= _BOUND:
            self.entries.clear()
            self.behind = True
        elif not self.behind:
            self.entries.append(entry)
        self._ready.set()

    def look(self) -> None:
        """Something happened that only the log tells."""
        self.entries.clear()
        self.behind = True
        self._ready.set()

    async def wait(self) -> None:
        await self._ready.wait()
        self._ready.clear()


class Hub:
    """Listens to the store once and passes on. Belongs to one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._streams: dict[str, list[Follower[Grown]]] = {}
        self._events: list[Follower[Event]] = []
        self._callbacks: list[tuple[Callable[[str], bool], Callable[[Event], None]]] = []
        self._unlisten = store.listen(self._hear)
        self._closed = False

    def close(self) -> None:
        """Wake everybody who waits: they find the queue closed. Idempotent."""
        self._unlisten()
        self._closed = True
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.cancel()
        followers: list[Follower[Any]] = [*self._events, *(one for many in self._streams.values() for one in many)]
        for follower in followers:
            follower.look()

    def _hear(self, change: Change) -> None:
        for grown in change.streams:
            if grown.task_id:
                for follower in self._streams.get(grown.task_id, ()):
                    follower.put(grown) if grown.chunks is not None else follower.look()
            else:
                for followers in self._streams.values():
                    for follower in followers:
                        follower.look()
        if self._waiters:
            for event in change.events:
                if isinstance(event, TERMINAL):
                    self._end(event.task_id)
        if self._events:
            for event in change.events:
                for reader in self._events:
                    reader.put(event)
        if self._callbacks:
            for event in change.events:
                self._call_back(event)

    def _end(self, task_id: str) -> None:
        for waiter in self._waiters.pop(task_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _call_back(self, event: Event) -> None:
        for wanted, callback in tuple(self._callbacks):
            if wanted(event.type):
                try:
                    callback(event)
                except Exception:
                    log.exception("hub.callback_failed", extra={"event": event.type})

    # waiting for an end ------------------------------------------------------------------------------------------------

    def end_of(self, task_id: str) -> asyncio.Future[None]:
        """A future that is done when the task ends from now on. Give it back with `forget` when it is not awaited to the end."""
        waiter = self._loop.create_future()
        self._waiters.setdefault(task_id, []).append(waiter)
        return waiter

    def forget(self, task_id: str, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiters.get(task_id)
        if waiters and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[task_id]

    # following ---------------------------------------------------------------------------------------------------------

    def subscribe(self, callback: Callable[[Event], None], wanted: Callable[[str], bool]) -> Callable[[], None]:
        entry = (wanted, callback)
        self._callbacks.append(entry)

        def stop() -> None:
            if entry in self._callbacks:
                self._callbacks.remove(entry)

        return stop

    async def stream(self, task_id: str, after: Position) -> AsyncGenerator[LoggedChunk]:
        """The task's chunks after a place: first what is logged, then as they come, until its `end` record.

        Raises TaskNotFound, and StoreClosed when the queue closes before the end.
        """
        follower: Follower[Grown] = Follower()
        followers = self._streams.setdefault(task_id, [])
        followers.append(follower)
        place = after
        try:
            ended = (await self._state(task_id, TaskNotFound.of(task_id))).is_final
            follower.look()
            while not self._closed:
                await follower.wait()
                if follower.behind:
                    follower.behind = False
                    while logged := await self._store.chunks(task_id, after=place):
                        for entry in logged:
                            place = entry.position
                            yield entry
                            if entry.chunk.kind == "end":
                                return
                    if ended:
                        return
                    state = await self._state(task_id, TaskNotFound(f"task {task_id} was pruned while its stream was followed"))
                    if state.is_final and not follower.behind:
                        follower.look()
                        if not await self._store.chunks(task_id, after=place):
                            # Its end was derived from a log that has been pruned meanwhile.
                            yield LoggedChunk(Position(max(1, place.attempt), place.index + 1), Chunk("end", str(state)))
                            return
                while follower.entries and not follower.behind:
                    grown = follower.entries.popleft()
                    if not _continues(grown, place):
                        follower.look()
                        break
                    for entry in _fresh(grown, place):
                        place = entry.position
                        yield entry
            raise StoreClosed("the queue was closed while its stream was followed; open it again and go on after the last position")
        finally:
            followers.remove(follower)
            if not followers:
                self._streams.pop(task_id, None)

    async def _state(self, task_id: str, gone: TaskNotFound) -> State:
        task = await self._store.get(task_id)
        if task is None:
            raise gone
        return task.state

    async def events(self, wanted: Callable[[str], bool], after: int | None) -> AsyncGenerator[Event]:
        """Events after a position (None: from now on), from the log and then as they come."""
        follower: Follower[Event] = Follower()
        self._events.append(follower)
        try:
            place = await self._store.last_event() if after is None else after
            follower.look()
            while not self._closed:
                await follower.wait()
                if follower.behind:
                    follower.behind = False
                    while logged := await self._store.events(after=place):
                        for event in logged:
                            place = event.position
                            if wanted(event.type):
                                yield event
                while follower.entries and not follower.behind:
                    entry = follower.entries.popleft()
                    if entry.position <= place:
                        continue
                    if entry.position != place + 1:
                        follower.look()
                        break
                    place = entry.position
                    if wanted(entry.type):
                        yield entry
            raise StoreClosed("the queue was closed while its events were followed; open it again and go on after the last position")
        finally:
            self._events.remove(follower)


def _continues(grown: Grown, place: Position) -> bool:
    if grown.attempt == place.attempt:
        return grown.first <= place.index + 1
    return grown.attempt > place.attempt and grown.first == 1


def _fresh(grown: Grown, place: Position) -> Iterator[LoggedChunk]:
    """Those of its chunks that lie after the place."""
    last = place.index if grown.attempt == place.attempt else 0
    for index, chunk in enumerate(grown.chunks or (), grown.first):
        if index > last:
            yield LoggedChunk(Position(grown.attempt, index), chunk)
