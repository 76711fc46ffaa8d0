"""Clients written by hand, which keep to no rule, and a look at what they leave behind."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec

from inferq.testing import wait_until


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def nothing_left(site: Any) -> AsyncIterator[None]:
    """Inside, clients may do what they want; afterwards descriptors, tasks and connections are what they were."""
    await site.get("/api/stats")
    # The store's readers open their connections when they are first needed.
    await asyncio.gather(*(site.queue.stats() for _ in range(100)))
    gc.collect()
    before, tasks = descriptors(), len(asyncio.all_tasks())
    yield
    await wait_until(lambda: not site.server.server_state.tasks, timeout=20)
    await wait_until(lambda: len(site.server.server_state.connections) <= 1, timeout=20)  # the test's own, kept alive
    await wait_until(lambda: len(asyncio.all_tasks()) <= tasks, timeout=20)
    await wait_until(lambda: descriptors() <= before, timeout=20)
    assert site.app.sockets == 0


async def handshake(url: str, reading: int | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket by hand: this client does not even answer a ping."""
    host, port = url.removeprefix("http://").split(":")
    raw = socket.socket()
    raw.setblocking(False)
    if reading is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, reading)
    await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=raw, limit=1024)
    writer.write(
        f"GET /ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"101" in head.split(b"\r\n")[0]
    return reader, writer


def frame(content: bytes, opcode: int = 0x1, *, fin: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    """A frame (RFC 6455, section 5.2), by itself of text; the mask of zeros leaves the content as it is."""
    size = len(content)
    first = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    mask = 0x80 if masked else 0
    if size < 126:
        length = bytes([mask | size])
    elif size < 65_536:
        length = bytes([mask | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([mask | 127]) + size.to_bytes(8, "big")
    return first + length + (b"\0\0\0\0" if masked else b"") + content


class Message(NamedTuple):
    """What a server sent on a WebSocket: a message, or with `op` close its code."""

    op: str
    data: dict[str, Any]


async def said(reader: asyncio.StreamReader) -> Message | None:
    """The next message, None at the end. Raises AssertionError for a frame that a server may not send."""
    try:
        head = await reader.readexactly(2)
        assert head[0] & 0x70 == 0, "no extension was agreed on"
        assert head[0] & 0x80, "our server cuts no message into pieces"
        assert not head[1] & 0x80, "a server masks nothing"
        size = head[1]
        if size >= 126:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
        content = await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    opcode = head[0] & 0x0F
    if opcode == 0x8:
        return Message("close", {"code": int.from_bytes(content[:2], "big"), "reason": content[2:].decode()})
    if opcode in (0x9, 0xA):
        return Message("control", {})
    assert opcode == 0x1
    message = msgspec.json.decode(content, type=dict[str, Any])
    return Message(message["op"], message)


class Answer:
    """An answer to a request by hand, read while it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}

    async def begin(self) -> None:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.status = int(head[0].split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}

    async def piece(self) -> bytes:
        """The next of a body that is sent in pieces, the whole body otherwise; empty at the end."""
        if "content-length" in self.headers:
            return await self._reader.readexactly(int(self.headers.pop("content-length")))
        if self.headers.get("transfer-encoding") != "chunked":
            return b""
        size = int((await self._reader.readuntil(b"\r\n")).strip(), 16)
        content = await self._reader.readexactly(size + 2)
        if not size:
            del self.headers["transfer-encoding"]
        return content[:-2]

    async def rest(self) -> bytes:
        """The body to its end."""
        found = b""
        while piece := await self.piece():
            found += piece
        return found

    def cut(self) -> None:
        """Be gone, without a word."""
        self._writer.transport.abort()


@asynccontextmanager
async def asked(site: Any, target: bytes, *headers: tuple[bytes, bytes], method: bytes = b"GET") -> AsyncIterator[Answer]:
    """An answer to a request whose every byte is the test's. The connection is cut afterwards."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port, limit=2**24)
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: localhost", *(name + b": " + value for name, value in headers)]
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
    answer = Answer(reader, writer)
    try:
        async with asyncio.timeout(20):
            await answer.begin()
            yield answer
    finally:
        answer.cut()


class SseEvent(NamedTuple):
    id: str
    data: Any


class SseReader:
    """Reads server-sent events as the standard has them, and complains of everything in them that ours do not hold."""

    def __init__(self, answer: Answer) -> None:
        assert answer.headers["content-type"] == "text/event-stream"
        self._answer = answer
        self._text = b""
        self.begins: str | None = None
        """The id that says where the stream begins."""

    async def next(self) -> SseEvent | str | None:
        """An event with data, the text of a comment, or None at the end."""
        while True:
            while b"\n\n" not in self._text:
                piece = await self._answer.piece()
                if not piece:
                    assert self._text == b"", "the last event is cut short"
                    return None
                self._text += piece
            block, _, self._text = self._text.partition(b"\n\n")
            found = self._read(block.decode())
            if found is not None:
                return found

    def _read(self, block: str) -> SseEvent | str | None:
        assert "\r" not in block
        if block.startswith(":"):
            assert "\n" not in block
            return block[1:].strip()
        fields = [line.partition(": ") for line in block.split("\n")]
        names = [name for name, _, _ in fields]
        values = {name: value for name, _, value in fields}
        if self.begins is None:
            assert names == ["retry", "id"], "first it says where it begins and when to come again"
            self.begins = values["id"]
            return None
        assert names == ["id", "data"], names
        return SseEvent(values["id"], msgspec.json.decode(values["data"]))

    async def events(self, count: int) -> list[SseEvent]:
        """So many events; comments are passed over. Raises AssertionError when it ends before."""
        found: list[SseEvent] = []
        while len(found) < count:
            one = await self.next()
            assert one is not None, f"expected {count} events, it ended after {len(found)}"
            if isinstance(one, SseEvent):
                found.append(one)
        return found

    async def to_the_end(self) -> list[SseEvent]:
        """All that comes, of a stream that ends."""
        found = []
        while (one := await self.next()) is not None:
            if isinstance(one, SseEvent):
                found.append(one)
        return found
