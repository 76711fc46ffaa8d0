"""A blocking queue opened and closed, and the loop behind it on which its asynchronous door lives."""

from __future__ import annotations

import concurrent.futures
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Self, TypeVar

from inferq.door import AsyncDoor
from inferq.errors import StoreClosed
from inferq.handle import Duration
from inferq.sync.background import Background

T = TypeVar("T")
D = TypeVar("D", bound=AsyncDoor)


class Life(ABC, Generic[D]):
    """Open it with `with`, or with `start` and `close`."""

    def __init__(self) -> None:
        self._background = Background("inferq-queue")
        self._door: D | None = None

    @abstractmethod
    def _make(self) -> D:
        """The asynchronous door; called on the loop that it will belong to."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def asynchronous(self) -> D:
        """The door that does the work, on this one's own loop. Raises StoreClosed."""
        if self._door is None:
            raise StoreClosed(f"expected an open queue; use `with {type(self).__name__}(...)` or call start() first")
        return self._door

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start a coroutine on the queue's loop."""
        return self._background.begin(coroutine)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the queue's loop and wait; Ctrl-C cancels it."""
        return self._background.call(coroutine)

    def tell(self, callback: Callable[[T], object], news: T) -> None:
        """Call back in a thread of its own, one call after the other, so that a callback may use this queue and wait for it."""
        self._background.tell(callback, news)

    def start(self) -> None:
        """Open it. Idempotent."""
        if self._door is not None:
            return
        self._background.start()

        async def make() -> D:
            door = self._make()
            await door.start()
            return door

        try:
            self._door = self.call(make())
        except BaseException:
            self._background.end()
            raise

    def close(self, grace: Duration | None = None) -> None:
        """Give back what it holds. Idempotent."""
        if self._door is None:
            return
        try:
            self.call(self._door.close(grace))
        finally:
            self._door = None
            self._background.end()

    @property
    def url(self) -> str:
        """Where the queue is: a store's URL or a server's address, without secrets."""
        return self.asynchronous.url
