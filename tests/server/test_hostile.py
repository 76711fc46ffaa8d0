"""Bad clients: they cost nobody anything, and leave nothing behind."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hostilekit import frame, handshake, nothing_left

from inferq.testing import wait_until

Chat = Callable[..., dict[str, Any]]


async def test_a_thousand_idle_sockets_cost_little_and_leave_nothing(site: Any, chat: Chat) -> None:
    async with nothing_left(site):
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
            sockets = [await stack.enter_async_context(session.ws_connect(site.url + "/ws")) for _ in range(1000)]
            assert site.app.sockets == 1000
            made = await site.post("/api/tasks", chat())
            assert (await site.get(f"/api/tasks/{made['id']}/result?wait=10"))["text"]
            for ws in sockets:
                assert (await ws.receive_json())["op"] == "hello"
        await wait_until(lambda: site.app.sockets == 0, timeout=20)


async def test_sockets_that_never_read_are_dropped_and_hold_up_nobody(open_site: Any, chat: Chat) -> None:
    site = await open_site(write_timeout=0.3, work=False)
    filler = "x" * 20_000
    async with nothing_left(site):
        silent = [await handshake(site.url, reading=4096) for _ in range(50)]
        for _, writer in silent:
            writer.write(frame(b'{"op":"subscribe","topics":["events"]}'))
        async with site.session.ws_connect(site.url + "/ws", max_msg_size=0) as reading:
            await reading.send_json({"op": "subscribe", "topics": ["events"], "types": ["task.cancelled"]})
            seen = 0
            rounds = 0
            while site.app.sockets > 1:
                rounds += 1
                # Events of 2 KB each, until the kernel's buffers of those who do not read are full.
                ids = [task["id"] for task in (await site.post("/api/tasks", [chat() for _ in range(100)]))["items"]]
                await site.queue.cancel(*ids, reason=filler[:2000])
                while seen < rounds * 100:
                    message = await reading.receive_json(timeout=10)
                    seen += len(message.get("items", []))
                assert rounds < 500
            assert seen == rounds * 100  # who reads misses nothing while the others are dropped
        for _, writer in silent:
            writer.close()


async def test_a_stream_that_is_not_read_is_dropped(open_site: Any, chat: Chat) -> None:
    site = await open_site(write_timeout=0.3, work=False)
    async with nothing_left(site):
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", site.server.port))
        await asyncio.get_running_loop().sock_sendall(raw, b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await wait_until(lambda: len(site.server.server_state.tasks) > 0)
        while site.server.server_state.tasks:
            ids = [task["id"] for task in (await site.post("/api/tasks", [chat() for _ in range(100)]))["items"]]
            await site.queue.cancel(*ids, reason="x" * 2000)
        raw.close()


async def slowly(site: Any, beginning: bytes, drip: bytes) -> float:
    """Send a beginning and then drip by drip; seconds until the server cuts the connection."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    began = loop.time()
    writer.write(beginning)
    answer = asyncio.ensure_future(reader.read())
    with_drips = 0
    try:
        while not answer.done():
            with_drips += 1
            writer.write(drip)
            await asyncio.wait({answer}, timeout=0.02)  # how slow the client is, not what the test waits for
            assert loop.time() - began < 10
    except ConnectionError:
        pass
    finally:
        await asyncio.gather(answer, return_exceptions=True)
        writer.close()
    return loop.time() - began


@pytest.mark.parametrize("beginning", [b"", b"GET /api/stats HTTP/1.1\r\nHost: localhost\r\n"])
async def test_headers_that_never_end_are_cut(open_site: Any, beginning: bytes) -> None:
    site = await open_site(header_timeout=0.2)
    async with nothing_left(site):
        took = await slowly(site, beginning, b"X: y\r\n" if beginning else b"G")

    assert took < 5


async def test_headers_that_never_end_are_cut_on_a_kept_connection_too(open_site: Any) -> None:
    site = await open_site(header_timeout=0.2)
    async with nothing_left(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"}")
        writer.write(b"GET /livez HTTP/1.1\r\nX: ")
        assert await reader.read() == b""
        writer.close()


async def test_headers_without_bound_are_cut(site: Any) -> None:
    async with nothing_left(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(b"GET /livez HTTP/1.1\r\nX: " + b"y" * 200_000)
        try:
            answer = await reader.read()
        except ConnectionError:
            answer = b""
        writer.close()

    assert b"200" not in answer


async def flood(writer: asyncio.StreamWriter, drip: bytes) -> int:
    """Send for ever; returns how much it was when the server cut the connection."""
    sent = 0
    try:
        async with asyncio.timeout(20):
            while sent < 64_000_000:
                writer.write(drip)
                sent += len(drip)
                await writer.drain()
    except ConnectionError:
        pass
    return sent


POST = b"POST /api/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("beginning", "drip"),
    [
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n", b"X: y\r\n"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"extension"),
        (POST + b"Content-Length: 9\r\n\r\n{GET /livez", b"X: y\r\n"),
        (b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez HTTP/1.1\r\n", b"X: y\r\n"),
    ],
    ids=["trailers", "chunk extensions", "a body of lines", "headers behind a stream"],
)
async def test_what_is_no_body_is_bounded_wherever_it_stands(site: Any, beginning: bytes, drip: bytes) -> None:
    async with nothing_left(site):
        _, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(beginning)
        sent = await flood(writer, drip * 2000)
        writer.close()

    # The system's buffers hold some of it.
    assert sent < 32_000_000


async def test_who_sends_a_long_body_to_the_wrong_place_is_told(site: Any) -> None:
    async with nothing_left(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(b"POST /api/nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        for _ in range(10):
            writer.write(b"y" * 100_000)
            await writer.drain()
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()

    assert (b"no_such_route" in answer, b'{"status":"ok"}' in answer) == (True, True)


async def test_a_body_that_stands_still_is_refused(open_site: Any) -> None:
    site = await open_site(read_timeout=0.2)
    async with nothing_left(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(b"POST /api/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
        answer = await reader.read()
        writer.close()

    assert b"408" in answer.split(b"\r\n")[0]
    assert b"body_timeout" in answer


async def test_a_body_cut_short_changes_nothing(site: Any) -> None:
    async with nothing_left(site):
        _, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(b"POST /api/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    assert (await site.get("/api/stats"))["total"] == 0


async def test_more_connections_than_allowed_are_refused_and_the_others_served(open_site: Any) -> None:
    site = await open_site(max_connections=20)
    async with AsyncExitStack() as stack:
        await site.get("/api/stats")
        idle = [await asyncio.open_connection("127.0.0.1", site.server.port) for _ in range(25)]
        for _, writer in idle:
            stack.callback(writer.close)
        await wait_until(lambda: len(site.server.server_state.connections) > 20)
        status, problem, headers = await site.ask("GET", "/api/stats")
        for _, writer in idle:
            writer.close()
        await wait_until(lambda: len(site.server.server_state.connections) <= 20)
        again, _, _ = await site.ask("GET", "/api/stats")

    assert (status, again) == (503, 200)
    assert (problem["code"], headers["retry-after"]) == ("rejected", "1")


async def test_readers_who_leave_a_backup_leave_no_copy_behind(
    site: Any, chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(copies))
    await site.post("/api/tasks", [chat("x" * 1000) for _ in range(500)])

    async def leave(n: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(b"GET /api/store/backup HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await writer.drain()
        for _ in range(n):
            await site.get("/api/stats")
        writer.transport.abort()

    async with nothing_left(site):
        for n in range(60):
            await leave(n % 6)

    await wait_until(lambda: not list(copies.iterdir()))
