"""The door of a queue in this process: it holds the store and, unless told otherwise, an engine that works here."""

from __future__ import annotations

import asyncio
import builtins
import logging
import signal
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from inferq.clock import Clock, SystemClock, seconds
from inferq.config import DEFAULT_BACKENDS, BackendSettings, Changes, Settings, changes, load
from inferq.door import AsyncDoor, QueueStats, checked_ids, checked_position, checked_seconds, checked_text, is_text
from inferq.errors import (
    ConfigError,
    InvalidTask,
    Rejected,
    StoreClosed,
    TaskNotFound,
    WaitTimeout,
    WrongState,
)
from inferq.events import Event, type_filter
from inferq.executor import Executor, Health
from inferq.handle import AsyncHandle, Duration
from inferq.hub import Hub
from inferq.intake import Admission, admit, checked_priority, refuse_origin
from inferq.query import search
from inferq.store import Cursor, LoggedChunk, Page, Position, Store, StoreStats, Where, checked_cursor, page_size, query_of
from inferq.stores import open_store
from inferq.task import DRAIN, AttemptRecord, NewTask, Submission, Task, TaskResult
from inferq.waiting import Waiting

if TYPE_CHECKING:
    from inferq.backend import Notice
    from inferq.doors.backends import BackendsDoor
    from inferq.doors.batches import BatchesDoor
    from inferq.doors.schedules import SchedulesDoor
    from inferq.doors.webhooks import WebhooksDoor
    from inferq.engine import Backend, Backends, Engine
    from inferq.executors.discovery import Discovered
    from inferq.queue.keys import LocalKeys
    from inferq.queue.operations import Operations
    from inferq.queue.waiting import Explainer

log: Final = logging.getLogger("inferq.queue")


