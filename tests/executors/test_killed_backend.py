"""A model server is killed with a real signal while it answers: its tasks are done by the other, and none is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inferq import AsyncQueue, BackendSettings, Settings
from inferq.config import BreakerSettings, HealthSettings, RetrySettings
from inferq.testing import wait_until

HERE = Path(__file__).parent
SERVER = """
import asyncio, json, sys

def event(delta, finish=None):
    return b"data: %s\\n\\n" % json.dumps({"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode()

async def serve(reader, writer):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    length = next((int(line.split(b":")[1]) for line in head.split(b"\\r\\n") if line.lower().startswith(b"content-length")), 0)
    await reader.readexactly(length)
    if head.startswith(b"GET"):
        body = b'{"object": "list", "data": [{"id": "m"}]}'
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
    else:
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\nConnection: close\\r\\n\\r\\n")
        for word in ("a ", "b ", "c"):
            await asyncio.sleep(0.03)
            writer.write(event({"content": word}))
            await writer.drain()
        writer.write(event({}, "stop") + b"data: [DONE]\\n\\n")
    await writer.drain()
    writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    print("listening", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], str]]]:
    children: list[subprocess.Popen[bytes]] = []
    program = tmp_path / "server.py"
    program.write_text(SERVER)

    def make(port: int | None = None) -> tuple[subprocess.Popen[bytes], str]:
        port = port or free_port()
        child = subprocess.Popen([sys.executable, str(program), str(port)], stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline().startswith(b"listening")
        return child, f"http://127.0.0.1:{port}/v1"

    yield make
    for child in children:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def settings() -> Settings:
    return Settings(
        retry=RetrySettings(max_retries=3, initial_delay=0.01, max_delay=0.05),
        breaker=BreakerSettings(2, 0.2, 0.4),
        health=HealthSettings(0.3, 1.0, 2),
    )


def at(name: str, url: str, **more: Any) -> BackendSettings:
    return BackendSettings(name, "openai", slots=4, settings={"base_url": url, "connect_timeout": 2.0}, **more)


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    queues: list[AsyncQueue] = []

    async def make(*backends: BackendSettings) -> AsyncQueue:
        queue = AsyncQueue(str(tmp_path / "q.db"), backends=backends, settings=settings())
        await queue.start()
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        await queue.close(0)


async def test_work_of_a_killed_backend_goes_to_the_other_and_comes_back_with_it(opened: Any, start: Any) -> None:
    doomed, url = start()
    _, other = start()
    queue = await opened(at("doomed", url, priority=9), at("sound", other))
    tasks = [await queue.chat("m", str(n), executor="openai") for n in range(60)]
    await wait_until(lambda: queue.places()[0].busy >= 3)
    os.kill(doomed.pid, signal.SIGKILL)
    results = await asyncio.gather(*(task.result(timeout=60) for task in tasks))
    assert [result.text for result in results] == ["a b c"] * 60
    assert sum(result.backend == "sound" for result in results) >= 40
    for task in tasks:
        attempts = await queue.attempts(task.id)
        assert [attempt.outcome for attempt in attempts].count("completed") == 1
        assert (await task.refresh()).failures <= 1
    places = {place.name: place for place in queue.places()}
    await wait_until(lambda: places["doomed"].state == "down")
    assert (places["doomed"].busy, places["sound"].busy) == (0, 0)
    start(int(url.rpartition(":")[2].partition("/")[0]))
    await wait_until(lambda: places["doomed"].state == "up")
    again = [await queue.chat("m", str(n), executor="openai") for n in range(8)]
    assert "doomed" in {(await task.result(timeout=60)).backend for task in again}


async def test_the_only_backend_is_killed_and_what_waits_is_done_when_it_is_back(opened: Any, start: Any) -> None:
    child, url = start()
    queue = await opened(at("only", url))
    tasks = [await queue.chat("m", str(n), executor="openai", max_retries=10) for n in range(30)]
    await wait_until(lambda: queue.places()[0].busy == 4)
    os.kill(child.pid, signal.SIGKILL)
    await wait_until(lambda: not queue.places()[0].open or bool(queue.places()[0].breakers))
    gate = (await queue.explain(tasks[-1].id)).gate
    assert gate in ("breaker", "backend_down", "slots", "behind", "starting")
    await asyncio.to_thread(start, int(url.rpartition(":")[2].partition("/")[0]))
    results = await asyncio.gather(*(task.result(timeout=60) for task in tasks))
    assert [result.text for result in results] == ["a b c"] * 30
    burnt = [(await task.refresh()).failures for task in tasks]
    assert sum(burnt) < 30


@pytest.fixture
def doomed_llm(llm_url: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A second real model server, to be killed."""
    from inferq.executors.models import resolve

    model = os.environ.get("INFERQ_TEST_GGUF") or str(resolve("smollm2"))
    port = free_port()
    child = subprocess.Popen(
        [sys.executable, str(HERE / "llm_server.py"), model, str(port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline().startswith(b"listening")
        yield child, f"http://127.0.0.1:{port}/v1"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.mark.e2e
async def test_a_real_model_server_is_killed_in_mid_answer_and_another_goes_on(opened: Any, llm_url: str, doomed_llm: Any) -> None:
    child, url = doomed_llm
    queue = await opened(at("doomed", url, priority=9), at("sound", llm_url))
    options = {"max_tokens": 400, "temperature": 0}
    task = await queue.chat("smollm2-135m-instruct", "Tell a long story.", executor="openai", options=options)
    async for logged in task.stream():
        if logged.chunk.kind == "text":
            os.kill(child.pid, signal.SIGKILL)
            break
    kinds = [logged.chunk.kind async for logged in task.stream()]
    assert "reset" in kinds
    result = await task.result(timeout=110)
    assert (result.backend, result.attempts) == ("sound", 2)
    assert result.text
