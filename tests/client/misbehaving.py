"""What stands in for a server that misbehaves, on a real socket: one that follows a script, and a proxy that cuts connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Self

Act = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]


class Asked:
    """One request as it came."""

    def __init__(self, head: str, body: bytes, reader: asyncio.StreamReader | None = None) -> None:
        self.reader = reader
        line, *headers = head.split("\r\n")
        self.method, self.path, _ = line.split(" ")
        self.headers = {name.lower(): value for name, _, value in (entry.partition(": ") for entry in headers if entry)}
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def read_request(reader: asyncio.StreamReader) -> Asked | None:
    """The next request of a connection, None at its end."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    asked = Asked(head.removesuffix("\r\n\r\n"), b"", reader)
    asked.body = await reader.readexactly(int(asked.headers.get("content-length", "0")))
    return asked


class Scripted:
    """Answers each request with the next act of its script, the last one for ever; remembers requests and connections."""

    def __init__(self) -> None:
        self.script: list[Act] = []
        self.asked: list[Asked] = []
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while (asked := await read_request(reader)) is not None:
                self.asked.append(asked)
                act = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                await act(asked, writer)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)


def says(body: object, status: int = 200, **headers: str) -> Act:
    """Answers with JSON (or, given text, with that)."""
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    given = {"content-type": "text/html" if isinstance(body, str) else "application/json", **headers}

    async def act(_: Asked, writer: asyncio.StreamWriter) -> None:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
        writer.write(f"HTTP/1.1 {status} X\r\n{lines}content-length: {len(content)}\r\n\r\n".encode() + content)

    return act


def refuses(status: int, code: str, detail: str = "no", **members: Any) -> Act:
    """Answers with a problem document."""
    body = {"type": f"urn:inferq:problem:{code}", "title": "No", "status": status, "code": code, "detail": detail, **members}
    return says(body, status, content_type="application/problem+json")


def sends(raw: bytes) -> Act:
    """Answers with these bytes, whatever they are, and closes."""

    async def act(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        writer.close()

    return act


async def cuts(_: Asked, writer: asyncio.StreamWriter) -> None:
    """Closes without an answer."""
    writer.close()


async def hangs(_: Asked, writer: asyncio.StreamWriter) -> None:
    """Never answers."""
    await asyncio.Event().wait()


def streams(*events: tuple[str, str], end: bool = False) -> Act:
    """An event stream of (id, data or nothing), then a cut connection, or with `end` a proper end."""
    text = "".join(f"id: {id}\n" + (f"data: {data}\n" if data else "") + "\n" for id, data in events).encode()

    async def act(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        if text:
            writer.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
        if end:
            writer.write(b"0\r\n\r\n")
        else:
            writer.close()

    return act


class Proxy:
    """Passes bytes on to a server; `cut_replies` of the next requests are forwarded and never answered: the connection is cut instead."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.cut_replies = 0
        self.forwarded = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            while True:
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except (asyncio.IncompleteReadError, ConnectionError):
                    return
                asked = Asked(head.decode("latin-1").removesuffix("\r\n\r\n"), b"")
                body = await reader.readexactly(int(asked.headers.get("content-length", "0")))
                there.write(head + body)
                await there.drain()
                self.forwarded += 1
                answer = await there_reader.readuntil(b"\r\n\r\n")
                length = int(Asked("GET / X\r\n" + answer.decode("latin-1").partition("\r\n")[2], b"").headers.get("content-length", "0"))
                content = await there_reader.readexactly(length)
                if self.cut_replies:
                    # The server has done it and said so; only the client will never hear.
                    self.cut_replies -= 1
                    return
                writer.write(answer + content)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            there.close()
            self._tasks.discard(task)
