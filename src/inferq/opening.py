"""From a URL to an open queue: its scheme says where the queue is."""

from __future__ import annotations

from inferq.config import Settings
from inferq.queue import AsyncQueue
from inferq.sync.queue import Queue


async def aconnect(url: str | None = None, *, work: bool = True, settings: Settings | None = None) -> AsyncQueue:
    """An open AsyncQueue on the store that the URL names; close it, or use it as a context manager."""
    queue = AsyncQueue(url, work=work, settings=settings)
    await queue.start()
    return queue


def connect(url: str | None = None, *, work: bool = True, settings: Settings | None = None) -> Queue:
    """An open Queue on the store that the URL names; close it, or use it as a context manager."""
    queue = Queue(url, work=work, settings=settings)
    queue.start()
    return queue
