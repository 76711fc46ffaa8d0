"""An event loop in a background thread, and the ways into it for a program that has none."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar

from inferq.errors import StoreClosed

T = TypeVar("T")
log: Final = logging.getLogger("inferq.queue")


class Background:
    """A loop of its own, started with `start` and ended with `end`; every other method may be called from any thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._callbacks: concurrent.futures.ThreadPoolExecutor | None = None
        self._pid = 0

    def start(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop the loop and its threads. Idempotent."""
        loop, thread, callbacks = self._loop, self._thread, self._callbacks
        self._loop = self._thread = self._callbacks = None
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
        if callbacks is not None:
            callbacks.shutdown(wait=False)

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start a coroutine on the loop. Raises StoreClosed when it does not run, or runs in the process that forked this one."""
        if self._loop is None:
            coroutine.close()
            raise StoreClosed("expected an open queue; use `with ...:` or call start() first")
        if self._pid != os.getpid():
            coroutine.close()
            raise StoreClosed("the queue was opened before a fork; open it again in this process")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait; Ctrl-C cancels it."""
        future = self.begin(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def soon(self, callback: Callable[[], object]) -> None:
        """Call back on the loop, if it still runs."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(callback)

    def tell(self, callback: Callable[[T], object], news: T) -> None:
        """Call back in a thread of its own, one call after the other, so that a callback may use this queue and wait for it."""
        if self._callbacks is None:
            self._callbacks = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="inferq-callback")
        self._callbacks.submit(callback, news).add_done_callback(_log_failure)

    def iterate(self, iterator: AsyncIterator[T]) -> Iterator[T]:
        """What an asynchronous iterator yields; leaving early closes it."""

        async def step() -> tuple[bool, T | None]:
            try:
                return True, await anext(iterator)
            except StopAsyncIteration:
                return False, None

        try:
            while True:
                more, entry = self.call(step())
                if not more:
                    return
                yield entry  # type: ignore[misc]  # None only where `more` is False
        finally:
            if self._loop is not None:
                close = getattr(iterator, "aclose", None)
                if close is not None:
                    self.call(close())


def _log_failure(told: concurrent.futures.Future[object]) -> None:
    if not told.cancelled() and (error := told.exception()) is not None:
        log.error("queue.callback_failed", exc_info=error)
