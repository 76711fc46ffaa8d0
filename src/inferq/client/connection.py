"""One connection: a request out, its answer in, over asyncio and the parser of httptools, which nothing else here knows.

Source: RFC 9112 (HTTP/1.1 messages and connections).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

import httptools

from inferq.errors import ConnectionLost, ProtocolError, TransportError

_MAX_HEAD: Final = 256 * 1024
_HIGH_WATER: Final = 1024 * 1024
"""Bytes of a body that may wait for their reader before the connection is not read any more."""


class Connection(asyncio.Protocol):
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

    def on_message_begin(self) -> None:
        if self.complete:
            # After the answer there is more, which nobody asked for.
            self._reusable = False
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.complete:
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        if self.complete:
            return
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
        if self.complete:
            return
        self._pieces.append(body)
        self._waiting += len(body)
        if self._waiting > _HIGH_WATER and self.transport is not None:
            self.transport.pause_reading()
        self._awake()

    def on_message_complete(self) -> None:
        if self.status and not self.complete:
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
