"""The door of a queue behind a server: every method is a request to it."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from inferq.client.files import save_new
from inferq.client.transport import Query, Request, Transport, delete, get, post
from inferq.client.watching import Watching, task_id
from inferq.clock import SystemClock, seconds
from inferq.config.secret import Secret
from inferq.door import QueueStats, checked_ids, checked_text
from inferq.errors import InferqError, InvalidTask, StoreClosed
from inferq.handle import AsyncHandle, Duration
from inferq.intake import checked, checked_priority
from inferq.store import Cursor, Page, StoreStats, Where, checked_cursor, page_size, query_of
from inferq.task import AttemptRecord, Submission, Task, new_id
from inferq.waiting import Waiting
from inferq.wire.native import (
    Listing,
    StatsView,
    Submitted,
    TaskView,
)

if TYPE_CHECKING:
    from inferq.door.archive import ArchiveDoor
    from inferq.door.backends import BackendsDoor
    from inferq.door.batches import BatchesDoor
    from inferq.door.keys import KeysDoor
    from inferq.door.operations import OperationsDoor
    from inferq.door.schedules import SchedulesDoor
    from inferq.door.webhooks import WebhooksDoor

_LARGEST_PAGE: Final = 1000
"""Tasks that a server gives at once; a page may be shorter than its limit."""
_LONG: Final = 3600.0
"""Seconds that looking through a whole store may take."""
_AT_ONCE: Final = 16
"""Requests of one call that are out at the same time."""


class AsyncClient(Watching):
    """The queue of a server, as if it were in this program.

        async with AsyncClient("http://127.0.0.1:7125", api_key="iq_...") as queue:
            task = await queue.chat("smollm2", "Why is the sky blue?", executor="llamacpp")
            print((await task.result()).text)

    `connect_timeout` bounds each connecting, `timeout` a request with its retries; waiting for a task or following a stream has no
    limit of its own. Only what cannot do harm is asked again, up to `retries` times: questions, and submits, which carry an idempotency
    key for that. Waits and streams survive an absence of the server, such as a restart, of up to `patience`.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | Secret | None = None,
        timeout: Duration = 30.0,
        connect_timeout: Duration = 5.0,
        retries: int = 3,
        patience: Duration = 60.0,
    ) -> None:
        super().__init__()
        self._clock = SystemClock()
        self._patience = seconds(patience)
        self._transport = Transport(
            url,
            api_key=Secret(api_key) if isinstance(api_key, str) else api_key,
            timeout=seconds(timeout),
            connect_timeout=seconds(connect_timeout),
            retries=retries,
        )
        self._open = False

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"

    # coming and going ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Be ready to ask; the server is not contacted before it is needed. Idempotent."""
        self._open = True

    async def close(self, grace: Duration | None = None) -> None:  # noqa: ARG002 - a client has nothing to hand back
        """End what it waits for and close its connections. Idempotent."""
        if self._open:
            self._open = False
            await self._drop_all()
            await self._transport.close()

    @property
    def url(self) -> str:
        return self._transport.url

    @property
    def transport(self) -> Transport:
        """What carries requests to the server. Raises StoreClosed."""
        if not self._open:
            raise StoreClosed("expected an open client; use `async with AsyncClient(...)` or call start() first")
        return self._transport

    @property
    def operations(self) -> OperationsDoor:
        from inferq.client.operations import RemoteOperations

        return RemoteOperations(self.transport)

    @property
    def batches(self) -> BatchesDoor:
        from inferq.client.batches import RemoteBatches

        return RemoteBatches(self, self.transport, self._clock)

    @property
    def backends(self) -> BackendsDoor:
        """Where tasks run, and whether they may."""
        from inferq.client.backends import RemoteBackends

        return RemoteBackends(self.transport)

    @property
    def schedules(self) -> SchedulesDoor:
        from inferq.client.schedules import RemoteSchedules

        return RemoteSchedules(self, self.transport)

    @property
    def keys(self) -> KeysDoor:
        from inferq.client.keys import RemoteKeys

        return RemoteKeys(self.transport, self._clock)

    @property
    def archive(self) -> ArchiveDoor:
        """The whole store as a file for another store."""
        from inferq.client.archive import RemoteArchive

        return RemoteArchive(self.transport)

    @property
    def webhooks(self) -> WebhooksDoor:
        from inferq.client.webhooks import RemoteWebhooks

        return RemoteWebhooks(self.transport)

    # submit ----------------------------------------------------------------------------------------------------------

    async def _submit_one(self, submission: Submission) -> AsyncHandle:
        request = post("tasks", json=_body(submission), again=True)
        return AsyncHandle(self, (await self.transport.ask(request, Submitted)).id)

    async def submit_many(self, submissions: Iterable[Submission | Mapping[str, Any]]) -> list[AsyncHandle]:
        """Keep them all in one transaction, or none; handles in order. An error names the wrong one: `submissions[3].payload...`."""
        given_all: Any = submissions
        if not isinstance(given_all, Iterable) or isinstance(given_all, str | bytes | Mapping):
            raise InvalidTask(f"expected a list of submissions, got {type(given_all).__name__}", field="submissions")
        bodies = []
        for index, given in enumerate(submissions):
            try:
                bodies.append(_body(given))
            except InvalidTask as error:
                raise _in_list(error, index) from None
        if not bodies:
            return []
        kept = await self.transport.ask(post("tasks", json=bodies, again=True), Listing[Submitted])
        return [AsyncHandle(self, one.id) for one in kept.items]

    # ask -------------------------------------------------------------------------------------------------------------

    async def get(self, id: str) -> Task:
        """Raises TaskNotFound."""
        return (await self.transport.ask(get("tasks", task_id(id)), TaskView)).task()

    async def list(self, where: Where = None, *, limit: int | None = None, after: Cursor | None = None) -> Page:
        """One page, newest first unless the filter says otherwise; pass the page's `after` to go on, until that is None."""
        said = query_of(where)
        wanted = page_size(limit, said)
        query: Query = {"q": str(said) or None, "limit": min(wanted, _LARGEST_PAGE), "after": checked_cursor(after)}
        page = await self.transport.ask(get("tasks", query=query), Listing[TaskView])
        return Page([view.task() for view in page.items], int(page.next) if page.next is not None and page.next.isdecimal() else page.next)

    async def attempts(self, id: str) -> builtins.list[AttemptRecord]:
        """Ended attempts of a task, first to last."""
        return (await self.transport.ask(get("tasks", task_id(id), "attempts"), Listing[AttemptRecord])).items

    async def stats(self) -> QueueStats:
        """Counts, from maintained counters."""
        view = await self.transport.ask(get("stats"), StatsView)
        return QueueStats(
            states=view.states,
            total=view.total,
            pending_by_priority={int(priority): count for priority, count in view.pending_by_priority.items()},
            pending_by_lane=view.pending_by_lane,
            workers_active=view.workers_active,
            workers_idle=view.workers_idle,
            paused=view.paused,
            executed_local=view.executed_local,
            executed_remote=view.executed_remote,
            draining=view.draining,
        )

    async def explain(self, id: str) -> Waiting:
        """Why a task waits: the gate that holds it, its position, an estimated start. Raises TaskNotFound."""
        return await self.transport.ask(get("tasks", task_id(id), "why"), Waiting)

    # change ----------------------------------------------------------------------------------------------------------

    async def cancel(self, *ids: str, reason: str = "") -> None:
        """Raises TaskNotFound, WrongState (of the first that had ended; the others are cancelled)."""
        body = {"reason": checked_text(reason, "reason", empty=True)}
        await self._each(ids, lambda one: post("tasks", one, "cancel", json=body))

    async def set_priority(self, id: str, priority: int | str) -> None:
        """Move a waiting task. Raises TaskNotFound, WrongState, InvalidTask."""
        body = {"priority": checked_priority(priority)}
        await self.transport.send(post("tasks", task_id(id), "priority", json=body, again=True))

    async def retry(self, *ids: str) -> None:
        """Make failed or cancelled tasks wait again. Raises TaskNotFound, WrongState."""
        await self._each(ids, lambda one: post("tasks", one, "retry"))

    async def delete(self, *ids: str) -> None:
        """Remove ended tasks with their results; there is no undo. Raises TaskNotFound, WrongState (of the first that has not ended)."""
        await self._each(ids, lambda one: delete("tasks", one))

    async def _each(self, ids: tuple[str, ...], request: Callable[[str], Request]) -> None:
        """Make a change of every task; of none when one of them does not exist. The first refusal is raised when all are done."""
        once = [*dict.fromkeys(checked_ids(ids))]
        slots = asyncio.Semaphore(_AT_ONCE)

        async def bounded(asked: Request) -> InferqError | None:
            async with slots:
                try:
                    await self.transport.send(asked)
                except InferqError as error:
                    return error
            return None

        if len(once) > 1:
            for missing in await asyncio.gather(*(bounded(get("tasks", task_id(id))) for id in once)):
                if missing is not None:
                    raise missing
        for refused in await asyncio.gather(*(bounded(request(task_id(id))) for id in once)):
            if refused is not None:
                raise refused

    async def pause(self, scope: str = "*") -> None:
        """Stop claims everywhere, or of one lane such as `ollama/qwen3`. Running tasks go on. Raises InvalidTask."""
        await self.transport.send(post("pause", json={"scope": checked_text(scope, "scope")}, again=True))

    async def resume(self, scope: str = "*") -> None:
        """Undo `pause` of the same scope; without one also `drain`. Raises InvalidTask."""
        await self.transport.send(post("resume", json={"scope": checked_text(scope, "scope")}, again=True))

    async def drain(self) -> None:
        """Take the queue out of service, in every process: nothing starts, and servers say on /readyz that they are not ready."""
        await self.transport.send(post("drain", again=True))

    async def paused(self) -> frozenset[str]:
        """Paused scopes."""
        return frozenset((await self.stats()).paused)

    # the store -------------------------------------------------------------------------------------------------------

    async def backup(self, path: str | Path) -> None:
        """A consistent copy into a new file on this machine, while work goes on. Raises StoreError when the file exists."""
        async with self.transport.stream(get("store", "backup"), timeout=_LONG) as reply:
            await save_new(Path(path), reply.chunks())

    async def check(self) -> builtins.list[str]:
        """What is wrong with the store; empty when it is sound."""
        return (await self.transport.ask(post("store", "check", again=True), Listing[str], timeout=_LONG)).items

    async def store_stats(self) -> StoreStats:
        """What the store says of itself, for operators."""
        return await self.transport.ask(get("store"), StoreStats)


def _body(given: Submission | Mapping[str, Any]) -> dict[str, Any]:
    """A submission for the wire, with an idempotency key, so that it can be sent again when its answer is lost. Raises InvalidTask."""
    submission = checked(given)
    body: dict[str, Any] = msgspec.to_builtins(submission)
    body["stream"] = submission.stream
    body.setdefault("key", f"client-{new_id()}")
    return body


def _in_list(error: InvalidTask, index: int) -> InvalidTask:
    error.args = (f"submissions[{index}]{'.' if error.field else ': '}{error.args[0]}",)
    error.field = f"submissions[{index}].{error.field}" if error.field else f"submissions[{index}]"
    return error
