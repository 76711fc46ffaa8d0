"""Opening and closing a queue, and the background tasks that it owns meanwhile."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import Any, Final, Self

from inferq.clock import Clock
from inferq.handle import Duration

log: Final = logging.getLogger("inferq.queue")


class Life(ABC):
    """Open it with `async with`, or with `start` and `close`."""

    _clock: Clock

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abstractmethod
    async def start(self) -> None:
        """Open it. Idempotent."""

    @abstractmethod
    async def close(self, grace: Duration | None = None) -> None:
        """Give back what it holds. Idempotent."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the queue is: a store's URL or a server's address, without secrets."""

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Own a background task: it is awaited or cancelled when the queue closes, and what it raises is logged."""
        self._tasks.add(task)
        task.add_done_callback(self._dropped)

    def _dropped(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("queue.background_failed", exc_info=error)

    async def _drop_all(self) -> None:
        """Cancel the background tasks and wait for them."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
