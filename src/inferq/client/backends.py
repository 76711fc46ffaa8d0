"""Backends of a queue behind a server."""

from __future__ import annotations

import builtins
from typing import Any, Final, Literal

from inferq.backend import BackendInfo
from inferq.client.transport import Transport, get, post
from inferq.door.backends import BackendsDoor, Held, Tested
from inferq.errors import RecordNotFound
from inferq.wire.native import Listing

_GRACE: Final = 10.0
"""Seconds beyond those that the server gives a backend."""


class RemoteBackends(BackendsDoor):
    """Each method is a request."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self) -> builtins.list[BackendInfo]:
        return (await self._transport.ask(get("backends"), Listing[BackendInfo])).items

    async def get(self, name: str) -> BackendInfo:
        return await self._transport.ask(get("backends", _known(name)), BackendInfo)

    async def test(self, name: str) -> Tested:
        return await self._transport.ask(post("backends", _known(name), "test", again=True), Tested)

    async def _hold(self, name: str, model: str, verb: Literal["load", "unload"], keep: float | None, timeout: float) -> Held:
        body = {"model": model, "timeout": timeout} | ({} if keep is None else {"keep": keep})
        return await self._transport.ask(post("backends", _known(name), verb, json=body, again=True), Held, timeout=timeout + _GRACE)

    async def enable(self, name: str) -> BackendInfo:
        return await self._transport.ask(post("backends", _known(name), "enable", again=True), BackendInfo)

    async def _switch(self, name: str, state: str, reason: str) -> BackendInfo:
        verb = "drain" if state == "draining" else "disable"
        return await self._transport.ask(post("backends", _known(name), verb, json={"reason": reason}, again=True), BackendInfo)


def _known(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise RecordNotFound(f"expected the name of a backend, got {name!r}")
    return name
