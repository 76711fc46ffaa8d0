"""Runs the application under uvicorn: bounds that uvicorn lacks, sockets with clear errors, and a stop in the right order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import re
import resource
import signal
import socket
from asyncio import TimerHandle, Transport
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from inferq.config import ServerSettings
from inferq.errors import ConfigError, InvalidRequest, Rejected
from inferq.server.guard import is_loopback
from inferq.server.problems import encode, problem_of

if TYPE_CHECKING:
    from inferq.queue import AsyncQueue
    from inferq.server.app import App

_LARGEST_HEADERS = 65_536
_LARGEST_MESSAGE = 65_536
_BACKLOG = 2048
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
_OTHER_DESCRIPTORS = 256


class _Joined:
    """A transport that can keep the head of an answer back until its body comes: uvicorn writes them one after the other, and each
    write is a call of the system."""

    __slots__ = ("_head", "_holding", "_raw")

    def __init__(self, raw: Transport) -> None:
        self._raw = raw
        self._holding = False
        self._head = b""

    def hold(self) -> None:
        """What is written next goes out with what is written after it."""
        self._holding = True

    def write(self, data: bytes) -> None:
        if not self._holding:
            self._raw.write(data)
        elif not self._head:
            self._head = data
        else:
            self._raw.write(self._head + data)
            self._head, self._holding = b"", False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def _protocols(app: App) -> tuple[type[asyncio.Protocol], type[asyncio.Protocol]]:
    """Protocol classes with the application's time limits."""
    patience = app.settings.header_timeout

    class Http(HttpToolsProtocol):
        """Bounds the time and the size of a request's headers, and lets the application cut a connection."""

        _heading: TimerHandle | None = None
        _loose = 0
        """Bytes that are no body: of headers, of trailers, of what stands between the chunks of a body."""

        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._raw = transport
            self.transport = joined = _Joined(transport)  # type: ignore[assignment]
            self._hold = joined.hold
            self._served = self.app
            self._wait_for_headers()

        def _wait_for_headers(self) -> None:
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
            self._loose += len(data)
            super().data_received(data)
            if self._loose > _LARGEST_HEADERS:
                self._headers_came()
                self.transport.abort()

        def _is_idle(self) -> bool:
            cycle: Any = self.cycle
            return cycle is not None and cycle.response_complete

        def send_400_response(self, msg: str) -> None:
            """What is no HTTP is refused like everything else."""
            problem = problem_of(InvalidRequest(f"expected HTTP/1.1 with a target of at most 64 KB: {msg}"), "")
            content = encode(problem)
            head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(head % len(content) + content)
            self.transport.close()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.scope["inferq.abort"] = self._raw.abort  # type: ignore[typeddict-unknown-key]
            self.scope["inferq.hold"] = self._hold  # type: ignore[typeddict-unknown-key]

        def handle_websocket_upgrade(self) -> None:
            self.transport = self._raw
            super().handle_websocket_upgrade()

        def on_headers_complete(self) -> None:
            self._headers_came()
            self._loose = 0
            self.app = _busy if len(self.connections) > app.settings.max_connections else self._served
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._loose = 0
            super().on_body(body)

        def connection_lost(self, exc: Exception | None) -> None:
            self._headers_came()
            super().connection_lost(exc)

    class Socket(WebSocketsSansIOProtocol):
        """Lets the application cut a connection."""

        def handle_connect(self, event: Any) -> None:
            self.app = _with_abort(self.app, self.transport)
            super().handle_connect(event)

        async def send(self, message: Any) -> None:
            await super().send(message)
            if message["type"] == "websocket.http.response.body":
                # A refusal is an answer: without this uvicorn logs each as an error of the application.
                self.handshake_complete = True

    return Http, Socket


async def _busy(scope: Any, receive: Any, send: Any) -> None:
    """Refuse a request of one connection too many; it is closed, so that the next one may have its place."""
    del receive
    problem = problem_of(Rejected("expected fewer connections at a time (server.max_connections); try again", retry_after=1.0), "")
    content = encode(problem)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(content)),
        (b"retry-after", b"1"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})


def _with_abort(app: Any, transport: Transport) -> Any:
    async def cuttable(scope: Any, receive: Any, send: Any) -> None:
        scope["inferq.abort"] = transport.abort
        await app(scope, receive, send)

    return cuttable


