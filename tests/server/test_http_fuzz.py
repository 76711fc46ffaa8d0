"""Bytes that are nearly HTTP, or not at all: answered by a refusal or a cut, never by a failure, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import re
from typing import Any

import pytest
from hostilekit import nothing_left
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

EXAMPLES = 10 * int(os.environ.get("INFERQ_FUZZ", "4"))
fuzzed = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)

METHODS = [b"GET", b"GET", b"POST", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"CONNECT", b"get", b"", b"\xff", b"PRI"]
TARGETS = [
    *(b"/api/tasks", b"/api/tasks", b"/api/events", b"/ws", b"/livez", b"/", b"*", b"", b"//", b"/api/tasks/%00", b"/api/tasks/%ff/stream"),
    *(b"/api/tasks?q=%", b"/api/tasks?q=%ff", b"/api/tasks?limit=1&limit=2", b"http://other.example/api/tasks", b"other.example:443"),
    *(b"/api/../livez", b"/api/%2e%2e/livez", b"/\xc3\xa4", b"/api/tasks#x", b"/api/tasks?" + b"a=1&" * 200, b"/" + b"x" * 9000),
]
VERSIONS = [b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/", b"", b"SIP/2.0"]
HEADERS = [
    *(
        b"Host: localhost",
        b"Host: localhost",
        b"Host: evil.example",
        b"Host:",
        b"Host: a\xff",
        b"host: [::1",
        b"Host: localhost, localhost",
    ),
    *(b"Content-Type: application/json", b"Content-Type: application/json; charset=utf-16", b"Content-Type: \xff"),
    *(b"Content-Length: 2", b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 1e3", b"Content-Length: 99999999999999999999"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: x"),
    *(b"Expect: 100-continue", b"Connection: close", b"Connection: upgrade", b"Upgrade: h2c", b"Upgrade: websocket", b"TE: trailers"),
    *(
        b"Authorization: Bearer \xff",
        b"Authorization: Basic x",
        b"Authorization:",
        b"X-Request-Id: \xff\x01",
        b"Origin: null",
        b"If-None-Match: \xff",
    ),
    *(
        b"Idempotency-Key: \xff",
        b"Accept: \xff",
        b"Range: bytes=0-",
        b"Content-Encoding: gzip",
        b" folded: yes",
        b"no colon",
        b": empty",
        b"X-\0: y",
    ),
]
BODIES = [
    b"",
    b"{}",
    b"[]",
    b"{",
    b"2\r\n{}\r\n0\r\n\r\n",
    b"zz\r\n",
    b"-1\r\n\r\n",
    b"ffffffffffffffffff\r\n",
    b"\x00" * 50,
    b"\xef\xbb\xbf{}",
]
ENDS = [b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, right in most of its parts."""
    end = draw(st.sampled_from(ENDS))
    target = draw(st.sampled_from(TARGETS) | st.binary(max_size=12))
    line = b" ".join((draw(st.sampled_from(METHODS)), target, draw(st.sampled_from(VERSIONS))))
    headers = [b"Host: localhost", *draw(st.lists(st.sampled_from(HEADERS) | st.binary(max_size=10), max_size=4))]
    return end.join((line, *headers, b"", b"")) + draw(st.sampled_from(BODIES) | st.binary(max_size=12))


@fuzzed
@given(sent=st.lists(requests() | st.binary(min_size=1, max_size=60), min_size=1, max_size=4), pieces=st.integers(1, 3))
@example(sent=[b"GET /api/tasks?q=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n"], pieces=1)
@example(sent=[b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"] * 4, pieces=3)
@example(sent=[b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], pieces=1)
async def test_what_is_hardly_http_is_refused_and_breaks_nothing(
    site: Any, caplog: pytest.LogCaptureFixture, sent: list[bytes], pieces: int
) -> None:
    async with nothing_left(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        whole = b"".join(sent)
        for number in range(pieces):
            writer.write(whole[len(whole) * number // pieces : len(whole) * (number + 1) // pieces])
            await asyncio.sleep(0)
        answered = asyncio.ensure_future(reader.read())
        assert (await site.get("/livez"))["status"] == "ok"
        writer.write_eof()
        await asyncio.wait({answered}, timeout=0.05)  # how long this client stays: a stream has no end
        writer.transport.abort()
        try:
            said = await answered
        except ConnectionError:
            said = b""
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", said)]
    assert all(100 <= status < 500 or status in (501, 505) for status in statuses), statuses
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert (await site.get("/livez"))["status"] == "ok"
