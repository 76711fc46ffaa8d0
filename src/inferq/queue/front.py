"""The door of a queue in this process: it holds the store and, unless told otherwise, an engine that works here."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from inferq.clock import Clock, SystemClock
from inferq.config import BackendSettings, Settings, load
from inferq.door.arguments import prepared
from inferq.errors import ConfigError, Rejected
from inferq.executor import Executor
from inferq.handle import AsyncHandle, Duration
from inferq.hub import Hub
from inferq.intake import Admission, admit, refuse_origin
from inferq.queue.asking import Asking
from inferq.queue.changing import Changing
from inferq.queue.watching import Watching
from inferq.queue.working import Working
from inferq.store import Compacted, Store, StoreStats
from inferq.stores import open_store
from inferq.task import NewTask, Submission

if TYPE_CHECKING:
    from inferq.door.backends import BackendsDoor
    from inferq.door.batches import BatchesDoor
    from inferq.door.webhooks import WebhooksDoor
    from inferq.engine import Backend, Backends, Engine
    from inferq.queue.archive import LocalArchive
    from inferq.queue.keys import LocalKeys
    from inferq.queue.operations import LocalOperations
    from inferq.queue.schedules import LocalSchedules
    from inferq.queue.waiting import Explainer

log: Final = logging.getLogger("inferq.queue")


class AsyncQueue(Asking, Watching, Changing, Working):
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
        if settings is not None and not isinstance(settings, Settings):
            raise ConfigError(f"expected Settings, got {type(settings).__name__}; inferq.config.load(file=...).settings reads a file")
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
        self._operations: LocalOperations | None = None
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

    @property
    def url(self) -> str:
        return self._url

    @property
    def settings(self) -> Settings:
        """What this queue goes by; `reconfigure` changes it."""
        return self._settings

    @property
    def keys(self) -> LocalKeys:
        """Keys of a server on this store, and limits of tenants."""
        if self._keys is None:
            from inferq.queue.keys import LocalKeys

            self._keys = LocalKeys(self.store, self._clock, self._settings.store.retention)
        return self._keys

    @property
    def batches(self) -> BatchesDoor:
        from inferq.queue.batches import LocalBatches

        store = self._settings.store

        def admission(allow: Callable[[Submission], Submission] | None) -> Admission:
            return Admission(self._places().executor_of, max_bytes=store.max_payload_bytes, allow=allow)

        return LocalBatches(self, self._clock, admission=admission, max_queue_size=store.max_queue_size)

    @property
    def operations(self) -> LocalOperations:
        """Changes of all tasks that pass a filter."""
        if self._operations is None:
            from inferq.queue.operations import LocalOperations

            self._operations = LocalOperations(self, self._clock)
        return self._operations

    @property
    def backends(self) -> BackendsDoor:
        """Where tasks run, and whether they may."""
        from inferq.queue.backends import LocalBackends

        return LocalBackends(
            self.store,
            self._clock,
            places=self._places,
            notices=self._explainer.notices,
            check=self._check,
            works=self._engine is not None,
        )

    @property
    def schedules(self) -> LocalSchedules:
        from inferq.queue.schedules import LocalSchedules

        store = self._settings.store
        return LocalSchedules(
            self,
            self._clock,
            executor_of=lambda executor, backend: self._places().executor_of(executor, backend),
            max_bytes=store.max_payload_bytes,
            max_queue_size=store.max_queue_size,
        )

    @property
    def archive(self) -> LocalArchive:
        """The whole store as a file for another store."""
        from inferq.queue.archive import LocalArchive

        return LocalArchive(self.store, self._clock)

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
        executor_of, bound = self._places().executor_of, self._settings.store.max_payload_bytes

        def admitted(given: Submission | Mapping[str, Any]) -> NewTask:
            if isinstance(given, Submission):
                refuse_origin(given.batch, given.schedule)
            elif isinstance(given, Mapping):
                refuse_origin(given.get("batch"), given.get("schedule"))
            return admit(given, executor_of, max_bytes=bound)

        return await self._keep(prepared(submissions, admitted))

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

    # the store -------------------------------------------------------------------------------------------------------

    async def backup(self, path: str | Path) -> None:
        """A consistent copy into a new file, while work goes on."""
        await self.store.backup(Path(path))

    async def compact(self, *, dry_run: bool = False) -> Compacted:
        """Give space that removed tasks have left in the store back to the disk; nobody can write meanwhile."""
        return await self.store.compact(dry_run=dry_run)

    async def check(self) -> builtins.list[str]:
        """What is wrong with the store; empty when it is sound."""
        return await self.store.check()

    async def store_stats(self) -> StoreStats:
        """What the store says of itself, for operators."""
        return await self.store.stats()
