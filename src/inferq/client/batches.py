"""Batches of a queue behind a server: files go up as they are read, results come down as they are made."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final

import msgspec

from inferq.batch import Batch, BatchFailures, BatchItem, Form
from inferq.client.transport import Query, Request, Transport, delete, get, post
from inferq.clock import Clock
from inferq.door import AsyncDoor
from inferq.door.batches import BatchesDoor, Failures, Loaded, LoadOptions, checked_limit
from inferq.errors import BatchNotFound, TaskNotFound, TransportError, WaitTimeout
from inferq.given import checked_priority
from inferq.task import State
from inferq.wire.batches import Added, Counted
from inferq.wire.native import Listing

_UPLOAD: Final = 6 * 3600.0
"""Seconds that reading, checking and keeping a file may take."""
_MOST: Final = 1000
"""Items of a page that the server gives at most."""
_LONG_POLL: Final = 20.0


class RemoteBatches(BatchesDoor):
    """Each method is a request; a file is one request too, so that it is kept whole or not at all."""

    def __init__(self, door: AsyncDoor, transport: Transport, clock: Clock) -> None:
        self._door = door
        self._transport = transport
        self._clock = clock

    # coming in -------------------------------------------------------------------------------------------------------

    async def load(self, pieces: AsyncIterable[bytes], form: Form, options: LoadOptions) -> Loaded:
        fields = dict(form.fields)
        query: dict[str, Any] = {
            "name": options.name,
            "prompt": form.prompt,
            "system": form.system,
            "action": form.action,
            "key": form.key,
            "model": form.model or None,
            "executor": form.executor or None,
            "resume": options.resume,
            "skip_errors": options.skip_errors,
            "max_errors": options.max_errors,
            "seal": options.seal,
            "source": options.source or None,
            "fields": msgspec.json.encode(fields).decode() if fields else None,
            "metadata": msgspec.json.encode(options.metadata).decode() if options.metadata else None,
        }
        loaded: Loaded = await self._upload(post("batches", "import", query=query), pieces, Loaded)
        return loaded

    async def _upload(self, request: Request, pieces: AsyncIterable[bytes], kind: type[Any]) -> Any:
        request = msgspec.structs.replace(request, headers={"Content-Type": "application/x-ndjson"})
        async with self._transport.stream(request, body=_whole(pieces), timeout=_UPLOAD) as reply:
            body = b"".join([piece async for piece in reply.chunks()])
        return self._transport.decoded(body, kind)

    async def _create(self, name: str | None, metadata: dict[str, Any]) -> Batch:
        return await self._transport.ask(post("batches", json={"name": name, "metadata": metadata}), Batch)

    async def add_lines(self, batch: str, pieces: AsyncIterable[bytes], form: Form, *, first: int | None = None) -> int:
        request = post("batches", _name(batch), "tasks", query={"first": first, "key": form.key})
        added: Added = await self._upload(request, pieces, Added)
        return added.added

    async def seal(self, batch: str, *, sealed: bool = True) -> Batch:
        return await self._transport.ask(post("batches", _name(batch), "seal", json={"sealed": sealed}, again=True), Batch)

    # asking ----------------------------------------------------------------------------------------------------------

    async def get(self, batch: str) -> Batch:
        return await self._transport.ask(get("batches", _name(batch)), Batch)

    async def list(
        self, *, name: str | None = None, unfinished: bool = False, tenant: str | None = None, after: str | None = None, limit: int = 50
    ) -> builtins.list[Batch]:
        found: builtins.list[Batch] = []
        checked_limit(limit)
        while len(found) < limit:
            count = min(_MOST, limit - len(found))
            query: Query = {"name": name, "unfinished": unfinished, "tenant": tenant, "after": after, "limit": count}
            page = await self._transport.ask(get("batches", query=query), Listing[Batch])
            found += page.items
            if page.next is None:
                break
            after = page.next
        return found

    async def items(
        self, batch: str, *, after: int = 0, limit: int = 100, states: Sequence[State] = (), results: bool = True
    ) -> builtins.list[BatchItem]:
        found: builtins.list[BatchItem] = []
        checked_limit(limit)
        while len(found) < limit:
            query: Query = {
                "after": after, "limit": min(_MOST, limit - len(found)), "state": [str(state) for state in states], "results": results,
            }  # fmt: skip
            page = await self._transport.ask(get("batches", _name(batch), "items", query=query), Listing[BatchItem])
            found += page.items
            if page.next is None:
                break
            after = int(page.next)
        return found

    async def failures(self, batch: str) -> Failures:
        return Failures((await self._transport.ask(get("batches", _name(batch), "errors"), Listing[BatchFailures])).items)

    # waiting ---------------------------------------------------------------------------------------------------------

    async def _changed(self, batch: Batch, within: float) -> None:
        wait = min(within, _LONG_POLL)
        await self._transport.ask(get("batches", batch.id, query={"wait": wait}), Batch, timeout=wait + self._transport.timeout)

    async def _ended(self, task_id: str, within: float) -> None:
        with suppress(WaitTimeout, TaskNotFound):
            await self._door.wait(task_id, timeout=within)

    async def results(self, batch: str, *, follow: bool = True, after: int = 0) -> AsyncGenerator[BatchItem]:
        """From one answer that is read as it comes; when the connection is cut, from another that begins where it ended."""
        name, place = _name(batch), after
        pauses = self._transport.backoff()
        while True:
            begun = place
            request = get("batches", name, "results", query={"follow": follow, "after": place})
            try:
                async with self._transport.stream(request) as reply, aclosing(_lines(reply.chunks())) as lines:
                    async for line in lines:
                        item = self._transport.decoded(line, BatchItem)
                        place = item.line
                        pauses.reset()
                        yield item
                # A server that stops ends its answers too: it is the end only when the batch has ended and nothing more came.
                if not follow or (place == begun and (await self.get(batch)).ended):
                    return
            except TransportError:
                if not self._transport.met:
                    raise
                await asyncio.sleep(pauses.next())

    # changing --------------------------------------------------------------------------------------------------------

    async def cancel(self, batch: str, *, reason: str = "") -> Batch:
        return await self._transport.ask(post("batches", _name(batch), "cancel", json={"reason": reason}, again=True), Batch)

    async def retry_failed(self, batch: str, *, only: str | Sequence[str] = (), cancelled: bool = False) -> int:
        codes = [only] if isinstance(only, str) else list(only)
        body = {"only": codes, "cancelled": cancelled}
        return (await self._transport.ask(post("batches", _name(batch), "retry", json=body), Counted)).count

    async def pause(self, batch: str) -> Batch:
        return await self._transport.ask(post("batches", _name(batch), "pause", again=True), Batch)

    async def resume(self, batch: str) -> Batch:
        return await self._transport.ask(post("batches", _name(batch), "resume", again=True), Batch)

    async def set_priority(self, batch: str, priority: int | str) -> int:
        body = {"priority": checked_priority(priority)}
        return (await self._transport.ask(post("batches", _name(batch), "priority", json=body, again=True), Counted)).count

    async def delete(self, batch: str) -> None:
        await self._transport.send(delete("batches", _name(batch)))


async def _whole(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield piece


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


def _name(batch: Any) -> str:
    if not isinstance(batch, str) or not batch:
        raise BatchNotFound(f"expected the id or the name of a batch, got {batch!r}")
    try:
        batch.encode()
    except UnicodeEncodeError:
        raise BatchNotFound(f"expected the id or the name of a batch, got {batch!r}") from None
    return batch
