"""One time limit for many waits: a timer for each would cost more than most of the waits themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

T = TypeVar("T")

_LATE: Final = "inferq: waited too long"


class Patience:
    """Bounds awaits by `seconds`. All waits are of the same length, so that they end in the order in which they began."""

    __slots__ = ("_late", "_timer", "_waiting", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, work: Awaitable[T]) -> T:
        """What `work` gives. Raises TimeoutError when it takes longer; then it was cancelled. One at a time in a task."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - inside a coroutine there is one
        self._waiting[task] = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_later(self.seconds, self._look, loop)
        try:
            return await work
        except asyncio.CancelledError:
            # Cancelled by us alone: what others asked for goes on its way.
            if task in self._late and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self._waiting.pop(task, None)
            self._late.discard(task)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._timer = None
        for task, until in self._waiting.items():
            if until > now:
                self._timer = loop.call_at(until, self._look, loop)
                return
            if task not in self._late:
                self._late.add(task)
                task.cancel(_LATE)
