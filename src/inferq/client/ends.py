"""Waiting for the ends of many tasks at once over one connection: the event log is followed while anybody waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final

from inferq.errors import Forbidden, InferqError
from inferq.events import Event, TaskCancelled, TaskCompleted, TaskFailed

log: Final = logging.getLogger("inferq.client")

_TYPES: Final = ("task.completed", "task.failed", "task.cancelled")


class Ends:
    """Tells who waits for which task. `follow` gives events of some types from now on and calls back once the server listens."""

    def __init__(
        self, follow: Callable[[tuple[str, ...], Callable[[], None]], AsyncGenerator[Event]], keep: Callable[[asyncio.Task[Any]], None]
    ) -> None:
        self._follow = follow
        self._keep = keep
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._following: asyncio.Task[None] | None = None
        self._listening: asyncio.Future[None] | None = None
        self.refused = False
        """The key may not follow the event log, as a tenant's may not: everybody has to ask for itself."""

    async def watch(self, id: str) -> asyncio.Future[None]:
        """A future that is done when the task ends from now on, or when its end has to be asked for anew. Give it back with `forget`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(id, set()).add(waiter)
        try:
            if self._following is None or self._listening is None:
                self._listening = asyncio.get_running_loop().create_future()
                self._following = asyncio.create_task(self._run(self._listening))
                self._keep(self._following)
            await asyncio.shield(self._listening)
        except BaseException:
            self.forget(id, waiter)
            raise
        return waiter

    def forget(self, id: str, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiters.get(id, set())
        waiters.discard(waiter)
        if not waiters:
            self._waiters.pop(id, None)
        if not self._waiters and self._following is not None:
            self._following.cancel()
            self._following = None

    async def _run(self, listening: asyncio.Future[None]) -> None:
        def opened() -> None:
            if not listening.done():
                listening.set_result(None)

        try:
            async with aclosing(self._follow(_TYPES, opened)) as events:
                async for event in events:
                    if isinstance(event, TaskCompleted | TaskFailed | TaskCancelled):
                        self._tell(event.task_id)
        except Forbidden:
            self.refused = True
        except InferqError as error:
            log.debug("client.ends_lost", extra={"error": str(error)})
        finally:
            # Whoever still waits asks for itself, and learns what is wrong.
            if self._following is asyncio.current_task():
                self._following = None
            opened()
            for id in list(self._waiters):
                self._tell(id)

    def _tell(self, id: str) -> None:
        for waiter in self._waiters.pop(id, ()):
            if not waiter.done():
                waiter.set_result(None)
