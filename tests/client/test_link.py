"""The client's own connections: every way in which HTTP may arrive, be cut, be too much or be secured."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from misbehaving import Asked, read_request

from inferq import errors
from inferq.client.link import Link, Reply
from inferq.testing import wait_until

Talk = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[..., Awaitable[Link]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A link to a server that answers as `talk` does."""
    async with AsyncExitStack() as stack:

        async def make(talk: Talk, *, host: str = "127.0.0.1", secure: ssl.SSLContext | None = None, name: str = "") -> Link:
            tasks: set[asyncio.Task[Any]] = set()

            async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = asyncio.current_task()
                assert task is not None
                tasks.add(task)
                try:
                    while (asked := await read_request(reader)) is not None:
                        await talk(asked, writer)
                        await writer.drain()
                except (ConnectionError, asyncio.CancelledError):
                    pass
                finally:
                    writer.close()
                    tasks.discard(task)

            server = await asyncio.start_server(handle, host, 0, ssl=secure)
            port = server.sockets[0].getsockname()[1]
            shown = name or (f"[{host}]" if ":" in host else host)
            link = Link(f"{'https' if secure else 'http'}://{shown}:{port}", connect_timeout=5, headers={})

            async def stop() -> None:
                await link.close()
                server.close()
                for task in tuple(tasks):
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

            stack.push_async_callback(stop)
            return link

        yield make


async def get(link: Link, path: str = "/") -> Reply:
    return await link.send("GET", path, headers={}, timeout=10)


WHOLE = b"HTTP/1.1 200 OK\r\nX-One: 1\r\nx-one: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7;ext=1\r\n, world\r\n0\r\n\r\n"


async def test_an_answer_may_arrive_byte_by_byte(serve: Serve) -> None:
    async def talk(_: Asked, writer: asyncio.StreamWriter) -> None:
        for byte in WHOLE:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    link = await serve(talk)
    for _ in range(3):
        reply = await get(link)
        assert (reply.status, reply.headers["x-one"], reply.body) == (200, "1, 2", b"hello, world")


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ],
    ids=["interim", "no content", "empty"],
)
async def test_answers_without_much(serve: Serve, raw: bytes, body: bytes) -> None:
    async def talk(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    link = await serve(talk)
    for _ in range(2):
        assert (await get(link)).body == body


async def test_an_answer_of_no_stated_length_ends_with_its_connection(serve: Serve) -> None:
    async def talk(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        writer.close()

    assert (await get(await serve(talk))).body == b"all of it"


async def test_what_nobody_asked_for_is_taken_for_no_answer(serve: Serve) -> None:
    numbers = iter(range(10))

    async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
        length = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
        writer.write(length + str(next(numbers)).encode() + length + b"X")

    link = await serve(talk)
    assert [(await get(link)).body for _ in range(3)] == [b"0", b"1", b"2"]


async def test_endless_headers_are_not_collected(serve: Serve) -> None:
    async def talk(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(10_000):
            writer.write(b"X-%d: %b\r\n" % (number, b"x" * 1000))
            await writer.drain()

    with pytest.raises(errors.ProtocolError):
        await get(await serve(talk))


async def test_a_server_that_sends_faster_than_it_is_read_has_to_wait(serve: Serve) -> None:
    sent = 0
    piece = b"x" * 100_000

    async def talk(_: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(1000):
            writer.write(piece)
            await writer.drain()
            sent += len(piece)

    link = await serve(talk)
    async with link.stream("GET", "/", headers={}, timeout=10) as reply:
        got = len(await reply.some())
        last = -1
        while last != sent:
            last = sent
            for _ in range(200):
                await asyncio.sleep(0)
        assert sent < 30_000_000
        while piece_ := await reply.some():
            got += len(piece_)
    assert got == 100_000_000


async def test_an_upload_of_unknown_length_is_sent_as_it_comes_and_ends_when_it_is_refused(serve: Serve) -> None:
    async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
        assert asked.reader is not None
        if asked.path == "/refused":
            writer.write(b"HTTP/1.1 413 X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            await writer.drain()
            return
        got = b""
        while size := int(await asked.reader.readline(), 16):
            got += await asked.reader.readexactly(size)
            await asked.reader.readline()
        await asked.reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(got), got))

    async def pieces(count: int) -> AsyncIterator[bytes]:
        for number in range(count):
            yield b"%d," % number
            await asyncio.sleep(0)

    link = await serve(talk)
    async with link.stream("POST", "/", body=pieces(3), headers={}, timeout=10) as reply:
        assert (reply.status, await reply.some()) == (200, b"0,1,2,")
    async with link.stream("POST", "/refused", body=pieces(10_000_000), headers={}, timeout=10) as reply:
        assert (reply.status, await reply.some()) == (413, b"no")


async def test_an_idle_connection_that_the_server_closed_is_not_used_again(serve: Serve) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def talk(_: Asked, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    link = await serve(talk)
    await get(link)
    writers[0].close()
    await writers[0].wait_closed()
    await get(link)
    assert writers[0] is not writers[1]


async def test_ipv6(serve: Serve) -> None:
    async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
        host = asked.headers["host"].encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(host), host))

    link = await serve(talk, host="::1")
    assert (await get(link)).body.decode() == link.origin.removeprefix("http://")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_tls_is_verified_against_the_certificates_of_the_system(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    files = ("-keyout", str(key), "-out", str(certificate))
    made = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files), stderr=subprocess.DEVNULL
    )
    assert await made.wait() == 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def talk(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    link = await serve(talk, secure=context, name="localhost")
    with pytest.raises(errors.ConnectFailed, match="certificate verify failed"):
        await get(link)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    trusting = await serve(talk, secure=context, name="localhost")
    assert (await get(trusting)).body == b"hi"
    stranger = await serve(talk, secure=context, name="127.0.0.1")
    with pytest.raises(errors.ConnectFailed, match="certificate"):
        await get(stranger)


async def test_a_header_that_is_none_is_refused_without_showing_it(serve: Serve) -> None:
    with pytest.raises(errors.ConfigError, match="Authorization") as caught:
        Link("http://127.0.0.1:1", connect_timeout=1, headers={"Authorization": "Bearer s3cret\r\nX: y"})
    assert "s3cret" not in str(caught.value)


async def test_closing_ends_what_is_under_way(serve: Serve) -> None:
    asked_for = asyncio.Event()

    async def talk(_: Asked, __: asyncio.StreamWriter) -> None:
        asked_for.set()
        await asyncio.Event().wait()

    link = await serve(talk)
    asking = asyncio.create_task(get(link))
    await asked_for.wait()
    await link.close()
    with pytest.raises(errors.ConnectionLost):
        await asking
    await wait_until(lambda: not link._busy)
