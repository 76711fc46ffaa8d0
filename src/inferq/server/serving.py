"""Runs the application under uvicorn: bounds that uvicorn lacks, and a stop in the right order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from asyncio import TimerHandle, Transport
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from inferq.config import ServerSettings

if TYPE_CHECKING:
    from inferq.server.app import App

_LARGEST_HEADERS = 65_536
_LARGEST_MESSAGE = 65_536
_BACKLOG = 2048


def _protocols(app: App) -> tuple[type[asyncio.Protocol], type[asyncio.Protocol]]:
    """Protocol classes with the application's time limits."""
    patience = app.settings.header_timeout

    class Http(HttpToolsProtocol):
        """Bounds the time and the size of a request's headers, and lets the application cut a connection."""

        _heading: TimerHandle | None = None
        _head_size = 0

        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait_for_headers()

        def _wait_for_headers(self) -> None:
            self._head_size = 0
            if self._heading is None:
                self._heading = self.loop.call_later(patience, self._too_late)

        def _too_late(self) -> None:
            self._heading = None
            self.transport.abort()

        def _headers_came(self) -> None:
            if self._heading is not None:
                self._heading.cancel()
                self._heading = None

        def data_received(self, data: bytes) -> None:
            if self._heading is None and self._is_idle():
                # The next request on a connection that was kept.
                self._wait_for_headers()
            if self._heading is not None:
                self._head_size += len(data)
            super().data_received(data)
            if self._heading is not None and self._head_size > _LARGEST_HEADERS:
                self._headers_came()
                self.transport.abort()

        def _is_idle(self) -> bool:
            cycle: Any = self.cycle
            return cycle is not None and cycle.response_complete

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.scope["inferq.abort"] = self.transport.abort  # type: ignore[typeddict-unknown-key]

        def on_headers_complete(self) -> None:
            self._headers_came()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._headers_came()
            super().connection_lost(exc)

    class Socket(WebSocketsSansIOProtocol):
        """Lets the application cut a connection."""

        def handle_connect(self, event: Any) -> None:
            self.app = _with_abort(self.app, self.transport)
            super().handle_connect(event)

    return Http, Socket


def _with_abort(app: Any, transport: Transport) -> Any:
    async def cuttable(scope: Any, receive: Any, send: Any) -> None:
        scope["inferq.abort"] = transport.abort
        await app(scope, receive, send)

    return cuttable


class Server(uvicorn.Server):
    """One listening server. `await serve()` runs it until `stop()`; `port` is the real one once it has started."""

    def __init__(self, app: App, *, host: str | None = None, port: int | None = None) -> None:
        settings: ServerSettings = app.settings
        http, websocket = _protocols(app)
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host if host is None else host,
                port=settings.port if port is None else port,
                http=http,
                ws=websocket,
                ws_max_size=_LARGEST_MESSAGE,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=list(settings.trusted_proxies),
                root_path=(settings.root_path or "").rstrip("/"),
                limit_concurrency=settings.max_connections,
                timeout_keep_alive=round(settings.keep_alive),
                timeout_graceful_shutdown=5,
                backlog=_BACKLOG,
            )
        )
        self.app = app
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @property
    def port(self) -> int:
        return int(self.servers[0].sockets[0].getsockname()[1])

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are the command's: it knows the order of a stop."""
        yield

    def stop(self) -> None:
        """End streams, then connections, then `serve`."""
        self.app.draining = True
        self.app.stopping.set()
        self.should_exit = True
