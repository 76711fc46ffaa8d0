"""The server: durable submits over HTTP against the bare durable enqueue behind the same uvicorn, a task's status, a thousand followers."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from bare import Front
from bench import REPETITIONS, Bench
from measure import Sample, interleaved, median
from processes import cpu_seconds, free_port, inferq_child, running
from report import Row
from subject import open_queue, payload

SHARE_GOAL = 0.35
P99_GOAL = 8.0
STATUS_GOAL = 0.5
"""Milliseconds over what the same server needs to answer with fixed bytes, p50."""
LAG_GOAL = 1000.0
CONNECTIONS = 64
FOLLOWERS = 1000
_BODY = json.dumps({"executor": "echo", "action": "echo", "model": "m", "payload": payload(1000)})
_SMALL = json.dumps([{"executor": "echo", "action": "echo", "payload": {"text": "x"}}] * 25)
_JSON = (b"content-type", b"application/json")


# servers, each in a process of its own ---------------------------------------------------------------------------------


def serve_queue(path: str, port: int) -> None:
    """inferq's server over a queue that nobody works on."""
    import uvloop

    uvloop.run(_serve_queue(path, port))


async def _serve_queue(path: str, port: int) -> None:
    from inferq.server import create_app
    from inferq.server.serving import Server

    async with open_queue(path, work=False) as queue:
        await Server(create_app(queue), port=port).serve()


class Wish(msgspec.Struct):
    """What the bare server checks of a request."""

    executor: str
    action: str
    model: str
    payload: dict[str, Any]
    priority: int = 5


class Made(msgspec.Struct):
    """What it answers."""

    id: str
    task_id: str
    state: str
    executor: str
    action: str
    model: str
    priority: int


