"""The door of a queue behind a server: every method is a request to it."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from inferq.client.asking import Asking
from inferq.client.changing import Changing
from inferq.client.files import save_new
from inferq.client.transport import Transport, get, post
from inferq.client.watching import Watching
from inferq.clock import SystemClock, seconds
from inferq.config.secret import Secret
from inferq.door.arguments import prepared
from inferq.errors import StoreClosed
from inferq.handle import AsyncHandle, Duration
from inferq.intake import checked
from inferq.store import Compacted, StoreStats
from inferq.task import Submission, new_id
from inferq.wire.native import Listing, Submitted

if TYPE_CHECKING:
    from inferq.door.archive import ArchiveDoor
    from inferq.door.backends import BackendsDoor
    from inferq.door.batches import BatchesDoor
    from inferq.door.keys import KeysDoor
    from inferq.door.operations import OperationsDoor
    from inferq.door.schedules import SchedulesDoor
    from inferq.door.webhooks import WebhooksDoor

_LONG: Final = 3600.0
"""Seconds that looking through a whole store may take."""


class AsyncClient(Asking, Watching, Changing):
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
        bodies = prepared(submissions, _body)
        if not bodies:
            return []
        kept = await self.transport.ask(post("tasks", json=bodies, again=True), Listing[Submitted])
        return [AsyncHandle(self, one.id) for one in kept.items]

    # the store -------------------------------------------------------------------------------------------------------

    async def backup(self, path: str | Path) -> None:
        """A consistent copy into a new file on this machine, while work goes on. Raises StoreError when the file exists."""
        async with self.transport.stream(get("store", "backup"), timeout=_LONG) as reply:
            self.transport.expect(reply, "application/vnd.sqlite3", "a copy of the store")
            await save_new(Path(path), reply.chunks())

    async def compact(self, *, dry_run: bool = False) -> Compacted:
        """Give space that removed tasks have left in the store back to the disk; nobody can write meanwhile."""
        return await self.transport.ask(post("store", "compact", query={"dry_run": dry_run}), Compacted, timeout=_LONG)

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
