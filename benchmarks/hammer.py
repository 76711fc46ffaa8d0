"""A load generator that costs little: one request over and over on kept connections, and readers of event streams."""

from __future__ import annotations

import asyncio
import time

import uvloop
from measure import Sample, percentile


def request(method: str, path: str, port: int, body: bytes = b"") -> bytes:
    """The bytes of a request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class _Asker(asyncio.Protocol):
    """One connection: asks, and asks again when the answer is whole."""

    def __init__(self, question: bytes, until: float, took: list[float], ended: asyncio.Future[None]) -> None:
        self._question, self._until, self._took, self._ended = question, until, took, ended
        self._buffer = b""
        self._asked = 0.0
        self.bad = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._ask()

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(self._question)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, mark, body = self._buffer.partition(b"\r\n\r\n")
        if not mark:
            return
        lowered = head.lower()
        at = lowered.index(b"content-length: ") + 16
        if len(body) < int(lowered[at : (lowered + b"\r").index(b"\r", at)]):
            return
        now = time.perf_counter()
        self._took.append(now - self._asked)
        self.bad += not head.startswith(b"HTTP/1.1 2")
        self._buffer = b""
        if now < self._until:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


async def _hammer(port: int, question: bytes, connections: int, seconds: float) -> Sample:
    loop = asyncio.get_running_loop()
    took: list[float] = []
    begun = time.perf_counter()
    ends, askers = [], []
    for _ in range(connections):
        ended = loop.create_future()
        _, asker = await loop.create_connection(lambda ended=ended: _Asker(question, begun + seconds, took, ended), "127.0.0.1", port)  # type: ignore[misc]
        ends.append(ended)
        askers.append(asker)
    await asyncio.gather(*ends)
    spent = time.perf_counter() - begun
    bad = sum(asker.bad for asker in askers)
    if bad:
        raise RuntimeError(f"expected good answers, got {bad} others of {len(took)}")
    return {
        "per_second": len(took) / spent,
        "p50_ms": percentile(took, 0.5) * 1000,
        "p99_ms": percentile(took, 0.99) * 1000,
        "count": len(took),
    }


def hammer(port: int, method: str, path: str, connections: int, seconds: float, body: str = "") -> Sample:
    """Ask the same over that many connections for a while."""
    return uvloop.run(_hammer(port, request(method, path, port, body.encode()), connections, seconds))


class _Reader(asyncio.Protocol):
    """One follower of an event stream: counts events and notes how old the newest of each piece is."""

    def __init__(self, question: bytes, lags: list[float]) -> None:
        self._question, self._lags = question, lags
        self.events = 0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self._question)

    def data_received(self, data: bytes) -> None:
        self.events += data.count(b"data: ")
        at = data.rfind(b'"at":')
        if at >= 0 and len(data) > at + 18:
            self._lags.append(time.time() * 1000 - int(data[at + 5 : at + 18]))

    def connection_lost(self, _: Exception | None) -> None:
        self.lost = True


async def _follow(port: int, followers: int, groups: int, group: str, each: float) -> Sample:
    loop = asyncio.get_running_loop()
    lags: list[float] = []
    question = request("GET", "/api/events?types=task.submitted", port)
    readers = [(await loop.create_connection(lambda: _Reader(question, lags), "127.0.0.1", port))[1] for _ in range(followers)]
    await asyncio.sleep(1.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    posted = request("POST", "/api/tasks", port, group.encode())
    size = group.count('"action"')
    begun = loop.time()
    for number in range(groups):
        writer.write(posted)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r")[0]))
        await asyncio.sleep(max(0.0, begun + (number + 1) * each - loop.time()))
    wanted = groups * size
    ends = loop.time() + 10
    while any(reader.events < wanted for reader in readers) and loop.time() < ends:
        await asyncio.sleep(0.05)
    spent = loop.time() - begun
    least, lost = min(reader.events for reader in readers), sum(reader.lost for reader in readers)
    for one in readers:
        one.transport.abort()
    writer.close()
    if least < wanted or lost:
        raise RuntimeError(f"expected {wanted} events at each of {followers} followers, got {least} at one; {lost} were dropped")
    return {
        "events_per_second": wanted / spent,
        "p50_ms": percentile(lags, 0.5),
        "p99_ms": percentile(lags, 0.99),
        "worst_ms": max(lags),
    }


def follow(port: int, followers: int, groups: int, group: str, each: float) -> Sample:
    """Post a group of tasks every `each` seconds while followers read the event log; how old events are when they arrive."""
    return uvloop.run(_follow(port, followers, groups, group, each))
