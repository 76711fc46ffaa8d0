"""The same queue for programs without an event loop: AsyncQueue on a loop of its own, in a background thread."""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import functools
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from inferq.clock import Clock
from inferq.config import BackendSettings, Settings
from inferq.door import Moment, QueueStats
from inferq.errors import StoreClosed, TaskError
from inferq.events import Event
from inferq.executor import Executor
from inferq.handle import AsyncHandle, Duration
from inferq.queue import AsyncQueue
from inferq.store import Filter, LoggedChunk, Page, Position, StoreStats
from inferq.task import AttemptRecord, Submission, Task, TaskResult

if TYPE_CHECKING:
    from inferq.engine import Backend

T = TypeVar("T")
log: Final = logging.getLogger("inferq.queue")


def _log_failure(told: concurrent.futures.Future[object]) -> None:
    if not told.cancelled() and (error := told.exception()) is not None:
        log.error("queue.callback_failed", exc_info=error)


class Handle:
    """A task in the hand of a program without an event loop; see AsyncHandle."""

    __slots__ = ("_queue", "id")

    def __init__(self, queue: Queue, id: str) -> None:
        self._queue = queue
        self.id = id

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"

    def result(self, timeout: Duration | None = None) -> TaskResult:
        """Wait for the end. Raises TaskFailed, TaskCancelled, or WaitTimeout (then the task goes on)."""
        return self._queue.result(self.id, timeout=timeout)

    def wait(self, timeout: Duration | None = None) -> Task:
        """Wait for the end, however it comes. Raises WaitTimeout."""
        return self._queue.wait(self.id, timeout=timeout)

    def stream(self, after: Position = Position()) -> Iterator[LoggedChunk]:
        """Every chunk after a place, logged or still to come, up to and with the `end` record."""
        return self._queue.stream(self.id, after=after)

    def text_stream(self) -> Iterator[str]:
        """Only the answer's text."""
        for logged in self.stream():
            if logged.chunk.kind in ("text", "stdout"):
                yield logged.chunk.text

    def refresh(self) -> Task:
        """The task as it stands. Raises TaskNotFound."""
        return self._queue.get(self.id)

    def cancel(self, reason: str = "") -> None:
        """Waiting: it ends at once. Running: fenced at once and the backend call closed. Raises WrongState when it has ended."""
        self._queue.cancel(self.id, reason=reason)

    def retry(self) -> None:
        """Make a failed or cancelled task wait again. Raises WrongState."""
        self._queue.retry(self.id)

    def future(self) -> concurrent.futures.Future[TaskResult]:
        """A future of the result, for `concurrent.futures.wait` and the like."""
        return self._queue.begin(self._queue.asynchronous.result(self.id))

    def add_done_callback(self, callback: Callable[[Handle], object]) -> None:
        """Call `callback(handle)` from the queue's callback thread when the task has ended, however it ended."""

        async def add() -> None:
            AsyncHandle(self._queue.asynchronous, self.id).add_done_callback(lambda _: self._queue.tell(callback, self))

        self._queue.call(add())