class AsyncQueue(AsyncDoor):
    """A durable queue in this program.

        async with AsyncQueue("sqlite:///inferq.db") as queue:
            task = await queue.chat("smollm2", "Why is the sky blue?", executor="llamacpp")
            print((await task.result()).text)

    `backends` are places where tasks run (default: what the configuration says); `work=False` opens the door only, and other
    processes run the tasks. Submits are durable when they return.
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
        super().__init__()
        self._settings = settings if settings is not None else load().settings
        self._url = url if url is not None else self._settings.store.url
        self._clock = clock or SystemClock()
        self._given = backends
        self._work = work
        self._backends: Backends | None = None
        self._store: Store | None = None
        self._hub: Hub | None = None
        self._engine: Engine | None = None
        self._keys: LocalKeys | None = None
        self._operations: Operations | None = None
        self._explains: Explainer | None = None

    # coming and going ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store and, with `work`, begin to run tasks. Raises StoreError, ConfigError or PluginError."""
        if self._store is not None:
            return
        worker = self._settings.worker
        self._store = await open_store(
            self._url,
            durability=self._settings.store.durability,
            clock=self._clock,
            lease=worker.lease,
            lost_limit=worker.lost_limit,
        )
        self._hub = Hub(self._store)
        try:
            if self._work:
                await self.start_work()
        except BaseException:
            store, self._store, self._engine = self._store, None, None
            self._hub.close()
            await store.close()
            raise

    async def discover(self) -> builtins.list[Discovered]:
        """Look for model servers of this machine; one of a kind that nobody has configured is a backend of this process from now on."""
        from inferq.queue.discovering import look

        found = await look(self._settings)
        made = [_backend(one.backend) for one in found if one.backend is not None and self._given is None]
        for backend in made:
            backend.discovered = True
        self._places().add(made)
        if self._engine is not None:
            self._engine.changed()
        return found

    async def start_work(self) -> None:
        """Begin to run tasks in this process, where it was opened with `work=False`. Idempotent. Raises ConfigError or PluginError."""
        if self._engine is not None:
            return
        # Only those who work need the engine: a front door opens in half the time without it.
        from inferq.engine import Engine

        engine = Engine(self.store, self._places(), self._settings, clock=self._clock)
        await engine.start()
        self._engine = engine
        self.operations.tend()

    async def stop(self, grace: Duration | None = None) -> None:
        """Stop working: no new claims; running tasks finish within the grace (default: the settings') or are handed back unburnt."""
        if self._engine is not None:
            await self._engine.stop(self._settings.worker.shutdown_grace if grace is None else seconds(grace))

    async def close(self, grace: Duration | None = None) -> None:
        """`stop`, then close the store. Idempotent."""
        store = self._store
        if store is None:
            return
        await self.stop(grace)
        self._engine = None
        if self._hub is not None:
            self._hub.close()
        await self._drop_all()
        if self._keys is not None:
            self._keys.close()
        if self._explains is not None:
            self._explains.close()
        self._store = self._keys = self._operations = self._explains = None
        await store.close()

    async def reconfigure(self, settings: Settings) -> Changes:
        """Go on under these settings, as far as a running process can: the answer says what was applied and what needs a new start.

        Running attempts keep their backend; a backend that is gone is closed when its last call has ended. Backends given to this
        queue by its program stay. Raises ConfigError, UnknownExecutor or PluginError, and then nothing has changed.
        """
        made = changes(self._settings, settings)
        own = self._given is None
        installed = _names(settings.backends) == _names(DEFAULT_BACKENDS)
        if self._engine is not None:
            self._engine.reconfigure(made.settings, backends=own, installed=installed)
        elif own and self._backends is not None:
            for gone in self._backends.replace(self._backends.renewed(settings.backends), settings.backends, installed=installed):
                await gone.close()
        self._settings = made.settings
        return made

    async def run_until_stopped(self, *, ready: Callable[[], object] | None = None) -> None:
        """Work until SIGINT or SIGTERM: the first stops gracefully, a second hands back at once. `ready` is called when they are heeded."""
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        stopping: list[asyncio.Task[None]] = []

        def ask() -> None:
            if asked.is_set():
                stopping.append(loop.create_task(self.stop(0)))
            asked.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ask)
        try:
            if ready is not None:
                ready()
            await asked.wait()
            await self.stop()
            if stopping:
                await asyncio.wait(stopping)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    @property
    def url(self) -> str:
        return self._url

    @property
    def store(self) -> Store:
        """The open store. Raises StoreClosed."""
        if self._store is None:
            raise StoreClosed("expected an open queue; use `async with AsyncQueue(...)` or call start() first")
        return self._store

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def _watch(self) -> Hub:
        if self._hub is None or self._store is None:
            raise StoreClosed("expected an open queue; use `async with AsyncQueue(...)` or call start() first")
        return self._hub

    def _places(self) -> Backends:
        if self._backends is None:
            from inferq.engine import Backends, breaker_of, rules_of

            given = self._settings.backends if self._given is None else self._given
            # Who configured backends said which exist; who did not may use whatever is installed.
            installed = self._given is None and _names(self._settings.backends) == _names(DEFAULT_BACKENDS)
            rules, breaker = rules_of(self._settings), breaker_of(self._settings)
            self._backends = Backends([_backend(place) for place in given], installed=installed, rules=rules, breaker=breaker)
        return self._backends

    def places(self) -> builtins.list[Backend]:
        """Where tasks can run in this process, as configured."""
        return builtins.list(self._places())

    def check_over_http(self, submission: Submission) -> Submission:
        """The submission, where tasks of its executor may come over HTTP. Raises Forbidden."""
        self._places().check_over_http(submission.executor, submission.backend)
        return submission

    @property
    def keys(self) -> LocalKeys:
        """Keys of a server on this store, and limits of tenants."""
        if self._keys is None:
            from inferq.queue.keys import LocalKeys

            self._keys = LocalKeys(self.store, self._clock, self._instant, self._settings.store.retention)
        return self._keys

    @property
    def batches(self) -> BatchesDoor:
        from inferq.queue.batches import LocalBatches

        store = self._settings.store

        def admission(allow: Callable[[Submission], Submission] | None) -> Admission:
            return Admission(self._places().executor_of, max_bytes=store.max_payload_bytes, allow=allow)

        return LocalBatches(self, self._clock, admission=admission, max_queue_size=store.max_queue_size)

    @property
    def operations(self) -> Operations:
        """Changes of all tasks that pass a filter."""
        if self._operations is None:
            from inferq.queue.operations import Operations

            self._operations = Operations(self, self._clock)
        return self._operations

    @property
    def backends(self) -> BackendsDoor:
        """Where tasks run, and whether they may."""
        from inferq.queue.backends import LocalBackends

        return LocalBackends(self.store, self._clock, places=self._places, notices=self._explainer.notices, check=self._check)

    async def _check(self, backend: Backend) -> Health:
        if self._engine is not None:
            return await self._engine.watch.check(backend)
        from inferq.engine.health import ask, learn_models

        health = await ask(backend, self._settings.health.timeout)
        if health.ok:
            await learn_models(backend, self._settings.health.timeout)
        await backend.close()
        return health

    @property
    def schedules(self) -> SchedulesDoor:
        from inferq.queue.schedules import Schedules

        store = self._settings.store
        return Schedules(
            self,
            self._clock,
            executor_of=lambda executor, backend: self._places().executor_of(executor, backend),
            max_bytes=store.max_payload_bytes,
            max_queue_size=store.max_queue_size,
        )

    @property
    def webhooks(self) -> WebhooksDoor:
        """Who is told over HTTP of what happens."""
        from inferq.queue.webhooks import LocalWebhooks

        return LocalWebhooks(self.store, self._clock, self._settings.webhooks)

    # submit ----------------------------------------------------------------------------------------------------------

    async def _submit_one(self, submission: Submission) -> AsyncHandle:
        task = admit(submission, self._places().executor_of, max_bytes=self._settings.store.max_payload_bytes)
        return (await self._keep([task]))[0]

    async def submit_many(self, submissions: Iterable[Submission | Mapping[str, Any]]) -> list[AsyncHandle]:
        """Keep them all in one transaction, or none; handles in order. An error names the wrong one: `submissions[3].payload...`."""
        given_all: Any = submissions
        if not isinstance(given_all, Iterable) or isinstance(given_all, str | bytes | Mapping):
            raise InvalidTask(f"expected a list of submissions, got {type(given_all).__name__}", field="submissions")
        places, bound = self._places(), self._settings.store.max_payload_bytes
        tasks = []
        for index, given in enumerate(submissions):
            try:
                if isinstance(given, Submission):
                    refuse_origin(given.batch, given.schedule)
                elif isinstance(given, Mapping):
                    refuse_origin(given.get("batch"), given.get("schedule"))
                tasks.append(admit(given, places.executor_of, max_bytes=bound))
            except InvalidTask as error:
                error.args = (f"submissions[{index}]{'.' if error.field else ': '}{error.args[0]}",)
                error.field = f"submissions[{index}].{error.field}" if error.field else f"submissions[{index}]"
                raise
        return await self._keep(tasks)

    async def _keep(self, tasks: builtins.list[NewTask]) -> builtins.list[AsyncHandle]:
        store = self.store
        if self._engine is not None:
            self._engine.worker.expect(tasks)
        try:
            ids = await store.add(tasks, self._clock.read(), limit=self._settings.store.max_queue_size)
        except Rejected as error:
            if error.retry_after is None:
                error.retry_after = await self.retry_after()
            raise
        return [AsyncHandle(self, id) for id in ids]

    # ask -------------------------------------------------------------------------------------------------------------

    async def get(self, id: str) -> Task:
        """Raises TaskNotFound."""
        task = await self.store.get(id) if is_text(id) else None
        if task is None:
            raise TaskNotFound(f"expected the id of a task, got {id!r}: no task has it (it may have been pruned)")
        return task

    async def list(self, where: Where = None, *, limit: int | None = None, after: Cursor | None = None) -> Page:
        """One page, newest first unless the filter says otherwise; pass the page's `after` to go on."""
        query = query_of(where)
        wanted = page_size(limit, query)
        return await self.store.find(search(query, self._clock.read().wall), after=checked_cursor(after), limit=wanted)

    async def attempts(self, id: str) -> builtins.list[AttemptRecord]:
        """Ended attempts of a task, first to last."""
        found = await self.store.attempts(id)
        if not found:
            await self.get(id)
        return found

    async def stats(self) -> QueueStats:
        """Counts, from maintained counters."""
        counts, (_, paused) = await self.store.counts(), await self.store.heads()
        worker = self._engine.worker if self._engine is not None else None
        executed = await self.store.executed()
        return QueueStats(
            states=counts.states,
            total=counts.total,
            pending_by_priority=counts.pending_by_priority,
            pending_by_lane=counts.pending_by_lane,
            workers_active=counts.states["running"],
            workers_idle=max(0, worker.slots - worker.busy) if worker is not None else 0,
            paused=sorted(paused - {DRAIN}),
            draining=DRAIN in paused,
            executed_local=sum(one.completed for one in executed if not one.remote),
            executed_remote=sum(one.completed for one in executed if one.remote),
        )

    async def explain(self, id: str) -> Waiting:
        """Why a task waits: the gate that holds it, its position, an estimated start. Raises TaskNotFound."""
        return await self._explainer.explain(await self.get(id))

    async def retry_after(self, lane: str | None = None) -> float:
        """Seconds after which a caller that was refused for want of room should come again, by measured service times."""
        return await self._explainer.retry_after(lane)

    @property
    def _explainer(self) -> Explainer:
        if self._explains is None:
            from inferq.queue.waiting import Explainer

            self._explains = Explainer(self.store, self._clock, self._notice)
        return self._explains

    def _notice(self) -> Notice | None:
        return None if self._engine is None else self._engine.board.notice()

    # wait and watch --------------------------------------------------------------------------------------------------

    async def wait(self, id: str, timeout: Duration | None = None) -> Task:
        """The task when it has ended, however. Raises WaitTimeout, TaskNotFound."""
        limit = checked_seconds(timeout, "timeout")
        waiter = self._watch.end_of(id)
        try:
            task = await self.get(id)
            if task.state.is_final:
                return task
            async with asyncio.timeout(limit):
                await waiter
        except TimeoutError:
            raise WaitTimeout(f"task {id} has not ended within {limit:g} s; it goes on, ask again later") from None
        except asyncio.CancelledError:
            if waiter.cancelled():
                raise StoreClosed("the queue was closed while waiting; the task goes on when it is opened again") from None
            raise
        finally:
            self._watch_forget(id, waiter)
        return await self.wait(id, timeout=timeout)

    def _watch_forget(self, id: str, waiter: asyncio.Future[None]) -> None:
        if self._hub is not None:
            self._hub.forget(id, waiter)

    async def _result_of(self, id: str) -> TaskResult:
        found = await self.store.result(id)
        if found is None:
            raise TaskNotFound(f"the result of task {id} is gone: it was pruned")
        return found

    def stream(self, id: str, after: Position = Position()) -> AsyncGenerator[LoggedChunk]:
        """Every chunk after a place up to and with the `end` record. Raises TaskNotFound."""
        return self._watch.stream(id, after)

    async def events(self, *types: str, after: int | None = None) -> AsyncGenerator[Event]:
        """Events after a position (None: from now on; 0: from the beginning of the log), and on as they come.

        `types` are names or patterns such as `task.*`; raises ValueError for one that fits nothing.
        """
        async with aclosing(self._watch.events(type_filter(types), checked_position(after))) as found:
            async for event in found:
                yield event

    def subscribe(self, callback: Callable[[Event], None], *types: str) -> Callable[[], None]:
        """Call `callback` on the event loop for each event from now on; returns the way to unsubscribe."""
        return self._watch.subscribe(callback, type_filter(types))

    # change ----------------------------------------------------------------------------------------------------------

    async def cancel(self, *ids: str, reason: str = "") -> None:
        """Raises TaskNotFound, WrongState (of the first that had ended; the others are cancelled)."""
        _raise_first(await self.store.cancel(checked_ids(ids), self._clock.read(), reason=checked_text(reason, "reason", empty=True)))

    async def set_priority(self, id: str, priority: int | str) -> None:
        """Move a waiting task. Raises TaskNotFound, WrongState, InvalidTask."""
        _raise_first(await self.store.reprioritize(checked_ids([id]), checked_priority(priority), self._clock.read()))

    async def retry(self, *ids: str) -> None:
        """Make failed or cancelled tasks wait again. Raises TaskNotFound, WrongState."""
        _raise_first(await self.store.retry(checked_ids(ids), self._clock.read()))

    async def delete(self, *ids: str) -> None:
        """Remove ended tasks with their results; there is no undo. Raises TaskNotFound, WrongState (of the first that has not ended)."""
        _raise_first(await self.store.delete(checked_ids(ids), self._clock.read()))

    async def pause(self, scope: str = "*") -> None:
        """Stop claims everywhere, or of one lane such as `ollama/qwen3`. Running tasks go on. Raises InvalidTask."""
        await self.store.pause(_scope(scope), self._clock.read())

    async def resume(self, scope: str = "*") -> None:
        """Undo `pause` of the same scope; without one also `drain`. Raises InvalidTask."""
        now = self._clock.read()
        # Asked together they are one commit.
        await asyncio.gather(*(self.store.resume(one, now) for one in ((scope, DRAIN) if scope == "*" else (_scope(scope),))))

    async def drain(self) -> None:
        """Take the queue out of service, in every process: nothing starts, and servers say on /readyz that they are not ready."""
        now = self._clock.read()
        await asyncio.gather(*(self.store.pause(one, now) for one in ("*", DRAIN)))

    async def paused(self) -> frozenset[str]:
        """Paused scopes."""
        return (await self.store.heads())[1] - {DRAIN}

    # the store -------------------------------------------------------------------------------------------------------

    async def backup(self, path: str | Path) -> None:
        """A consistent copy into a new file, while work goes on."""
        await self.store.backup(Path(path))

    async def check(self) -> builtins.list[str]:
        """What is wrong with the store; empty when it is sound."""
        return await self.store.check()

    async def store_stats(self) -> StoreStats:
        return await self.store.stats()


def _names(backends: Sequence[BackendSettings]) -> list[tuple[str, str]]:
    return [(backend.name, backend.executor) for backend in backends]


def _backend(place: Backend | BackendSettings | Executor) -> Backend:
    from inferq.engine import Backend

    if isinstance(place, Backend):
        return place
    if isinstance(place, BackendSettings):
        return Backend.from_settings(place)
    if isinstance(place, Executor):
        return Backend(place, kind=place.name)
    raise ConfigError(f"expected a Backend, BackendSettings or an Executor, got {type(place).__name__}")


def _scope(given: str) -> str:
    """A scope that may be paused by its name. Raises InvalidTask."""
    if given == DRAIN:
        raise InvalidTask(f"expected * or a lane such as ollama/llama3.2, got {given!r}; queue.drain() drains", field="scope")
    return checked_text(given, "scope")


def _raise_first(errors: Sequence[WrongState | None]) -> None:
    for error in errors:
        if error is not None:
            raise error
