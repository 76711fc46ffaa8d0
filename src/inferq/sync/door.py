"""The methods of a queue for programs without an event loop, over any `AsyncDoor`: what `Queue` and `Client` have in common."""

from __future__ import annotations

import builtins
import concurrent.futures
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from inferq.door import AsyncDoor, Moment, QueueStats, Reaction
from inferq.errors import StoreClosed, TaskError
from inferq.events import Event
from inferq.handle import Duration
from inferq.store import Cursor, LoggedChunk, Page, Position, StoreStats, Where
from inferq.sync.background import Background
from inferq.sync.handle import Handle
from inferq.task import AttemptRecord, Submission, Task, TaskResult
from inferq.waiting import Waiting

if TYPE_CHECKING:
    from inferq.sync.backends import Backends
    from inferq.sync.batches import Batches
    from inferq.sync.keys import Keys
    from inferq.sync.operations import Operations
    from inferq.sync.schedules import Schedules
    from inferq.sync.webhooks import Webhooks

T = TypeVar("T")
D = TypeVar("D", bound=AsyncDoor)


class Door(ABC, Generic[D]):
    """The methods of a queue, blocking. Open it with `with`, or with `start` and `close`."""

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

    # the loop behind -------------------------------------------------------------------------------------------------

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

    def _group(self, get: Callable[[D], T]) -> T:
        """A group of the door's methods; it is made on the loop, which it may listen on."""

        async def found() -> T:
            return get(self.asynchronous)

        return self.call(found())

    @property
    def url(self) -> str:
        """Where the queue is: a store's URL or a server's address, without secrets."""
        return self.asynchronous.url

    @property
    def operations(self) -> Operations:
        """Changes of all tasks that pass a filter."""
        from inferq.sync.operations import Operations

        return Operations(self, self._group(lambda door: door.operations))

    @property
    def batches(self) -> Batches:
        """Many tasks under one name: files of them, their progress, their results."""
        from inferq.sync.batches import Batches

        return Batches(self, self._group(lambda door: door.batches))

    @property
    def backends(self) -> Backends:
        """Where tasks run, and whether they may."""
        from inferq.sync.backends import Backends

        return Backends(self, self._group(lambda door: door.backends))

    @property
    def schedules(self) -> Schedules:
        """Tasks that come again at set times."""
        from inferq.sync.schedules import Schedules

        return Schedules(self, self._group(lambda door: door.schedules))

    @property
    def keys(self) -> Keys:
        """Keys of servers, limits of tenants, and the audit log."""
        from inferq.sync.keys import Keys

        return Keys(self, self._group(lambda door: door.keys))

    @property
    def webhooks(self) -> Webhooks:
        """Who is told over HTTP of what happens."""
        from inferq.sync.webhooks import Webhooks

        return Webhooks(self, self._group(lambda door: door.webhooks))

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
        """Keep one task; durable when this returns. See `AsyncDoor.submit`."""
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

    def list(self, where: Where = None, *, limit: int | None = None, after: Cursor | None = None) -> Page:
        """One page, newest first unless the filter says otherwise; pass the page's `after` to go on, until that is None."""
        return self.call(self.asynchronous.list(where, limit=limit, after=after))

    def iterate(self, where: Where = None) -> Iterator[Task]:
        """All tasks that fit, newest first, page by page."""
        return self._background.iterate(self.asynchronous.iterate(where))

    def attempts(self, id: str) -> builtins.list[AttemptRecord]:
        """Ended attempts of a task, first to last."""
        return self.call(self.asynchronous.attempts(id))

    def stats(self) -> QueueStats:
        """Counts, from maintained counters."""
        return self.call(self.asynchronous.stats())

    def explain(self, id: str) -> Waiting:
        """Why a task waits: the gate that holds it, its position, an estimated start. Raises TaskNotFound."""
        return self.call(self.asynchronous.explain(id))

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
        return self._background.iterate(self.asynchronous.stream(id, after=after))

    def events(self, *types: str, after: int | None = None) -> Iterator[Event]:
        """Events after a position (None: from now on), and on as they come; blocks until the next one."""
        return self._background.iterate(self.asynchronous.events(*types, after=after))

    def subscribe(self, callback: Callable[[Event], None], *types: str) -> Callable[[], None]:
        """Call `callback` from the queue's callback thread for each event from now on, in order; returns the way to unsubscribe."""

        async def add() -> Callable[[], None]:
            return self.asynchronous.subscribe(functools.partial(self.tell, callback), *types)

        stop = self.call(add())

        return lambda: self._background.soon(stop)

    def on(self, *types: str, query: str = "") -> Callable[[Reaction], Reaction]:
        """As a decorator: call the function from the queue's callback thread for each such event from now on, as long as the queue is open.

            @queue.on("task.failed", query="tag:billing")
            def alert(event): ...

        `types` are as in `events`; `query` is a filter (docs/filters.md) that the event's task must pass. Raises ValueError, InvalidQuery.
        """

        def add(reaction: Reaction) -> Reaction:
            async def enter() -> None:
                self.asynchronous.on(*types, query=query)(functools.partial(self.tell, reaction))

            self.call(enter())
            return reaction

        return add

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

    def delete(self, *ids: str) -> None:
        """Remove ended tasks with their results; there is no undo. Raises TaskNotFound, WrongState (of the first that has not ended)."""
        self.call(self.asynchronous.delete(*ids))

    def pause(self, scope: str = "*") -> None:
        """Stop claims everywhere, or of one lane such as `ollama/qwen3`. Running tasks go on."""
        self.call(self.asynchronous.pause(scope))

    def resume(self, scope: str = "*") -> None:
        """Undo `pause` of the same scope; without one also `drain`. Raises InvalidTask."""
        self.call(self.asynchronous.resume(scope))

    def drain(self) -> None:
        """Take the queue out of service, in every process: nothing starts, and servers say on /readyz that they are not ready."""
        self.call(self.asynchronous.drain())

    def idle(self, timeout: Duration | None = None, told: Callable[[int], object] | None = None) -> None:
        """Return when no task runs, in any process; `told` is called with how many still do. Raises WaitTimeout."""
        self.call(self.asynchronous.idle(timeout, None if told is None else functools.partial(self.tell, told)))

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


class SubDoor(Generic[T]):
    """A group of methods of a blocking door, over the same group of its asynchronous door (`queue.schedules` and the like)."""

    __slots__ = ("_asynchronous", "_queue")

    def __init__(self, queue: Door[Any], asynchronous: T) -> None:
        self._queue = queue
        self._asynchronous = asynchronous