def serve_bare(path: str, port: int) -> None:
    """The least a durable enqueue can be: bytes to a checked struct, one row, group commit, an answer. Anything else gets fixed bytes."""
    import uvicorn

    decode, encode = msgspec.json.Decoder(Wish).decode, msgspec.json.Encoder().encode
    fixed = b"{" + b" " * 1400 + b"}"
    front: list[Front] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        content = fixed
        if scope["method"] == "POST":
            message = await receive()
            wish = decode(message["body"])
            if not front:
                front.append(Front(path))
            await front[0].add()
            content = encode(Made("0" * 36, "0" * 36, "pending", wish.executor, wish.action, wish.model, wish.priority))
        headers = [_JSON, (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    uvicorn.run(app, port=port, loop="uvloop", http="httptools", ws="none", lifespan="off", log_level="error", access_log=False)


@contextmanager
def server(bench: Bench, function: str) -> Iterator[tuple[int, int]]:
    """(port, pid) of a server on a new file."""
    path, port = bench.place(), free_port()
    command = [sys.executable, "child.py", __name__, function, json.dumps({"path": path, "port": port})]
    with running(command, log=Path(path).parent / "server.log") as process:
        _await(port)
        yield port, process.pid
    bench.drop(path)


def _await(port: int, patience: float = 20.0) -> None:
    end = time.monotonic() + patience
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


# the comparison ------------------------------------------------------------------------------------------------------


def hammered(bench: Bench, function: str, seconds: float, *, method: str, connections: int) -> Sample:
    """Warm up, then ask for a while."""
    with server(bench, function) as (port, pid):
        path, body = "/api/tasks", _BODY if method == "POST" else ""
        if method == "GET":
            made = asyncio.run(_submit(port)) if function == "serve_queue" else "x"
            path = f"/api/tasks/{made}"
        asked = {"port": port, "method": method, "path": path, "connections": connections, "body": body}
        inferq_child("hammer", "hammer", seconds=min(1.0, seconds), **asked)
        before = cpu_seconds(pid)
        found = inferq_child("hammer", "hammer", seconds=seconds, **asked)
        found["cpu_us"] = (cpu_seconds(pid) - before) / found["count"] * 1e6
    return found


async def _submit(port: int) -> str:
    from hammer import request

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("POST", "/api/tasks", port, _BODY.encode()))
    head = await reader.readuntil(b"\r\n\r\n")
    answer = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r")[0]))
    writer.close()
    made: str = json.loads(answer)["id"]
    return made


def followed(bench: Bench, seconds: int) -> Sample:
    """A thousand followers of 500 events a second."""
    with server(bench, "serve_queue") as (port, pid):
        each = 0.05
        groups = round(seconds / each)
        asked = {"port": port, "followers": FOLLOWERS, "group": _SMALL, "each": each}
        inferq_child("hammer", "follow", groups=round(1 / each), **asked)
        cpu, memory, begun = cpu_seconds(pid), _memory(pid), time.monotonic()
        found = inferq_child("hammer", "follow", groups=groups, timeout=300, **asked)
        found["cpu_cores"] = (cpu_seconds(pid) - cpu) / (time.monotonic() - begun)
        found["grown_mb"] = _memory(pid) - memory
    return found


def _memory(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError("expected VmRSS")


def measure(bench: Bench) -> list[Row]:
    return [*_submits(bench), *_status(bench), *_followers(bench)]


def _submits(bench: Bench) -> list[Row]:
    seconds = bench.size(1, 4)
    samples = interleaved(
        REPETITIONS,
        {
            "inferq": lambda: hammered(bench, "serve_queue", seconds, method="POST", connections=CONNECTIONS),
            "bare": lambda: hammered(bench, "serve_bare", seconds, method="POST", connections=CONNECTIONS),
        },
    )
    mine, bare = median(samples["inferq"], "per_second"), median(samples["bare"], "per_second")
    worst, other = median(samples["inferq"], "p99_ms"), median(samples["bare"], "p99_ms")
    p50, cpu = median(samples["inferq"], "p50_ms"), median(samples["inferq"], "cpu_us")
    what, against = f"POST /api/tasks, durable, {CONNECTIONS} connections", "bare durable enqueue, same uvicorn"
    note, detail = f"p50 {p50:.2f} ms, {cpu:.0f} us CPU a request", {"samples": samples}
    share = mine / bare
    return [
        Row("server", what, mine, "/s", against, bare, share, f">= {SHARE_GOAL}x", share >= SHARE_GOAL, note, detail),
        Row("server", f"{what}, p99", worst, "ms", against, other, other / worst, f"<= {P99_GOAL:g} ms", worst <= P99_GOAL),
    ]


def _status(bench: Bench) -> list[Row]:
    seconds = bench.size(1, 3)
    samples = interleaved(
        REPETITIONS,
        {
            "inferq": lambda: hammered(bench, "serve_queue", seconds, method="GET", connections=1),
            "bare": lambda: hammered(bench, "serve_bare", seconds, method="GET", connections=1),
        },
    )
    mine, bare = median(samples["inferq"], "p50_ms"), median(samples["bare"], "p50_ms")
    goal = f"<= bare + {STATUS_GOAL:g} ms"
    what, note = "GET /api/tasks/{id}, one connection, p50", f"{mine - bare:.3f} ms over fixed bytes"
    detail = {"samples": samples}
    return [Row("server", what, mine, "ms", "fixed bytes, same uvicorn", bare, bare / mine, goal, mine - bare <= STATUS_GOAL, note, detail)]


def _followers(bench: Bench) -> list[Row]:
    found = followed(bench, bench.size(3, 15))
    rate, what = found["events_per_second"], f"{FOLLOWERS:,} followers of events"
    note = f"{rate:.0f} events/s, p50 {found['p50_ms']:.0f} ms, p99 {found['p99_ms']:.0f} ms"
    worst, cores, grown = found["worst_ms"], found["cpu_cores"], found["grown_mb"]
    return [
        Row("server", f"{what}, worst lag", worst, "ms", goal=f"<= {LAG_GOAL:g} ms", met=worst <= LAG_GOAL, note=note, detail=found),
        Row("server", f"{what}, server CPU", cores, "cores", goal="<= 1", met=cores <= 1),
        Row("server", f"{what}, memory grown", grown, "MB", goal="<= 30 MB", met=grown <= 30),
    ]
