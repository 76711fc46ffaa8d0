"""The HTTP client against real sockets: connections, limits, the address guard, and what goes wrong on a network."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from doubles.server import Double, never, says, says_text, streams

from inferq.errors import Reject, Unavailable
from inferq.net import HttpClient, origin_of


@pytest.fixture
async def client(double: Double) -> AsyncIterator[HttpClient]:
    made = HttpClient(double.url, connect_timeout=5.0)
    yield made
    await made.close()


async def test_requests_one_after_the_other_share_a_connection(double: Double, client: HttpClient) -> None:
    double.says(says({"ok": True}))
    for _ in range(5):
        assert (await client.request("POST", "/x", json={"a": 1})).body == b'{"ok": true}'
    assert len({seen.peer for seen in double.seen}) == 1


async def test_a_stream_read_to_its_end_leaves_its_connection_for_the_next(double: Double, client: HttpClient) -> None:
    double.says(streams([b"a", b"b"], content_type="text/plain"))
    for _ in range(3):
        async with client.stream("GET", "/x") as reply:
            assert b"".join([piece async for piece in reply.chunks()]) == b"ab"
    assert len({seen.peer for seen in double.seen}) == 1


async def test_draining_makes_the_connection_reusable_and_gives_up_on_a_stream_without_end(double: Double, client: HttpClient) -> None:
    double.says(streams([b"a"] * 5, content_type="text/plain"), streams([b"a"], content_type="text/plain", end="hang"))
    async with client.stream("GET", "/x") as reply:
        await reply.drain()
    async with client.stream("GET", "/x") as reply:
        await reply.drain(within=0.05)
    await double.hung_up.wait()
    assert double.seen[0].peer == double.seen[1].peer


async def test_a_request_carries_what_it_was_given(double: Double) -> None:
    double.says(says([], headers={"X-One": "1"}))
    client = HttpClient(double.url + "/base/", headers={"X-Key": "k", "X-Over": "a"})
    try:
        reply = await client.request("PUT", "/x?q=1", json={"a": "é"}, headers={"X-Over": "b"})
        absolute = await client.request("GET", f"{double.url}/other", body=b"\0raw")
    finally:
        await client.close()
    assert reply.headers["x-one"] == "1"
    assert absolute.status == 200
    first, second = double.seen
    assert (first.method, first.path, first.json) == ("PUT", "/base/x?q=1", {"a": "é"})
    assert (first.headers["X-Key"], first.headers["X-Over"]) == ("k", "b")
    assert first.headers["Content-Type"] == "application/json"
    assert (second.path, second.body) == ("/other", b"\0raw")


async def test_every_status_is_an_answer_and_redirects_are_not_followed(double: Double, client: HttpClient) -> None:
    double.says(says_text("moved", status=302, headers={"Location": "/elsewhere"}), says({}, status=503))
    moved = await client.request("GET", "/x")
    assert (moved.status, moved.headers["location"]) == (302, "/elsewhere")
    assert (await client.request("GET", "/x")).status == 503
    assert len(double.seen) == 2


async def test_redirects_are_followed_up_to_their_bound(double: Double) -> None:
    hop = says_text("", status=302, headers={"Location": "/next"})
    client = HttpClient(double.url, max_redirects=2)
    try:
        double.says(hop, hop, says({"end": 1}))
        assert (await client.request("GET", "/x")).body == b'{"end": 1}'
        double.says(hop)
        with pytest.raises(Reject, match="redirected more often than allowed"):
            await client.request("GET", "/x")
    finally:
        await client.close()


async def test_a_request_of_many_megabytes_arrives_whole(double: Double, client: HttpClient) -> None:
    double.says(says({}))
    await client.request("POST", "/x", json={"text": "x" * 8_000_000})
    assert len(double.seen[0].json["text"]) == 8_000_000


async def test_an_answer_past_the_limit_is_refused_and_its_connection_closed(double: Double, client: HttpClient) -> None:
    double.says(streams([b"x" * 1_000] * 100, content_type="text/plain", end="hang"))
    with pytest.raises(Reject, match="more than 50000 bytes"):
        await client.request("GET", "/x", max_bytes=50_000)
    await double.hung_up.wait()


async def test_a_compressed_bomb_is_measured_unpacked(double: Double, client: HttpClient) -> None:
    async def bomb(_: web.Request) -> web.StreamResponse:
        response = web.Response(body=b"0" * 20_000_000)
        response.enable_compression(web.ContentCoding.gzip, strategy=0)
        return response

    double.says(bomb)
    with pytest.raises(Reject, match="more than 1000000 bytes"):
        await client.request("GET", "/x", max_bytes=1_000_000)


async def test_nobody_listening_is_unavailable_and_surely_not_sent(free_port: int) -> None:
    client = HttpClient(f"http://user:pw@127.0.0.1:{free_port}")
    with pytest.raises(Unavailable, match=f"cannot connect to http://127.0.0.1:{free_port}: connection refused$") as caught:
        await client.request("GET", "/x?token=hush")
    await client.close()
    assert (caught.value.failure, caught.value.sent) == ("connect", False)
    assert "pw" not in str(caught.value)
    assert "hush" not in str(caught.value)


async def test_a_name_that_nobody_knows_is_unavailable_and_surely_not_sent() -> None:
    client = HttpClient("http://no-such-host.invalid", connect_timeout=20.0)
    with pytest.raises(Unavailable, match=r"cannot connect to http://no-such-host\.invalid") as caught:
        await client.request("GET", "/x")
    await client.close()
    assert (caught.value.failure, caught.value.sent) == ("connect", False)


async def test_connecting_has_a_time_limit_and_nothing_was_sent() -> None:
    # A listener that takes nobody in, with its queue filled: further handshakes get no answer.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        client = HttpClient(f"http://127.0.0.1:{address[1]}", connect_timeout=0.2)
        try:
            with pytest.raises(Unavailable) as caught:
                await client.request("GET", "/x")
        finally:
            await client.close()
            for filler in fillers:
                filler.close()
    assert (caught.value.failure, caught.value.sent) == ("connect", False)


async def test_a_connection_cut_in_the_answer_is_unavailable_and_was_sent(double: Double, client: HttpClient) -> None:
    double.says(streams([b"half"], content_type="text/plain", end="cut"))
    with pytest.raises(Unavailable, match="was cut") as caught:
        await client.request("GET", "/x")
    assert (caught.value.failure, caught.value.sent) == ("connect", True)


async def test_a_server_that_hangs_up_instead_of_answering_is_unavailable_and_was_sent(double: Double, client: HttpClient) -> None:
    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    double.says(hang_up)
    with pytest.raises(Unavailable) as caught:
        await client.request("POST", "/x", json={})
    assert (caught.value.failure, caught.value.sent) == ("connect", True)


async def test_a_server_that_speaks_something_else_is_named_so() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server:
        with pytest.raises(Unavailable, match="not HTTP") as caught:
            await client.request("GET", "/x")
        await client.close()
    assert caught.value.failure == "server_error"


async def test_a_server_that_closes_what_it_promised_to_keep_costs_no_request() -> None:
    # llama.cpp does this after each stream.
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\n\r\nok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server:
        bodies = [(await client.request("POST", "/x", json={})).body for _ in range(50)]
        await client.close()
    assert bodies == [b"ok"] * 50


async def test_a_refusal_that_comes_before_the_request_was_read_is_heard() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server:
        reply = await client.request("POST", "/x", json={"text": "x" * 5_000_000})
        await client.close()
    assert (reply.status, reply.body) == (413, b"no")


@pytest.mark.parametrize("streaming", [False, True])
async def test_cancelling_hangs_up_at_once(double: Double, client: HttpClient, streaming: bool) -> None:
    double.says(streams([b"a"], content_type="text/plain", end="hang") if streaming else never)

    async def read() -> None:
        async with client.stream("GET", "/x") as reply:
            async for _ in reply.chunks():
                pass

    task = asyncio.create_task(read())
    await double.reached.wait()
    task.cancel()
    async with asyncio.timeout(2):
        await double.hung_up.wait()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_leaving_a_stream_early_hangs_up(double: Double, client: HttpClient) -> None:
    double.says(streams([b"a"], content_type="text/plain", end="hang"))
    async with client.stream("GET", "/x") as reply:
        assert await reply.some() == b"a"
    async with asyncio.timeout(2):
        await double.hung_up.wait()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "file:///etc/passwd", "x", "http://", "http://[::1", "http://127.1/"])
async def test_what_is_no_http_address_is_refused(url: str) -> None:
    client = HttpClient()
    with pytest.raises(Reject):
        await client.request("GET", url)
    await client.close()


async def test_a_header_that_would_break_the_request_is_refused_without_being_shown(double: Double, client: HttpClient) -> None:
    double.says(says({}))
    with pytest.raises(Reject) as caught:
        await client.request("GET", "/x", headers={"X-Key": "hush\r\nX-Evil: 1"})
    assert "hush" not in str(caught.value)
    assert double.seen == []


async def test_what_json_cannot_say_is_refused_before_anything_is_sent(double: Double, client: HttpClient) -> None:
    double.says(says({}))
    for value in ({"text": "\ud800"}, {"x": object()}):
        with pytest.raises(Reject, match="cannot be written as JSON"):
            await client.request("POST", "/x", json=value)
    assert double.seen == []


# ── the guard ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]"])
async def test_the_guard_sees_every_way_to_write_an_address(double: Double, host: str) -> None:
    double.says(says({}))
    asked: list[str] = []

    def guard(address: str) -> None:
        asked.append(address)
        raise Reject(f"{address} is private", failure="permission")

    client = HttpClient(guard=guard)
    with pytest.raises(Reject, match="is private") as caught:
        await client.request("GET", f"http://{host}:{double.port}/x")
    await client.close()
    assert caught.value.failure == "permission"
    assert {str(ipaddress.ip_address(address)) for address in asked} <= {"127.0.0.1", "::1", "::ffff:7f00:1"}
    assert asked
    assert double.seen == []


@pytest.mark.parametrize("refusal", [OSError("no"), RuntimeError("no"), ValueError("no"), Unavailable("no")])
async def test_whatever_the_guard_raises_reaches_the_caller(double: Double, refusal: Exception) -> None:
    def guard(_: str) -> None:
        raise refusal

    client = HttpClient(double.url, guard=guard)
    with pytest.raises(type(refusal)) as caught:
        await client.request("GET", "/x")
    await client.close()
    assert caught.value is refusal


async def test_the_guard_sees_where_a_redirect_leads(double: Double) -> None:
    other = Double()
    await other.start()
    other.says(says({"secret": 1}))
    double.says(says_text("", status=302, headers={"Location": f"http://localhost:{other.port}/x"}))
    asked: list[str] = []

    def guard(address: str) -> None:
        asked.append(address)
        if len(asked) > 1:
            raise Reject("not there")

    client = HttpClient(double.url, guard=guard, max_redirects=3)
    with pytest.raises(Reject, match="not there"):
        await client.request("GET", "/x")
    await client.close()
    await other.stop()
    assert other.seen == []
    assert asked[0] == "127.0.0.1"


async def test_a_guard_that_agrees_lets_the_request_through(double: Double) -> None:
    double.says(says({"ok": 1}))
    client = HttpClient(double.url, guard=lambda _: None)
    assert (await client.request("GET", "/x")).status == 200
    await client.close()


# ── the rest ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_closing_is_safe_before_use_and_twice_and_use_opens_again(double: Double) -> None:
    double.says(says({}))
    client = HttpClient(double.url)
    await client.close()
    assert (await client.request("GET", "/x")).status == 200
    await client.close()
    await client.close()
    assert (await client.request("GET", "/x")).status == 200
    await client.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@models.example:8443/secret/path?key=1", "https://models.example:8443"),
        ("http://[::1]:80/x", "http://[::1]:80"),
        ("http://[::1", "the server"),
    ],
)
def test_an_address_is_shown_without_anything_secret(url: str, shown: str) -> None:
    assert origin_of(url) == shown


def test_importing_the_client_does_not_import_the_library_behind_it() -> None:
    code = "import sys, inferq.net, inferq.executors.openai, inferq.executors.ollama; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