class Queue:
    """A durable queue in this program; the same methods as AsyncQueue, blocking.

    with inferq.Queue("sqlite:///inferq.db") as queue:
        print(queue.chat("smollm2", "Why is the sky blue?", executor="llamacpp").result().text)
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        backends: Sequence[Backend | BackendSettings | Executor] | None = None,
        settings: Settings | None = None,
        work: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._arguments: dict[str, Any] = {"url": url, "backends": backends, "settings": settings, "work": work, "clock": clock}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._queue: AsyncQueue | None = None
        self._callbacks: concurrent.futures.ThreadPoolExecutor | None = None
        self._pid = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # the loop behind -------------------------------------------------------------------------------------------------

    @property
    def asynchronous(self) -> AsyncQueue:
        """The AsyncQueue that does the work, on this queue's own loop. Raises StoreClosed."""
        if self._queue is None:
            raise StoreClosed("expected an open queue; use `with Queue(...)` or call start() first")
        return self._queue

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start a coroutine on the queue's loop."""
        if self._loop is None:
            coroutine.close()
            raise StoreClosed("expected an open queue; use `with Queue(...)` or call start() first")
        if self._pid != os.getpid():
            coroutine.close()
            raise StoreClosed("the queue was opened before a fork; open it again in this process")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the queue's loop and wait; Ctrl-C cancels it."""
        future = self.begin(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def tell(self, callback: Callable[[T], object], news: T) -> None:
        """Call back in a thread of its own, one call after the other, so that a callback may use this queue and wait for it."""
        if self._callbacks is None:
            self._callbacks = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="inferq-callback")
        self._callbacks.submit(callback, news).add_done_callback(_log_failure)

    def _iterate(self, make: Callable[[AsyncQueue], AsyncIterator[T]]) -> Iterator[T]:
        iterator = make(self.asynchronous)

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

    def start(self) -> None:
        """Open the store and, with `work`, begin to run tasks. Raises StoreError, ConfigError or PluginError."""
        if self._queue is not None:
            return
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="inferq-queue", daemon=True)
        self._thread.start()

        async def make() -> AsyncQueue:
            queue = AsyncQueue(**self._arguments)
            await queue.start()
            return queue

        try:
            self._queue = self.call(make())
        except BaseException:
            self._end_loop()
            raise

    def stop(self, grace: Duration | None = None) -> None:
        """Stop working; running tasks finish within the grace or are handed back unburnt."""
        self.call(self.asynchronous.stop(grace))

    def close(self, grace: Duration | None = None) -> None:
        """`stop`, then close the store. Idempotent."""
        if self._queue is None:
            return
        try:
            self.call(self._queue.close(grace))
        finally:
            self._queue = None
            self._end_loop()
            if self._callbacks is not None:
                self._callbacks.shutdown(wait=False)
                self._callbacks = None

    def _end_loop(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def run_until_stopped(self) -> None:
        """Work until SIGINT or SIGTERM: the first stops gracefully, a second hands back at once. Call it from the main thread."""
        asked = threading.Event()
        again = threading.Event()

        def ask(*_: object) -> None:
            again.set() if asked.is_set() else asked.set()

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            # Signals are handled between waits of the main thread; the wait itself returns at the signal.
            while not asked.wait(timeout=1.0):
                pass
            stopping = self.begin(self.asynchronous.stop())
            while not stopping.done():
                if again.wait(timeout=0.1):
                    self.stop(0)
                    break
            stopping.result()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def url(self) -> str:
        """Where the queue is: a store's URL, without secrets."""
        return self.asynchronous.url

    @property
    def settings(self) -> Settings:
        return self.asynchronous.settings

    def backends(self) -> list[Backend]:
        """Where tasks can run, as configured."""
        return self.asynchronous.backends()

    # submit ----------------------------------------------------------------------------------------------------------

    def submit(
        self,
        executor: str,
        action: str,
        *,
        model: str = "",
        payload: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        priority: int | str = "normal",
        backend: str | None = None,
        tenant: str = "",
        key: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        at: datetime | None = None,
        delay: Duration | None = None,
        timeout: Duration | None = None,
        idle_timeout: Duration | None = None,
        start_deadline: Moment | None = None,
        deadline: Moment | None = None,
        max_retries: int | None = None,
        at_most_once: bool = False,
        stream: bool | None = None,
        remote: bool | None = None,
    ) -> Handle:
        """Keep one task; durable when this returns. See `AsyncQueue.submit`."""
        made = self.asynchronous.submit(
            executor,
            action,
            model=model,
            payload=payload,
            options=options,
            priority=priority,
            backend=backend,
            tenant=tenant,
            key=key,
            tags=tags,
            metadata=metadata,
            at=at,
            delay=delay,
            timeout=timeout,
            idle_timeout=idle_timeout,
            start_deadline=start_deadline,
            deadline=deadline,
            max_retries=max_retries,
            at_most_once=at_most_once,
            stream=stream,
            remote=remote,
        )
        return Handle(self, self.call(made).id)

    def submit_many(self, submissions: Iterable[Submission | Mapping[str, Any]]) -> list[Handle]:
        """Keep them all in one transaction, or none; handles in order."""
        return [Handle(self, made.id) for made in self.call(self.asynchronous.submit_many(submissions))]

    def chat(
        self,
        model: str,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        system: str | None = None,
        executor: str = "ollama",
        **common: Any,
    ) -> Handle:
        """A chat; a text is one message of the user. `common` is everything `submit` takes."""
        return Handle(self, self.call(self.asynchronous.chat(model, messages, system=system, executor=executor, **common)).id)

    def generate(
        self,
        model: str,
        prompt: str,
        *,
        system: str | None = None,
        template: str | None = None,
        raw: bool | None = None,
        executor: str = "ollama",
        **common: Any,
    ) -> Handle:
        """A completion of a prompt. `common` is everything `submit` takes."""
        made = self.asynchronous.generate(model, prompt, system=system, template=template, raw=raw, executor=executor, **common)
        return Handle(self, self.call(made).id)

    def embed(
        self,
        model: str,
        input: str | Sequence[str],
        *,
        truncate: bool | None = None,
        executor: str = "ollama",
        **common: Any,
    ) -> Handle:
        """Vectors of one or more texts. `common` is everything `submit` takes."""
        return Handle(self, self.call(self.asynchronous.embed(model, input, truncate=truncate, executor=executor, **common)).id)

    def batch(self, submissions: Iterable[Submission | Mapping[str, Any]]) -> list[TaskResult | TaskError]:
        """Submit all, wait for all; results in order, a failed or cancelled task's error in its place."""
        return self.call(self.asynchronous.batch(submissions))

    def batch_in_background(
        self,
        submissions: Iterable[Submission | Mapping[str, Any]],
        callback: Callable[[list[TaskResult | TaskError]], object] | None = None,
    ) -> list[Handle]:
        """Submit all and return at once; `callback` gets all results in order, from the queue's callback thread."""
        told = None if callback is None else functools.partial(self.tell, callback)
        return [Handle(self, made.id) for made in self.call(self.asynchronous.batch_in_background(submissions, told))]

    # ask -------------------------------------------------------------------------------------------------------------

    def handle(self, id: str) -> Handle:
        """A handle from a full id; asks nothing."""
        return Handle(self, id)

    def resolve(self, prefix: str) -> str:
        """The full id that begins so. Raises TaskNotFound or AmbiguousId."""
        return self.call(self.asynchronous.resolve(prefix))

    def get(self, id: str) -> Task:
        """Raises TaskNotFound."""
        return self.call(self.asynchronous.get(id))

    def list(self, where: Filter | None = None, *, limit: int = 50, after: int | None = None) -> Page:
        """One page, newest first; pass the page's `after` to go on."""
        return self.call(self.asynchronous.list(where, limit=limit, after=after))

    def iterate(self, where: Filter | None = None) -> Iterator[Task]:
        """All tasks that fit, newest first, page by page."""
        return self._iterate(lambda queue: queue.iterate(where))

    def attempts(self, id: str) -> builtins.list[AttemptRecord]:
        """Ended attempts of a task, first to last."""
        return self.call(self.asynchronous.attempts(id))

    def stats(self) -> QueueStats:
        """Counts, from maintained counters."""
        return self.call(self.asynchronous.stats())

    def why(self, id: str) -> str:
        """One line that says what a task waits for."""
        return self.call(self.asynchronous.why(id))

    # wait and watch --------------------------------------------------------------------------------------------------

    def wait(self, id: str, timeout: Duration | None = None) -> Task:
        """The task when it has ended, however. Raises WaitTimeout, TaskNotFound."""
        return self.call(self.asynchronous.wait(id, timeout=timeout))

    def result(self, id: str, timeout: Duration | None = None) -> TaskResult:
        """The result when it is there. Raises TaskFailed, TaskCancelled, WaitTimeout, TaskNotFound."""
        return self.call(self.asynchronous.result(id, timeout=timeout))

    def stream(self, id: str, after: Position = Position()) -> Iterator[LoggedChunk]:
        """Every chunk after a place up to and with the `end` record. Raises TaskNotFound."""
        return self._iterate(lambda queue: queue.stream(id, after=after))

    def events(self, *types: str, after: int | None = None) -> Iterator[Event]:
        """Events after a position (None: from now on), and on as they come; blocks until the next one."""
        return self._iterate(lambda queue: queue.events(*types, after=after))

    def subscribe(self, callback: Callable[[Event], None], *types: str) -> Callable[[], None]:
        """Call `callback` from the queue's callback thread for each event from now on, in order; returns the way to unsubscribe."""

        async def add() -> Callable[[], None]:
            return self.asynchronous.subscribe(functools.partial(self.tell, callback), *types)

        stop = self.call(add())

        def unsubscribe() -> None:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(stop)

        return unsubscribe

    # change ----------------------------------------------------------------------------------------------------------

    def cancel(self, *ids: str, reason: str = "") -> None:
        """Raises TaskNotFound, WrongState (of the first that had ended; the others are cancelled)."""
        self.call(self.asynchronous.cancel(*ids, reason=reason))

    def set_priority(self, id: str, priority: int | str) -> None:
        """Move a waiting task. Raises TaskNotFound, WrongState, InvalidTask."""
        self.call(self.asynchronous.set_priority(id, priority))

    def retry(self, *ids: str) -> None:
        """Make failed or cancelled tasks wait again. Raises TaskNotFound, WrongState."""
        self.call(self.asynchronous.retry(*ids))

    def pause(self, scope: str = "*") -> None:
        """Stop claims everywhere, or of one lane such as `ollama/qwen3`. Running tasks go on."""
        self.call(self.asynchronous.pause(scope))

    def resume(self, scope: str = "*") -> None:
        """Undo `pause` of the same scope."""
        self.call(self.asynchronous.resume(scope))

    def paused(self) -> frozenset[str]:
        """Paused scopes."""
        return self.call(self.asynchronous.paused())

    # the store -------------------------------------------------------------------------------------------------------

    def backup(self, path: str | Path) -> None:
        """A consistent copy into a new file, while work goes on."""
        self.call(self.asynchronous.backup(path))

    def check(self) -> builtins.list[str]:
        """What is wrong with the store; empty when it is sound."""
        return self.call(self.asynchronous.check())

    def store_stats(self) -> StoreStats:
        return self.call(self.asynchronous.store_stats())
