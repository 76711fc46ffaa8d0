"""`inferq serve` and `inferq health` as processes, with real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from inferq.testing import wait_until

Chat = Callable[..., dict[str, Any]]


class Process:
    """A server in a process of its own."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child
        self.url = ""
        self.lines: list[dict[str, Any]] = []

    async def greeted(self) -> None:
        assert self.child.stderr is not None
        while line := await self.child.stderr.readline():
            self.lines.append(msgspec.json.decode(line))
            if self.lines[-1].get("event") == "server.started":
                self.url = self.lines[-1]["url"]
                return
        raise AssertionError(f"it ended with {await self.child.wait()}")

    def kill(self, number: int) -> None:
        self.child.send_signal(number)

    async def ended(self) -> int:
        assert self.child.stderr is not None
        await self.child.stderr.read()
        return await self.child.wait()


Serve = Callable[..., Awaitable[Process]]


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "inferq", *args]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(*args: str) -> Process:
            child = await asyncio.create_subprocess_exec(
                *command("serve", "--port", "0", "--data-dir", str(tmp_path), *args), stderr=asyncio.subprocess.PIPE, env=clean()
            )
            process = Process(child)

            async def end() -> None:
                with suppress(ProcessLookupError):
                    child.kill()
                await process.ended()

            stack.push_async_callback(end)
            await process.greeted()
            return process

        yield start


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("INFERQ_")}


async def run(*args: str) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(*command(*args), stderr=asyncio.subprocess.PIPE, env=clean())
    _, said = await child.communicate()
    assert child.returncode is not None
    return child.returncode, said.decode()


async def test_a_server_answers_is_healthy_and_stops_with_zero(serve: Serve, chat: Chat) -> None:
    server = await serve()
    async with aiohttp.ClientSession(server.url) as session:
        async with session.post("/api/tasks", json=chat()) as answer:
            made = await answer.json()
        async with session.get(f"/api/tasks/{made['id']}/result?wait=30") as answer:
            assert answer.status == 200
    healthy, _ = await run("--url", server.url, "health")
    server.kill(signal.SIGTERM)

    assert await server.ended() == 0
    assert healthy == 0
    assert (await run("--url", server.url, "health"))[0] == 7


async def test_the_first_signal_lets_tasks_finish_and_the_second_hands_them_back(serve: Serve, chat: Chat) -> None:
    server = await serve("--grace", "60")
    async with aiohttp.ClientSession(server.url) as session:
        slow = chat() | {"payload": {"messages": [{"role": "user", "content": "x"}], "latency": 600}}
        async with session.post("/api/tasks", json=slow) as answer:
            made = await answer.json()

        async def state() -> str:
            async with session.get(f"/api/tasks/{made['id']}") as answer:
                return (await answer.json())["state"]

        async def ready() -> int:
            async with session.get("/readyz") as answer:
                return answer.status

        async def is_running() -> bool:
            return await state() == "running"

        async def is_unready() -> bool:
            return await ready() == 503

        await wait_until(is_running)
        server.kill(signal.SIGTERM)
        await wait_until(is_unready)
        assert await state() == "running"
        server.kill(signal.SIGTERM)
    assert await server.ended() == 0

    again = await serve("--no-work")
    async with aiohttp.ClientSession(again.url) as session, session.get(f"/api/tasks/{made['id']}") as answer:
        task = await answer.json()
    assert (task["state"], task["failures"]) == ("pending", 0)


async def test_the_forerunners_flags_are_taken(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inferq.toml").write_text("worker.slots = 3\n")
    server = await serve("--host", "localhost", "--ollama-host", "http://127.0.0.1:9", "--config-dir", str(tmp_path / "folder"), "-v")

    async with aiohttp.ClientSession(server.url) as session, session.get("/api/stats") as answer:
        assert (await answer.json())["workers_idle"] == 3


async def test_it_refuses_to_listen_for_strangers_without_keys(tmp_path: Path) -> None:
    code, said = await run("serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path))

    assert code == 2
    assert "inferq keys create" in said
    assert "--insecure" in said


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, said = await run("serve", "--port", port, "--data-dir", str(tmp_path))

    assert code == 2
    assert port in said
    assert "--port" in said


async def test_a_shells_small_limit_of_open_files_is_no_limit_of_clients(tmp_path: Path) -> None:
    shell = f"ulimit -S -n 128; exec {' '.join(command('serve', '--port', '0', '--data-dir', str(tmp_path)))}"
    child = await asyncio.create_subprocess_shell(shell, stderr=asyncio.subprocess.PIPE, env=clean())
    server = Process(child)
    try:
        await server.greeted()
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
            for _ in range(200):
                ws = await stack.enter_async_context(session.ws_connect(server.url + "/ws"))
                assert (await ws.receive_json(timeout=20))["op"] == "hello"
    finally:
        server.kill(signal.SIGTERM)
        assert await server.ended() == 0


def demonstrations(place: Path) -> list[str]:
    return [name for name in os.listdir(place) if name.startswith("inferq-demo-")]


async def test_a_demonstration_plays_a_model_and_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERQ_")}
    environment |= {"TMPDIR": str(tmp_path), "HOME": str(tmp_path / "home")}
    child = await asyncio.create_subprocess_exec(
        *command("serve", "--demo", "--port", "0"), stderr=asyncio.subprocess.PIPE, env=environment, cwd=tmp_path
    )
    process = Process(child)
    try:
        await process.greeted()
        assert process.lines[-1]["backends"] == ["demo"]
        assert len(demonstrations(tmp_path)) == 1
        asked = await asyncio.create_subprocess_exec(
            *command("--url", process.url, "run", "demo", "--executor", "echo", "say this back"),
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        out, _ = await asked.communicate()
        assert (asked.returncode, out) == (0, b"say this back\n")
        process.kill(signal.SIGTERM)
        assert await process.ended() == 0
        assert demonstrations(tmp_path) == []
        assert "home" not in os.listdir(tmp_path)
    finally:
        with suppress(ProcessLookupError):
            child.kill()


async def test_a_demonstration_takes_no_store(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        *command("--store", str(tmp_path / "mine.db"), "serve", "--demo"), stderr=asyncio.subprocess.PIPE, cwd=tmp_path
    )
    _, err = await child.communicate()
    assert (child.returncode, b"--demo has a store of its own" in err) == (2, True)
    assert os.listdir(tmp_path) == []
