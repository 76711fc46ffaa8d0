"""Bulk operations of a queue behind a server: the server carries them out, whether the client stays or not."""

from __future__ import annotations

import builtins
import time
from datetime import timedelta
from typing import Any, Final

from inferq.client.transport import Transport, get, post
from inferq.door.operations import OperationsDoor
from inferq.errors import RecordNotFound, WaitTimeout
from inferq.given import checked_priority, checked_seconds
from inferq.operation import Operation, Verb, asked_of, check_arguments
from inferq.wire.native import Listing

_POLL: Final = 25.0
"""Seconds that one request waits for the end; longer ones are cut by proxies."""


class RemoteOperations(OperationsDoor):
    """Each method is a request; only the start of an operation is never made twice."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def start(
        self,
        verb: Verb,
        q: str,
        *,
        priority: int | str | None = None,
        reason: str = "",
        dry_run: bool = False,
        expected: int | None = None,
        bound: int | None = None,
    ) -> Operation:
        level = None if priority is None else checked_priority(priority)
        asked_of(verb, q)
        check_arguments(verb, level)
        body = {"verb": verb, "q": q, "priority": level, "reason": reason, "dry_run": dry_run, "expected": expected, "bound": bound}
        given = {name: value for name, value in body.items() if value is not None}
        return await self._transport.ask(post("operations", json=given, again=dry_run), Operation)

    async def get(self, id: str) -> Operation:
        return await self._transport.ask(get("operations", _id(id)), Operation)

    async def list(self, *, limit: int = 50) -> builtins.list[Operation]:
        return (await self._transport.ask(get("operations", query={"limit": limit}), Listing[Operation])).items

    async def stop(self, id: str) -> Operation:
        return await self._transport.ask(post("operations", _id(id), "stop", again=True), Operation)

    async def wait(self, id: str, timeout: float | str | timedelta | None = None) -> Operation:
        limit = checked_seconds(timeout, "timeout")
        end = None if limit is None else time.monotonic() + limit
        while True:
            left = _POLL if end is None else max(0.0, min(_POLL, end - time.monotonic()))
            found = await self._transport.ask(get("operations", _id(id), query={"wait": round(left, 3)}), Operation)
            if found.is_over:
                return found
            if end is not None and time.monotonic() >= end:
                raise WaitTimeout(f"operation {id} is not over within {limit:g} s; it goes on, ask again later")


def _id(id: Any) -> str:
    if not isinstance(id, str) or not id:
        raise RecordNotFound(f"expected the id of an operation, got {id!r}: there is none")
    return id
