"""A real server is killed and started again: clients that wait, stream and follow notice nothing but a pause."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from inferq import AsyncClient, AsyncHandle, LoggedChunk, State, errors
from inferq.testing import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]
WORDS = 40
STREAMS = 12


class Served:
    """`inferq serve` as a process, on one port for all its lives."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("INFERQ_")} | {"HOME": str(self._directory)}
        log = (self._directory / "server.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "inferq", "serve", "--port", str(self.port), "--workers", "32", "--data-dir", str(self._directory)],
            env=env,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()

    async def ready(self) -> None:
        async def answers() -> bool:
            async with AsyncClient(self.url, retries=0) as client:
                try:
                    await client.stats()
                except errors.TransportError:
                    return False
            return True

        await wait_until(answers, timeout=60, every=0.05, what="the server to answer")

    def end(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.end()


def slow(number: int) -> dict[str, Any]:
    return {"payload": {"tokens_per_second": 25, "text": " ".join(f"w{number}-{word}" for word in range(WORDS))}}


async def read(handle: AsyncHandle, into: list[LoggedChunk]) -> None:
    async for logged in handle.stream():
        into += [logged]  # seen by the test while it goes on


def check(chunks: list[LoggedChunk], number: int) -> None:
    """Gap-free and nothing twice in each attempt, one terminal record, and the last attempt's text is whole."""
    by_attempt: dict[int, list[LoggedChunk]] = {}
    for logged in chunks:
        by_attempt.setdefault(logged.position.attempt, []).append(logged)
    assert list(by_attempt) == sorted(by_attempt)
    for entries in by_attempt.values():
        assert [logged.position.index for logged in entries] == list(range(1, len(entries) + 1))
    last = by_attempt[max(by_attempt)]
    assert [logged.chunk.kind for logged in chunks].count("end") == 1
    assert chunks[-1].chunk.text == "completed"
    assert "".join(logged.chunk.text for logged in last if logged.chunk.kind == "text").split() == slow(number)["payload"]["text"].split()


async def test_streams_waits_and_events_go_on_when_the_server_is_killed_and_started_again(served: Served) -> None:
    served.start()
    await served.ready()
    async with AsyncClient(served.url, patience=120) as client:
        handles = [await client.chat("m", f"{n}", executor="echo", **slow(n)) for n in range(STREAMS)]
        followed: list[list[LoggedChunk]] = [[] for _ in handles]
        positions: list[int] = []

        async def follow() -> None:
            ended = 0
            async with aclosing(client.events(after=0)) as events:
                async for event in events:
                    positions.append(event.position)
                    ended += event.type == "task.completed"
                    if ended == STREAMS:
                        return

        reading = [asyncio.create_task(read(handle, into)) for handle, into in zip(handles, followed, strict=True)]
        waiting = [asyncio.create_task(handle.wait()) for handle in handles]
        following = asyncio.create_task(follow())
        await wait_until(lambda: all(len(chunks) >= 3 for chunks in followed), timeout=60, what="every stream to have begun")
        served.end(signal.SIGKILL)
        assert not any(task.done() for task in (*reading, *waiting, following))
        served.start()
        await asyncio.gather(*reading, following)
        for number, chunks in enumerate(followed):
            check(chunks, number)
        assert [(await task).state for task in waiting] == [State.COMPLETED] * STREAMS
        assert len({logged.position.attempt for chunks in followed for logged in chunks}) > 1, "the kill came too late"
        assert positions == list(range(1, len(positions) + 1))


async def test_a_submit_into_a_restart_is_kept_once(served: Served) -> None:
    served.start()
    await served.ready()
    async with AsyncClient(served.url, retries=50, timeout=60) as client:
        await client.stats()
        submitted: list[AsyncHandle] = []

        async def submit() -> None:
            for number in range(150):
                handle = await client.submit("echo", "echo", payload={"n": number})
                submitted.extend([handle])

        submitting = asyncio.create_task(submit())
        await wait_until(lambda: len(submitted) >= 30, timeout=60)
        served.end(signal.SIGKILL)
        served.start()
        await submitting
        assert sorted([(await handle.result(timeout=60)).data["n"] for handle in submitted]) == list(range(150))
        assert len({handle.id for handle in submitted}) == (await client.stats()).total == 150


async def test_a_server_that_stops_in_order_ends_its_streams_and_they_go_on_afterwards(served: Served) -> None:
    served.start()
    await served.ready()
    async with AsyncClient(served.url, patience=120) as client:
        handle = await client.chat("m", "0", executor="echo", **slow(0))
        chunks: list[LoggedChunk] = []
        reading = asyncio.create_task(read(handle, chunks))
        await wait_until(lambda: len(chunks) >= 3, timeout=60)
        await asyncio.to_thread(served.end, signal.SIGTERM)
        assert not reading.done() or chunks[-1].chunk.kind == "end"
        served.start()
        await reading
        check(chunks, 0)
