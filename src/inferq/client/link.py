"""Connections to one server: made when needed, kept for reuse, closed when their answer is not read to its end.

Chosen by measurement (docs/decisions.md): it starts in 3 ms where the engine's client needs 150, which a command line feels, and costs a
sixth of its CPU a call. What goes wrong is told apart by what matters to whoever may ask again: the request surely never left
(ConnectFailed), it left and the answer is missing (ConnectionLost, RequestTimeout), or what came is no HTTP (ProtocolError).

No redirects are followed: they would carry the key elsewhere. No proxies.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from inferq.client.connection import Connection
from inferq.errors import ConfigError, ConnectFailed, ProtocolError, RequestTimeout, TransportError
from inferq.net import reason_of

KEEP_IDLE: Final = 4.0
"""Seconds an idle connection is kept: some servers close theirs after 5, and a request that meets the closing is lost."""
MAX_AT_ONCE: Final = 100
"""Requests that are out at the same time, streams not counted; further ones wait for their turn."""
MAX_BODY: Final = 1024 * 1024 * 1024
"""Bytes of one whole answer that are accepted."""
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e\t]*")


class Reply:
    """A whole answer. `headers` has lower-case names; the values of a repeated header are joined by a comma."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class StreamedReply:
    """An answer whose body is still arriving; valid inside `Link.stream` only."""

    def __init__(self, connection: Connection) -> None:
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
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
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
    ) -> AsyncIterator[Connection]:
        head = self._head(method, path, body, headers)
        connection: Connection | None = None
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

    def _drop(self, connection: Connection | None) -> None:
        if connection is not None:
            self._busy.discard(connection)
            connection.abort()

    async def _connected(self) -> Connection:
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

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        made = Connection(self.origin)
        how: dict[str, Any] = {"ssl": self._tls(), "server_hostname": self._host} if self._secure else {}
        try:
            async with asyncio.timeout(self._connect_timeout) as limit:
                await loop.create_connection(lambda: made, self._host, self._port, happy_eyeballs_delay=0.25, **how)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._no_server(f"no answer within {self._connect_timeout:g} s") from error
        except (OSError, UnicodeError) as error:
            raise self._no_server(reason_of(error)) from error
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
