"""Connections to one server: requests out, answers in, over asyncio and the parser of httptools, which nothing else here knows.

Chosen by measurement (ARCHITECTURE.md): it starts in 3 ms where the engine's client needs 150, which a command line feels, and costs a
sixth of its CPU a call. What goes wrong is told apart by what matters to whoever may ask again: the request surely never left
(ConnectFailed), it left and the answer is missing (ConnectionLost, RequestTimeout), or what came is no HTTP (ProtocolError).

Sources: RFC 9112 (HTTP/1.1 messages and connections). No redirects are followed: they would carry the key elsewhere. No proxies.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import httptools

from inferq.errors import ConfigError, ConnectFailed, ConnectionLost, ProtocolError, RequestTimeout, TransportError

KEEP_IDLE: Final = 4.0
"""Seconds an idle connection is kept: some servers close theirs after 5, and a request that meets the closing is lost."""
MAX_AT_ONCE: Final = 100
"""Requests that are out at the same time, streams not counted; further ones wait for their turn."""
MAX_BODY: Final = 1024 * 1024 * 1024
"""Bytes of one whole answer that are accepted."""
_MAX_HEAD: Final = 256 * 1024
_HIGH_WATER: Final = 1024 * 1024
"""Bytes of a body that may wait for their reader before the connection is not read any more."""
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e\t]*")


class Reply:
    """A whole answer. `headers` has lower-case names; the values of a repeated header are joined by a comma."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class _Connection(asyncio.Protocol):
    """One connection, one request at a time. The callbacks named `on_...` are the parser's."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.idle_since = 0.0
        self._open_for_writing = asyncio.Event()
        self._open_for_writing.set()
        self._gone = False
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = True
        self._head: asyncio.Future[None] | None = None
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._wake: asyncio.Future[None] | None = None
        self._error: TransportError | None = None
        self._until_close = False
        self._head_size = 0
        self._reusable = False

    # what asyncio tells ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - narrows the type
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.complete:
            # Nobody asked: whatever this is, no later answer may be taken from it.
            self.abort()
            return
        try:
            if self.status == 0:
                self._head_size += len(data)
            self._parser.feed_data(data)
            if self.status == 0 and self._head_size > _MAX_HEAD:
                self._fail(ProtocolError(f"{self._origin} sent more than {_MAX_HEAD} bytes of headers"))
        except httptools.HttpParserUpgrade:
            self._fail(ProtocolError(f"{self._origin} wants to change to another protocol"))
        except httptools.HttpParserError as error:
            self._fail(ProtocolError(f"{self._origin} answered with something that is not HTTP ({error})"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._open_for_writing.set()
        if self.complete:
            return
        if self._until_close and exc is None:
            self._end()
            return
        why = f" ({exc})" if exc is not None and str(exc) else ""
        self._fail(ConnectionLost(f"the connection to {self._origin} was cut before the answer had come{why}"))

    def pause_writing(self) -> None:
        self._open_for_writing.clear()

    def resume_writing(self) -> None:
        self._open_for_writing.set()

    # what the parser tells -------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            # An interim answer; the real one follows.
            self.headers = {}
            return
        self.status = status
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        self._until_close = not framed and status not in (204, 304)
        if self._head is not None and not self._head.done():
            self._head.set_result(None)

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._waiting += len(body)
        if self._waiting > _HIGH_WATER and self.transport is not None:
            self.transport.pause_reading()
        self._awake()

    def on_message_complete(self) -> None:
        if self.status:
            self._reusable = self._parser.should_keep_alive() and not self._until_close
            self._end()

    def _end(self) -> None:
        self.complete = True
        self._awake()

    def _fail(self, error: TransportError) -> None:
        self._error = self._error or error
        self.complete = True
        if self._head is not None and not self._head.done():
            self._head.set_result(None)
        self._awake()
        self.abort()

    def _awake(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # what the link does with it --------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether another request may be sent on it."""
        return not self._gone and self.transport is not None and not self.transport.is_closing() and self.complete and self._error is None

    @property
    def reusable(self) -> bool:
        """Whether its answer has ended so that another may follow."""
        return self._reusable and self.usable and not self._pieces

    async def ask(self, head: bytes, body: bytes | AsyncIterator[bytes] | None) -> None:
        """Send a request and wait for the head of its answer. Raises TransportError."""
        assert self.transport is not None  # noqa: S101 - narrows the type
        self._reset()
        self.complete = False
        self._head = self._loop.create_future()
        self.transport.write(head + body if isinstance(body, bytes) else head)
        if body is not None and not isinstance(body, bytes):
            await self._upload(body)
        await self._head
        if self._error is not None and not self.status:
            raise self._error

    async def _upload(self, body: AsyncIterator[bytes]) -> None:
        """A body of unknown length, in chunks (RFC 9112, 7.1). An answer before its end, such as a refusal, ends it."""
        assert self.transport is not None  # noqa: S101 - narrows the type
        async for piece in body:
            await self._open_for_writing.wait()
            if self.status or self._gone:
                return
            if piece:
                self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.transport.write(b"0\r\n\r\n")

    async def some(self) -> bytes:
        """What of the body has come, at least one byte; empty at its end. Raises TransportError."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self.complete:
                return b""
            self._wake = self._loop.create_future()
            await self._wake
        piece = self._pieces.popleft() if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        if self._waiting > _HIGH_WATER and self.transport is not None and not self._gone:
            self.transport.resume_reading()
        self._waiting = 0
        return piece

    def abort(self) -> None:
        """Close it now: the other side sees the hang-up."""
        if self.transport is not None:
            self.transport.abort()


class StreamedReply:
    """An answer whose body is still arriving; valid inside `Link.stream` only."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers

    async def some(self) -> bytes:
        """What of the body has come since, at least one byte; empty at its end. Raises ConnectionLost when it is cut."""
        return await self._connection.some()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces of any size, each as soon as it has come."""
        while piece := await self.some():
            yield piece


class Link:
    """Connections to one server, made when first needed and kept for reuse; belongs to one event loop.

    `url` is http://host[:port][/prefix], or https. `connect_timeout` (seconds) bounds looking the name up, connecting and TLS.
    """

    def __init__(self, url: str, *, connect_timeout: float, headers: Mapping[str, str]) -> None:
        self.url = checked_url(url)
        self.origin = origin_of(self.url)
        parts = urlsplit(self.url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._prefix = parts.path
        self._connect_timeout = connect_timeout
        self._headers = _lines({"Host": parts.netloc, "User-Agent": "inferq", **headers})
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._ssl: Any = None
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)

    async def send(self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str], timeout: float) -> Reply:
        """Ask and read the whole answer, within `timeout` seconds. Raises TransportError in its kinds."""
        try:
            async with asyncio.timeout(timeout), self._slots, self._asked(method, path, body, headers) as connection:
                pieces: list[bytes] = []
                size = 0
                while piece := await connection.some():
                    pieces.append(piece)
                    size += len(piece)
                    if size > MAX_BODY:
                        raise ProtocolError(f"{self.origin} sent an answer of more than {MAX_BODY:,} bytes")
                return Reply(connection.status, connection.headers, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        except TimeoutError as error:
            if isinstance(error, TransportError):
                raise
            raise RequestTimeout(f"{self.origin} did not answer within {timeout:g} s") from error

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *, body: bytes | AsyncIterator[bytes] | None = None, headers: Mapping[str, str], timeout: float
    ) -> AsyncIterator[StreamedReply]:
        """Ask, and give the answer once its head came, within `timeout`; leaving before its end closes the connection."""
        async with self._asked(method, path, body, headers, timeout) as connection:
            yield StreamedReply(connection)

    async def close(self) -> None:
        """Close every connection; a later request opens anew."""
        idle, self._idle = self._idle, []
        for connection in (*idle, *self._busy):
            connection.abort()
        if idle:
            await asyncio.sleep(0)  # transports close in the loop's next turn; without it they are reported as leaked

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        path: str,
        body: bytes | AsyncIterator[bytes] | None,
        headers: Mapping[str, str],
        timeout: float | None = None,
    ) -> AsyncIterator[_Connection]:
        head = self._head(method, path, body, headers)
        connection: _Connection | None = None
        try:
            # An upload takes as long as its source; its answer comes when it has ended.
            async with asyncio.timeout(timeout if body is None or isinstance(body, bytes) else None):
                connection = await self._connected()
                self._busy.add(connection)
                await connection.ask(head, body)
        except BaseException as error:
            self._drop(connection)
            if isinstance(error, TimeoutError) and not isinstance(error, TransportError):
                if timeout is None:
                    raise
                raise RequestTimeout(f"{self.origin} did not begin to answer within {timeout:g} s") from error
            raise
        try:
            yield connection
        finally:
            if connection.reusable:
                self._busy.discard(connection)
                connection.idle_since = asyncio.get_running_loop().time()
                self._idle.append(connection)
            else:
                self._drop(connection)

    def _drop(self, connection: _Connection | None) -> None:
        if connection is not None:
            self._busy.discard(connection)
            connection.abort()

    async def _connected(self) -> _Connection:
        if self._idle:
            # Two turns of the loop: the first reads, the second handles what the server did to idle connections meanwhile.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        oldest = asyncio.get_running_loop().time() - KEEP_IDLE
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since > oldest:
                return connection
            connection.abort()
        return await self._connect()

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        made = _Connection(self.origin)
        how: dict[str, Any] = {"ssl": self._tls(), "server_hostname": self._host} if self._secure else {}
        try:
            async with asyncio.timeout(self._connect_timeout) as limit:
                await loop.create_connection(lambda: made, self._host, self._port, happy_eyeballs_delay=0.25, **how)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._no_server(f"no answer within {self._connect_timeout:g} s") from error
        except (OSError, UnicodeError) as error:
            raise self._no_server(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error
        return made

    def _no_server(self, why: str) -> ConnectFailed:
        return ConnectFailed(f"No server at {self.origin} ({why[:200]}). Start one with `inferq serve` or set INFERQ_URL.")

    def _tls(self) -> Any:
        if self._ssl is None:
            import ssl  # here, because plain connections need none

            self._ssl = ssl.create_default_context()
        return self._ssl

    def _head(self, method: str, path: str, body: object, headers: Mapping[str, str]) -> bytes:
        length = {"Content-Length": str(len(body))} if isinstance(body, bytes) else {} if body is None else {"Transfer-Encoding": "chunked"}
        if body is None and method in ("POST", "PUT"):
            length = {"Content-Length": "0"}
        return f"{method} {self._prefix}{path} HTTP/1.1\r\n".encode("ascii") + self._headers + _lines({**headers, **length}) + b"\r\n"


def _lines(headers: Mapping[str, str]) -> bytes:
    for name, value in headers.items():
        if not _HEADER_VALUE.fullmatch(value):
            # Not the value: it may be a key.
            raise ConfigError(f"expected printable ASCII in the header {name}, got something else; a key has no other characters")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("ascii")


def checked_url(url: str) -> str:
    """A server's address without its last slash. Raises ConfigError for what is none."""
    shown = url if "@" not in url else f"{url.partition(':')[0]}://***@{url.rpartition('@')[2]}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or not re.fullmatch(r"[\x21-\x7e]+", url):
        raise ConfigError(f"expected a server's address such as http://127.0.0.1:7125, got {shown!r}")
    if parts.username or parts.password:
        raise ConfigError(f"expected a server's address without a name or password, got {shown!r}; give the key as api_key")
    return url.rstrip("/")


def origin_of(url: str) -> str:
    """Scheme, host and port of an address, as shown to people."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
