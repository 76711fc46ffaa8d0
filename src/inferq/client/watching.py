"""Waiting for tasks behind a server, and following what happens there, over lost connections and restarts."""

from __future__ import annotations

import asyncio
import builtins
import logging
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

import msgspec

from inferq.client.ends import Ends
from inferq.client.follow import Patience, follow
from inferq.client.opened import Opened, task_id
from inferq.client.transport import Request, Transport, get
from inferq.door import checked_place, checked_position
from inferq.errors import InferqError, ProtocolError, WaitTimeout
from inferq.events import EVENT_TYPES, Event, type_filter
from inferq.given import checked_seconds
from inferq.handle import Duration
from inferq.store import LoggedChunk, Position
from inferq.task import Task, TaskResult
from inferq.wire.native import ChunkView, TaskView, position_from, position_text

log: Final = logging.getLogger("inferq.client")

_POLL: Final = 25.0
"""Seconds that one request waits for a task's end; longer ones are cut by proxies."""
_POLLS: Final = 16
"""Waits that have a request of their own; more share one connection."""
_TURN: Final = 1.0
"""Seconds that one of many waits has a request, where they cannot share a connection."""
_SLACK: Final = 5.0
"""Seconds beyond a wait's limit that its last answer may take."""


class Watching(Opened):
    """What of a client waits and watches."""

    _patience: float

    def __init__(self) -> None:
        super().__init__()
        self._polling = 0
        self._turns = asyncio.Semaphore(_POLLS)
        self._ends = Ends(lambda types, opened: self._events(types, None, opened), self.keep)

    async def wait(self, id: str, timeout: Duration | None = None) -> Task:
        """The task when it has ended, however. Raises WaitTimeout, TaskNotFound."""
        limit = checked_seconds(timeout, "timeout")
        try:
            async with asyncio.timeout(None if limit is None else limit + _SLACK) as scope:
                found = await self._ended(id, limit)
        except TimeoutError:
            if not scope.expired():
                raise
            found = None
        if found is None:
            raise WaitTimeout(f"task {id} has not ended within {limit:g} s; it goes on, ask again later")
        return found

    async def _ended(self, id: str, limit: float | None) -> Task | None:
        """The task when it has ended, None when it has not within the limit (seconds)."""
        loop = asyncio.get_running_loop()
        until = None if limit is None else loop.time() + limit
        bearing = Patience(self.transport, self._patience)
        while True:
            left = _POLL if until is None else min(_POLL, until - loop.time())
            if left < 0 and limit:
                return None
            asked = loop.time()
            error: InferqError | None = None
            try:
                task = await self._looked(id, max(left, 0.0))
            except InferqError as failure:
                error = failure
            else:
                bearing.relieve()
                if task.state.is_final:
                    return task
                if limit == 0:
                    return None
                if loop.time() - asked >= left / 2:
                    bearing.progress()
                    continue
            # Lost, or answered before its time, as a server does that closes: not again at once.
            await bearing.bear(error)

    async def _looked(self, id: str, wait: float) -> Task:
        """The task at its end, or after `wait` seconds."""
        if self._polling < _POLLS or not wait:
            self._polling += 1
            try:
                return await self._look(id, wait)
            finally:
                self._polling -= 1
        if self._ends.refused:
            # It shares its turns with the others that wait.
            async with self._turns:
                return await self._look(id, min(wait, _TURN))
        waiter = await self._ends.watch(id)
        try:
            task = await self._look(id, 0.0)
            if not task.state.is_final:
                done, _ = await asyncio.wait({waiter}, timeout=wait)
                task = await self._look(id, 0.0) if done else task
            return task
        finally:
            self._ends.forget(id, waiter)

    async def _look(self, id: str, wait: float) -> Task:
        request = get("tasks", task_id(id), query={"wait": round(wait, 3)})
        view = await self.transport.ask(request, TaskView, timeout=wait + self.transport.timeout)
        return view.task()

    async def _result_of(self, id: str) -> TaskResult:
        return await self.transport.ask(get("tasks", task_id(id), "result"), TaskResult)

    async def stream(self, id: str, after: Position = Position()) -> AsyncGenerator[LoggedChunk]:
        """Every chunk after a place up to and with the `end` record. Raises TaskNotFound, InvalidTask.

        A lost connection is made again and goes on after the last chunk that came.
        """
        transport = self.transport

        def request(place: str | None) -> Request:
            asked = get("tasks", task_id(id), "stream")
            return asked if place is None else msgspec.structs.replace(asked, headers={"Last-Event-ID": place})

        place = None if checked_place(after) == Position() else position_text(after)
        async with aclosing(follow(transport, request, place, patience=self._patience)) as events:
            async for event in events:
                if event.id is None:
                    continue
                logged = transport.decoded(event.data, ChunkView).logged(_position(transport, event.id))
                yield logged
                if logged.chunk.kind == "end":
                    return

    async def events(self, *types: str, after: int | None = None) -> AsyncGenerator[Event]:
        """Events after a position (None: from now on; 0: from the beginning of the log), and on as they come.

        `types` are names or patterns such as `task.*`; raises ValueError for one that fits nothing. Nothing is lost or told twice when
        the connection is.
        """
        async with aclosing(self._events(types, after)) as found:
            async for event in found:
                yield event

    async def _events(
        self, types: tuple[str, ...], after: int | None, opened: Callable[[], None] | None = None, patience: float | None = None
    ) -> AsyncGenerator[Event]:
        wanted = type_filter(types)
        transport = self.transport

        def request(place: str | None) -> Request:
            return get("events", query={"types": builtins.list(types), "after": place})

        checked_position(after)
        place = None if after is None else str(after)
        borne = self._patience if patience is None else patience
        async with aclosing(follow(transport, request, place, patience=borne, opened=opened)) as found:
            async for entry in found:
                event = _event(transport, entry.data)
                if event is not None and wanted(event.type):
                    yield event

    def subscribe(self, callback: Callable[[Event], None], *types: str) -> Callable[[], None]:
        """Call `callback` on the event loop for each event from now on; returns the way to unsubscribe.

        What this client asks for afterwards is sent once the server listens, so that no event of its own doing is missed. However long
        the server is away, nothing is missed then either.
        """
        type_filter(types)
        listening = asyncio.get_running_loop().create_future()
        self.transport.hold_for(listening)

        def opened() -> None:
            if not listening.done():
                listening.set_result(None)

        async def tell() -> None:
            try:
                async with aclosing(self._events(types, None, opened, math.inf)) as found:
                    async for event in found:
                        _tell(callback, event)
            finally:
                opened()

        task = asyncio.create_task(tell())
        self.keep(task)

        def stop() -> None:
            task.cancel()

        return stop


def _tell(callback: Callable[[Event], None], event: Event) -> None:
    try:
        callback(event)
    except Exception:
        log.exception("client.callback_failed", extra={"event": event.type})


def _position(transport: Transport, id: str) -> Position:
    try:
        return position_from(id)
    except ValueError as error:
        raise ProtocolError(f"{transport.origin} sent a stream with a wrong place: {error}") from error


def _event(transport: Transport, text: str) -> Event | None:
    """An event, or None for one of a kind that only a newer server knows."""
    try:
        return transport.decoded(text, Event)  # type: ignore[arg-type]  # a union is a type to msgspec
    except ProtocolError:
        if transport.decoded(text, _Kind).type in EVENT_TYPES:
            raise
    return None


class _Kind(msgspec.Struct):
    type: str
