"""A scripted HTTP server on loopback: says what it is told, remembers what it was asked, notices when the caller hangs up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Seen:
    """One request as it arrived; `peer` is the caller's port, which tells connections apart."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    peer: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Double:
    """Answers each request with the next handler of its script, the last one for ever."""

    script: list[Handler] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def says(self, *handlers: Handler) -> None:
        self.script[:] = handlers

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        peer = request.transport.get_extra_info("peername")[1] if request.transport else 0
        try:
            body = await request.read()
            self.seen.append(Seen(request.method, request.path_qs, dict(request.headers), body, peer))
            handler = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            self.reached.set()
            return await handler(request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.hung_up.set()
            raise


def says(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Handler:
    """A whole JSON answer."""

    async def handle(_: web.Request) -> web.StreamResponse:
        return web.json_response(value, status=status, headers=headers)

    return handle


def says_text(
    text: str | bytes, *, status: int = 200, content_type: str = "text/html", headers: Mapping[str, str] | None = None
) -> Handler:
    """A whole answer of any kind."""

    async def handle(_: web.Request) -> web.StreamResponse:
        body = text if isinstance(text, bytes) else text.encode()
        return web.Response(body=body, status=status, content_type=content_type, headers=headers)

    return handle


def streams(pieces: Iterable[bytes], *, content_type: str, end: str = "clean") -> Handler:
    """A body in pieces. `end`: `clean`, `cut` (the connection breaks) or `hang` (silence until the caller goes)."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        if end == "hang":
            await asyncio.Event().wait()
        if end == "cut":
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write_eof()
        return response

    return handle


async def never(_: web.Request) -> web.StreamResponse:
    """No answer at all, until the caller goes."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")
