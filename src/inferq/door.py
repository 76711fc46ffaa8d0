"""Everything a program can ask of a queue, wherever the queue is: what `AsyncQueue` (in this process) and `AsyncClient` (over HTTP)
have in common. What can be said in terms of a few questions is written here once; the questions are abstract."""

from __future__ import annotations

import asyncio
import builtins
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import msgspec

from inferq.clock import Clock, seconds
from inferq.errors import AmbiguousId, InvalidTask, TaskCancelled, TaskError, TaskFailed, TaskNotFound, WaitTimeout
from inferq.events import Event
from inferq.handle import AsyncHandle, Duration
from inferq.intake import STREAMED_ACTIONS, checked_priority, plain
from inferq.query import Query, matches, parse, search
from inferq.store import Cursor, Filter, LoggedChunk, Page, Position, StoreStats, Where, query_of
from inferq.task import AttemptRecord, State, Submission, Task, TaskResult
from inferq.waiting import Waiting

if TYPE_CHECKING:
    from inferq.doors.backends import BackendsDoor
    from inferq.doors.batches import BatchesDoor
    from inferq.doors.keys import KeysDoor
    from inferq.doors.operations import OperationsDoor
    from inferq.doors.schedules import SchedulesDoor
    from inferq.doors.webhooks import WebhooksDoor

log: Final = logging.getLogger("inferq.queue")

_LOOKS: Final = (0.05, 0.1, 0.2, 0.5)
"""Seconds between two looks at a queue that is to become idle."""
_LONGEST: Final = 1000 * 365.25 * 86_400
Moment = datetime | Duration
"""An aware datetime, or a duration from now."""
Reaction = TypeVar("Reaction", bound=Callable[[Event], object])


class QueueStats(msgspec.Struct, frozen=True):
    """Tasks by state; pending ones by priority and lane; this process's slots; what is paused; how many tasks local and remote backends
    have completed since the store was made; whether the queue is drained."""

    states: dict[str, int]
    total: int
    pending_by_priority: dict[int, int]
    pending_by_lane: dict[str, int]
    workers_active: int
    workers_idle: int
    paused: list[str]
    executed_local: int = 0
    executed_remote: int = 0
    draining: bool = False


