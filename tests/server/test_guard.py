"""Browsers attack local servers: rebound names, other sites' pages, forms. Programs notice nothing of the guard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from inferq import Forbidden
from inferq.server.guard import Guard, is_loopback

Chat = Callable[..., dict[str, Any]]


STRANGE = (
    "evil.example", "evil.example:7125", "localhost.evil.example", "127.0.0.1.nip.io", "inferq", "", "[::1", "a b",
    "localhost/evil.example", "evil.example@localhost", "localhost#evil.example", "localhost:abc", "localhost\\evil.example",
)  # fmt: skip


@pytest.mark.parametrize("host", STRANGE)
@pytest.mark.parametrize("path", ["/", "/api/tasks", "/livez", "/metrics", "/openapi.json", "/api/events"])
async def test_a_rebound_name_reads_nothing(site: Any, host: str, path: str) -> None:
    status, body, _ = await site.ask("GET", path, headers={"Host": host})

    assert (status, body["code"]) == (403, "forbidden")


SOCKET = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


@pytest.mark.parametrize(
    ("path", "headers", "name"),
    [
        ("/livez", "Host: evil.example\r\nHost: localhost\r\n", "Host"),
        ("/ws", f"Host: evil.example\r\nHost: localhost\r\n{SOCKET}", "Host"),
        ("/livez", "Host: localhost\r\nOrigin: http://evil.example\r\nOrigin: http://localhost\r\n", "Origin"),
        ("/livez", "Host: localhost\r\nIdempotency-Key: a\r\nIdempotency-Key: b\r\n", "Idempotency-Key"),
        ("/livez", "Host: localhost\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n", "Authorization"),
    ],
)
async def test_what_two_readers_could_understand_differently_is_refused(site: Any, path: str, headers: str, name: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    close = "" if path == "/ws" else "Connection: close\r\n"
    writer.write(f"GET {path} HTTP/1.1\r\n{headers}{close}\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert f"expected one {name}".encode() in answer


async def test_names_and_addresses_of_this_machine_are_answered(site: Any) -> None:
    for host in ("localhost", "LOCALHOST:7125", "127.0.0.1:1", "[::1]:7125", "192.168.1.7:7125", "app.localhost"):
        assert (await site.ask("GET", "/livez", headers={"Host": host}))[0] == 200, host


async def test_further_names_can_be_allowed(open_site: Any) -> None:
    site = await open_site(allowed_hosts=("inferq", "*.corp.example"))

    for host, status in (("inferq:7125", 200), ("a.corp.example", 200), ("corp.example", 403), ("other", 403)):
        assert (await site.ask("GET", "/livez", headers={"Host": host}))[0] == status


async def test_another_sites_page_changes_nothing(site: Any, chat: Chat) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://localhost:3000", "file://"):
        status, body, _ = await site.ask("POST", "/api/tasks", json=chat(), headers={"Origin": origin})
        assert (status, body["code"]) == (403, "forbidden"), origin
    assert (await site.get("/api/stats"))["total"] == 0


async def test_another_sites_form_changes_nothing(site: Any) -> None:
    forms = [
        {"data": {"action": "chat"}},
        {"data": b'{"action":"chat","executor":"echo"}', "headers": {"Content-Type": "text/plain"}},
        {"data": b"", "headers": {"Origin": "https://evil.example"}},
        {"data": b"", "headers": {"Sec-Fetch-Site": "cross-site"}},
    ]
    for form in forms:
        assert (await site.ask("POST", "/api/tasks", **form))[0] in (403, 415)
    assert (await site.ask("POST", "/api/pause", data=b"", headers={"Origin": "https://evil.example"}))[0] == 403
    assert (await site.get("/api/stats"))["paused"] == []


async def test_a_page_of_its_own_may(site: Any, chat: Chat) -> None:
    status, _, headers = await site.ask("POST", "/api/tasks", json=chat(), headers={"Origin": site.url, "Sec-Fetch-Site": "same-origin"})

    assert status == 201
    assert "access-control-allow-origin" not in headers


async def test_pages_of_an_allowed_origin_may_and_are_told_so(open_site: Any, chat: Chat) -> None:
    site = await open_site(origins=("https://app.example",))
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}

    allowed, _, told = await site.ask("OPTIONS", "/api/tasks", headers=asked)
    status, _, headers = await site.ask("POST", "/api/tasks", json=chat(), headers={"Origin": "https://app.example"})
    refused, _, nothing = await site.ask("POST", "/api/tasks", json=chat(), headers={"Origin": "https://evil.example"})

    assert (allowed, told["access-control-allow-origin"]) == (200, "https://app.example")
    assert (status, headers["access-control-allow-origin"]) == (201, "https://app.example")
    assert refused == 403
    assert "access-control-allow-origin" not in nothing


async def test_by_default_no_other_page_may_read(site: Any) -> None:
    _, _, headers = await site.ask("GET", "/api/stats", headers={"Origin": "https://evil.example"})

    assert not [name for name in headers if name.lower().startswith("access-control")]


def test_an_origin_is_compared_whole() -> None:
    guard = Guard(origins=["https://app.example"])

    for origin in (b"https://app.example.evil", b"https://app.example:8443", b"http://app.example", b"https://evil/https://app.example"):
        with pytest.raises(Forbidden):
            guard.check_origin({b"origin": origin, b"host": b"localhost"}, "http")


@pytest.mark.parametrize(
    ("host", "ours"), [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)]
)
def test_only_this_machine_is_loopback(host: str, ours: bool) -> None:
    assert is_loopback(host) is ours
