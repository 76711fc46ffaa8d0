"""Fixtures of the engine's tests: queues that are closed at the end, in memory unless a test names a file."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from inferq import AsyncQueue, Backend, Clock, Executor, Settings

sys.path.insert(0, str(Path(__file__).parent))  # places.py is shared by these files, which importlib mode does not let import each other

from places import tuned

Opener = Callable[..., Awaitable[AsyncQueue]]


@pytest.fixture
async def opened() -> AsyncIterator[Opener]:
    """Opens a queue whose worker never polls; running calls are handed back at the end of the test."""
    async with AsyncExitStack() as stack:

        async def make(
            *backends: Executor | Backend,
            url: str | Path = "sqlite://:memory:",
            settings: Settings | None = None,
            work: bool = True,
            clock: Clock | None = None,
            **small: Any,
        ) -> AsyncQueue:
            chosen = settings or tuned(**small)
            queue = AsyncQueue(str(url), backends=backends, settings=chosen, work=work, clock=clock)
            await queue.start()
            stack.push_async_callback(queue.close, 0)
            return queue

        yield make