class AsyncDoor(ABC):
    """The methods of a queue. Open it with `async with`, or with `start` and `close`."""

    _clock: Clock

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    # coming and going ------------------------------------------------------------------------------------------------

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

    @property
    @abstractmethod
    def batches(self) -> BatchesDoor:
        """Many tasks under one name: files of them, their progress, their results."""

    @property
    @abstractmethod
    def backends(self) -> BackendsDoor:
        """Where tasks run, and whether they may."""

    @property
    @abstractmethod
    def schedules(self) -> SchedulesDoor:
        """Tasks that come again at set times."""

    @property
    @abstractmethod
    def operations(self) -> OperationsDoor:
        """Changes of all tasks that pass a filter."""

    @property
    @abstractmethod
    def keys(self) -> KeysDoor:
        """Keys of servers, limits of tenants, and the audit log."""

    @property
    @abstractmethod
    def webhooks(self) -> WebhooksDoor:
        """Who is told over HTTP of what happens."""

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

    # submit ----------------------------------------------------------------------------------------------------------

    async def submit(
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
    ) -> AsyncHandle:
        """Keep one task; durable when this returns. Raises InvalidTask (nothing stored), DuplicateKey, QueueFull, StoreError.

        `at` or `delay` says when it may start at the earliest. The same `key` with the same body is the same task. `remote` True asks
        for a remote backend, False forbids one.
        """
        if at is not None and delay is not None:
            raise InvalidTask("expected at or delay, got both", field="at")
        if at is not None and not isinstance(at, datetime):
            raise InvalidTask(f"expected a time with its zone, got {at!r}; use delay for a duration", field="at")
        # Whatever came is put in as it is: `admit` checks types where they are not the plain ones, and names the field.
        submission = Submission(
            executor,
            action,
            model,
            plain(payload),
            plain(options),
            checked_priority(priority),
            backend,
            tenant,
            key,
            list(tags) if isinstance(tags, tuple) else tags,  # type: ignore[arg-type]
            plain(metadata),
            self._instant(at, "at") if at is not None else self._instant(delay, "delay"),
            None if timeout is None else checked_seconds(timeout, "timeout"),
            None if idle_timeout is None else checked_seconds(idle_timeout, "idle_timeout"),
            None if start_deadline is None else self._instant(start_deadline, "start_deadline"),
            None if deadline is None else self._instant(deadline, "deadline"),
            max_retries,
            at_most_once,
            action in STREAMED_ACTIONS if stream is None else stream,
            remote=remote,
        )
        return await self._submit_one(submission)

    @abstractmethod
    async def _submit_one(self, submission: Submission) -> AsyncHandle:
        """Check and keep one; the caller does not use the object again."""

    @abstractmethod
    async def submit_many(self, submissions: Iterable[Submission | Mapping[str, Any]]) -> list[AsyncHandle]:
        """Keep them all in one transaction, or none; handles in order. An error names the wrong one: `submissions[3].payload...`."""

    async def chat(
        self, model: str, messages: str | Sequence[Mapping[str, Any]], *, system: str | None = None, executor: str = "ollama", **common: Any
    ) -> AsyncHandle:
        """A chat; a text is one message of the user. `common` is everything `submit` takes; further payload fields go in `payload`."""
        said: Any = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        if isinstance(said, Sequence):
            said = [dict(message) if isinstance(message, Mapping) else message for message in said]
        return await self._ask_model(executor, "chat", model, {"messages": said, "system": system}, common)

    async def generate(
        self,
        model: str,
        prompt: str,
        *,
        system: str | None = None,
        template: str | None = None,
        raw: bool | None = None,
        executor: str = "ollama",
        **common: Any,
    ) -> AsyncHandle:
        """A completion of a prompt."""
        payload = {"prompt": prompt, "system": system, "template": template, "raw": raw}
        return await self._ask_model(executor, "generate", model, payload, common)

    async def embed(
        self, model: str, input: str | Sequence[str], *, truncate: bool | None = None, executor: str = "ollama", **common: Any
    ) -> AsyncHandle:
        """Vectors of one or more texts."""
        texts: Any = list(input) if isinstance(input, tuple) else input
        return await self._ask_model(executor, "embed", model, {"input": texts, "truncate": truncate}, common)

    async def _ask_model(self, executor: str, action: str, model: str, own: dict[str, Any], common: dict[str, Any]) -> AsyncHandle:
        payload: Any = {name: value for name, value in own.items() if value is not None}
        further = common.pop("payload", None)
        if isinstance(further, Mapping):
            payload |= further
        elif further is not None:
            raise InvalidTask(f"expected a mapping of further fields, got {type(further).__name__}", field="payload")
        return await self.submit(executor, action, model=model, payload=payload, **common)

    async def batch(self, submissions: Iterable[Submission | Mapping[str, Any]]) -> list[TaskResult | TaskError]:
        """Submit all, wait for all; results in order, a failed or cancelled task's error in its place."""
        return await self._collect(await self.submit_many(submissions))

    async def batch_in_background(
        self,
        submissions: Iterable[Submission | Mapping[str, Any]],
        callback: Callable[[list[TaskResult | TaskError]], object] | None = None,
    ) -> list[AsyncHandle]:
        """Submit all and return at once; `callback` gets all results in order when the last has ended."""
        handles = await self.submit_many(submissions)
        if callback is not None:
            told = callback

            async def tell() -> None:
                told(await self._collect(handles))

            self.keep(asyncio.create_task(tell()))
        return handles

    async def _collect(self, handles: Sequence[AsyncHandle]) -> list[TaskResult | TaskError]:
        async def one(handle: AsyncHandle) -> TaskResult | TaskError:
            try:
                return await handle.result()
            except TaskError as error:
                return error
            except TaskNotFound as error:
                # Retention removed it before its result was read.
                return TaskFailed(str(error), task_id=handle.id, failure="not_found", attempts=0)

        return await asyncio.gather(*(one(handle) for handle in handles))

    def _instant(self, moment: Moment | None, field: str) -> int | None:
        if moment is None:
            return None
        if isinstance(moment, datetime):
            if moment.tzinfo is None:
                raise InvalidTask(f"expected a time with its zone, got {moment.isoformat()} without one", field=field)
            return round(moment.astimezone(UTC).timestamp() * 1000)
        after = checked_seconds(moment, field)
        if after is None:
            return None
        if after > _LONGEST:
            raise InvalidTask(f"expected at most {_LONGEST:g} s (1,000 years) from now, got {after:g}", field=field)
        return self._clock.read().wall + round(after * 1000)

    # ask -------------------------------------------------------------------------------------------------------------

    def handle(self, id: str) -> AsyncHandle:
        """A handle from a full id; asks nothing."""
        return AsyncHandle(self, id)

    async def resolve(self, prefix: str) -> str:
        """The full id that begins so. Raises TaskNotFound or AmbiguousId."""
        if not prefix or not is_text(prefix):
            raise TaskNotFound(f"expected the id of a task or the beginning of one, got {prefix!r}")
        found = (await self.list(Filter(prefix=prefix.lower()), limit=2)).tasks
        if not found:
            raise TaskNotFound(f"expected the id of a task or the beginning of one, got {prefix!r}: no task has it")
        if len(found) > 1 and found[0].id != prefix.lower():
            raise AmbiguousId(f"expected the beginning of one id, but several tasks begin with {prefix!r}; give more of it")
        return found[0].id

    @abstractmethod
    async def get(self, id: str) -> Task:
        """Raises TaskNotFound."""

    @abstractmethod
    async def list(self, where: Where = None, *, limit: int | None = None, after: Cursor | None = None) -> Page:
        """One page, newest first unless the filter says otherwise; pass the page's `after` to go on, until that is None.

        `where` is a text of the filter language (docs/filters.md) or a Filter. `limit` is 1 to 10,000; without it the filter's own
        or 50. A page may be short, even empty, and still be followed by others: see Page. Raises InvalidQuery, InvalidTask.
        """

    async def iterate(self, where: Where = None) -> AsyncIterator[Task]:
        """All tasks that fit, or as many as the filter's `limit:` says, newest first, page by page. Raises InvalidQuery."""
        query = query_of(where)
        left = query.limit
        after: Cursor | None = None
        while left is None or left > 0:
            page = await self.list(query, after=after, limit=500 if left is None else min(500, left))
            for task in page.tasks:
                yield task
            if page.after is None:
                return
            after = page.after
            left = None if left is None else left - len(page.tasks)

    @abstractmethod
    async def attempts(self, id: str) -> builtins.list[AttemptRecord]:
        """Ended attempts of a task, first to last. Raises TaskNotFound."""

    @abstractmethod
    async def stats(self) -> QueueStats:
        """Counts, from maintained counters."""

    @abstractmethod
    async def explain(self, id: str) -> Waiting:
        """Why a task waits: the gate that holds it, its position, an estimated start. Raises TaskNotFound."""

    async def why(self, id: str) -> str:
        """One line that says what a task waits for. Raises TaskNotFound."""
        return (await self.explain(id)).reason

    # wait and watch --------------------------------------------------------------------------------------------------

    @abstractmethod
    async def wait(self, id: str, timeout: Duration | None = None) -> Task:
        """The task when it has ended, however. Raises WaitTimeout, TaskNotFound."""

    async def result(self, id: str, timeout: Duration | None = None) -> TaskResult:
        """The result when it is there. Raises TaskFailed, TaskCancelled, WaitTimeout, TaskNotFound."""
        task = await self.wait(id, timeout=timeout)
        if task.state is State.COMPLETED:
            return await self._result_of(id)
        if task.state is State.CANCELLED:
            why = f": {task.error}" if task.error else ""
            raise TaskCancelled(f"task {id} was cancelled{why}", task_id=id, reason=task.error)
        raise TaskFailed(
            f"task {id} failed after {task.attempt} attempts with {task.code}: {task.error}",
            task_id=id,
            failure=task.code or "internal",
            attempts=task.attempt,
        )

    @abstractmethod
    async def _result_of(self, id: str) -> TaskResult:
        """The result of a completed task. Raises TaskNotFound when it was pruned."""

    @abstractmethod
    def stream(self, id: str, after: Position = Position()) -> AsyncGenerator[LoggedChunk]:
        """Every chunk after a place up to and with the `end` record. Raises TaskNotFound."""

    @abstractmethod
    def events(self, *types: str, after: int | None = None) -> AsyncGenerator[Event]:
        """Events after a position (None: from now on; 0: from the beginning of the log), and on as they come.

        `types` are names or patterns such as `task.*`; raises ValueError for one that fits nothing, InvalidTask for what is no position.
        """

    @abstractmethod
    def subscribe(self, callback: Callable[[Event], None], *types: str) -> Callable[[], None]:
        """Call `callback` on the event loop for each event from now on; returns the way to unsubscribe."""

    def on(self, *types: str, query: str = "") -> Callable[[Reaction], Reaction]:
        """As a decorator: call the function for each such event from now on, in this process, as long as the queue is open.

            @queue.on("task.failed", query="tag:billing")
            async def alert(event): ...

        `types` are as in `events`; `query` is a filter (docs/filters.md) that the event's task must pass. A coroutine function is awaited
        beside. Messages that survive a crash of this program are webhooks. Raises ValueError, InvalidQuery.
        """
        asked = parse(query) if query else None
        if asked is not None:
            search(asked, self._clock.read().wall)

        def add(reaction: Reaction) -> Reaction:
            def told(event: Event) -> None:
                if asked is None:
                    self._react(reaction, event)
                elif getattr(event, "task_id", ""):
                    self.keep(asyncio.create_task(judged(event, asked)))

            async def judged(event: Event, asked: Query) -> None:
                try:
                    task = await self.get(getattr(event, "task_id", ""))
                except TaskNotFound:
                    return
                if matches(task, search(asked, self._clock.read().wall)):
                    self._react(reaction, event)

            self.subscribe(told, *types)
            return reaction

        return add

    def _react(self, reaction: Callable[[Event], object], event: Event) -> None:
        answer = reaction(event)
        if isinstance(answer, Coroutine):
            self.keep(asyncio.create_task(answer))

    # change ----------------------------------------------------------------------------------------------------------

    @abstractmethod
    async def cancel(self, *ids: str, reason: str = "") -> None:
        """Raises TaskNotFound, WrongState (of the first that had ended; the others are cancelled)."""

    @abstractmethod
    async def set_priority(self, id: str, priority: int | str) -> None:
        """Move a waiting task. Raises TaskNotFound, WrongState, InvalidTask."""

    @abstractmethod
    async def retry(self, *ids: str) -> None:
        """Make failed or cancelled tasks wait again. Raises TaskNotFound, WrongState."""

    @abstractmethod
    async def delete(self, *ids: str) -> None:
        """Remove ended tasks with their results; there is no undo. Raises TaskNotFound, WrongState (of the first that has not ended)."""

    @abstractmethod
    async def pause(self, scope: str = "*") -> None:
        """Stop claims everywhere, or of one lane such as `ollama/qwen3`. Running tasks go on. Raises InvalidTask."""

    @abstractmethod
    async def resume(self, scope: str = "*") -> None:
        """Undo `pause` of the same scope; without one also `drain`. Raises InvalidTask."""

    @abstractmethod
    async def drain(self) -> None:
        """Take the queue out of service, in every process: `pause` of everything, and servers say on /readyz that they are not ready.

        Running tasks go on, new ones are kept and wait. `resume()` undoes it. Idempotent.
        """

    async def idle(self, timeout: Duration | None = None, told: Callable[[int], object] | None = None) -> None:
        """Return when no task runs, in any process; `told` is called with how many still do. Raises WaitTimeout."""
        limit = checked_seconds(timeout, "timeout")
        looks = 0
        try:
            async with asyncio.timeout(limit):
                while running := (await self.stats()).states["running"]:
                    if told is not None:
                        told(running)
                    await asyncio.sleep(_LOOKS[min(looks, len(_LOOKS) - 1)])
                    looks += 1
        except TimeoutError:
            raise WaitTimeout(f"tasks still ran after {limit:g} s; they go on, ask again later") from None

    @abstractmethod
    async def paused(self) -> frozenset[str]:
        """Paused scopes."""

    # the store -------------------------------------------------------------------------------------------------------

    @abstractmethod
    async def backup(self, path: str | Path) -> None:
        """A consistent copy into a new file, while work goes on."""

    @abstractmethod
    async def check(self) -> builtins.list[str]:
        """What is wrong with the store; empty when it is sound."""

    @abstractmethod
    async def store_stats(self) -> StoreStats:
        """What the store says of itself, for operators."""


def checked_seconds(value: Duration | None, field: str) -> float | None:
    """A duration in seconds. Raises InvalidTask naming the field."""
    if value is None:
        return None
    try:
        return seconds(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidTask(str(error), field=field) from None


def is_text(value: object) -> bool:
    """Whether it is text that UTF-8 can hold."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_text(value: str, field: str, *, empty: bool = False) -> str:
    """Text that a store can hold. Raises InvalidTask naming the field."""
    if not is_text(value) or "\x00" in value or not (value or empty):
        raise InvalidTask(f"expected a text, got {value!r}", field=field)
    return value


def checked_position(after: int | None) -> int | None:
    """A place in the event log. Raises InvalidTask."""
    if after is not None and (type(after) is not int or after < 0):
        raise InvalidTask(
            f"expected the position of an event (0 is the beginning of the log) or None for from now on, got {after!r}", field="after"
        )
    return after


def checked_ids(ids: Sequence[str]) -> Sequence[str]:
    """Raises TaskNotFound for what cannot be an id."""
    for id in ids:
        if not is_text(id):
            raise TaskNotFound(f"expected the id of a task, got {id!r}")
    return ids