def _prefix(root: str) -> str:
    """The prefix without a slash at its end. Raises ConfigError for one that no address could begin with."""
    if not _PREFIX.fullmatch(root):
        raise ConfigError(f"server.root_path: expected a prefix such as /inferq, of letters, digits and . _ ~ -, got {root!r}")
    return root.rstrip("/")


class Server(uvicorn.Server):
    """One listening server. `await serve()` runs it until `stop()`; `port` is the real one once it has started."""

    def __init__(self, app: App, *, host: str | None = None, port: int | None = None) -> None:
        settings: ServerSettings = app.settings
        http, websocket = _protocols(app)
        # Its lines about single connections are of no use to who runs a queue; ours say what matters.
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host if host is None else host,
                port=settings.port if port is None else port,
                http=http,
                ws=websocket,
                ws_max_size=_LARGEST_MESSAGE,
                # A compressing socket holds some 300 KB; a thousand of them would be the server's memory.
                ws_per_message_deflate=False,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=list(settings.trusted_proxies),
                root_path=_prefix(settings.root_path or ""),
                timeout_keep_alive=round(settings.keep_alive),
                timeout_graceful_shutdown=5,
                backlog=_BACKLOG,
            )
        )
        self.app = app
        self.listening = asyncio.Event()
        self._ending = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is loaded by now stays: the collector need not walk it again at each of its rounds, which requests would wait for.
        gc.collect()
        gc.freeze()
        self.listening.set()

    async def main_loop(self) -> None:
        """uvicorn's own looks ten times a second whether it should end; this one is told."""
        clock = asyncio.get_running_loop().time
        while not await self.on_tick(0):
            began = clock()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._ending.wait()
            self.app.lag = max(0.0, clock() - began - 1.0)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._listening_at()[1])

    @property
    def url(self) -> str:
        """Where this machine's programs reach it."""
        host = self._listening_at()[0]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}{self.config.root_path}"

    def _listening_at(self) -> Any:
        return self.servers[0].sockets[0].getsockname()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are the command's: it knows the order of a stop."""
        yield

    def stop(self) -> None:
        """End streams, then connections, then `serve`."""
        self.app.draining = True
        self.app.stopping.set()
        self.should_exit = True
        self._ending.set()


async def check_public(queue: AsyncQueue) -> None:
    """Refuse to listen for others while everybody would be an admin. Raises ConfigError."""
    settings = queue.settings.server
    if is_loopback(settings.host) or settings.insecure or await queue.keys.configured():
        return
    raise ConfigError(
        f"expected keys before listening on {settings.host}, where other machines can reach it: make one with `inferq keys create NAME`, "
        "or say --insecure (server.insecure) where something else keeps strangers out"
    )


def allow_descriptors(connections: int) -> None:
    """Let this process open a descriptor for each connection: many shells start with 1,024, which a thousand browsers use up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError when the address is taken or is not this machine's."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"server.host: expected an address of this machine, got {host!r}: {error.strerror or error}") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"server.port: expected a free port, got {port}: something listens on {host}:{port} already (another `inferq serve`?); "
                "choose another with --port"
            ) from None
        raise ConfigError(f"server: cannot listen on {host}:{port}: {error.strerror}") from None
    return made


async def run_until_stopped(server: Server, queue: AsyncQueue, listening: socket.socket, *, ready: Callable[[], object]) -> None:
    """Serve until SIGINT or SIGTERM. The first: not ready any more, no new claims, running tasks finish within their grace, streams end,
    connections close. The second: now. `ready` is called when requests are answered."""
    loop = asyncio.get_running_loop()
    asked, now = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(server.serve(sockets=[listening]))

    def ask() -> None:
        (now if asked.is_set() else asked).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    try:
        await _first(serving, server.listening)
        if not serving.done():
            ready()
            notify("READY=1")
            await _first(serving, asked)
        notify("STOPPING=1")
        server.app.draining = True
        stopping = asyncio.create_task(queue.stop())
        await _first(stopping, now)
        if now.is_set():
            await queue.stop(0)
        await stopping
        server.stop()
        await _first(serving, now)
        server.force_exit = now.is_set()
        await serving
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _first(task: asyncio.Task[None], event: asyncio.Event) -> None:
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def notify(state: str) -> None:
    """Tell systemd, where it started us with Type=notify (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as telling, contextlib.suppress(OSError):
            telling.connect("\0" + address[1:] if address.startswith("@") else address)
            telling.sendall(state.encode())
