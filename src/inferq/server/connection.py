"""One connection: the bounds that uvicorn lacks, of a request's headers in time and size, of how many there are, and a way to cut it."""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

from inferq.config import ServerSettings
from inferq.errors import InvalidRequest, Rejected
from inferq.server.problems import encode, problem_of

_LARGEST_HEADERS = 65_536


def http_of(settings: ServerSettings) -> type[Http]:
    """The HTTP protocol with these limits; uvicorn makes one a connection."""

    class Limited(Http):
        limits = settings

    return Limited


class Http(HttpToolsProtocol):
    """Bounds the time and the size of a request's headers, and lets the application cut a connection."""

    limits: ClassVar[ServerSettings]
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
            self._heading = self.loop.call_later(self.limits.header_timeout, self._too_late)

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
        self.app = _busy if len(self.connections) > self.limits.max_connections else self._served
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._loose = 0
        super().on_body(body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        super().connection_lost(exc)


class Socket(WebSocketsSansIOProtocol):
    """Lets the application cut a connection, and takes what is no text for the client's mistake."""

    def handle_connect(self, event: Any) -> None:
        self.app = _with_abort(self.app, self.transport)
        super().handle_connect(event)

    def send_receive_event_to_app(self) -> None:
        if self.conn.state is not State.OPEN:
            self.frames = []  # it is being closed: what came with the reason for that counts no more
            return
        if self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
            # Without this uvicorn logs a traceback for it, and fails when more such frames came at once.
            self.frames = []
            self.conn.send_close(1007)
            self.handle_parser_exception()
            return
        super().send_receive_event_to_app()

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            # A refusal is an answer: without this uvicorn logs each as an error of the application.
            self.handshake_complete = True


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


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
