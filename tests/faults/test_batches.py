"""Importing 20,000 lines and killed in the middle of it: resumed, nothing is lost and nothing doubled."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from inferq import AsyncClient, AsyncQueue
from inferq.errors import InferqError
from inferq.store import BatchFilter
from inferq.testing import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]
LINES = 20_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps({"id": f"q{n}", "text": f"question number {n}"}) + "\n" for n in range(LINES)))
    return path


@contextmanager
def command(place: Path, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERQ_")} | {"HOME": str(place)}
    with subprocess.Popen([sys.executable, "-m", "inferq", *args], cwd=place, env=environment, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


async def in_the_middle(queue: AsyncQueue) -> str:
    """The id of the batch when some of its lines are kept, and not all."""

    async def some() -> str | None:
        found = await queue.store.batches(BatchFilter())
        return found[0].id if found and found[0].total else None

    return str(await wait_until(some, timeout=60, every=0.001))


async def check_whole(queue: AsyncQueue, id: str) -> None:
    batch = await queue.batches.get(id)
    assert (batch.total, batch.waiting + batch.done + batch.running, batch.state) == (LINES, LINES, "running")
    keys: list[str | None] = []
    after = 0
    while page := await queue.batches.items(id, after=after, limit=1000, results=False):
        keys += [item.key for item in page]
        after = page[-1].line
    assert keys == [f"q{n}" for n in range(LINES)]
    assert (await queue.stats()).total == LINES
    assert await queue.check() == []


@pytest.mark.parametrize("keyed", [True, False])
async def test_a_killed_import_goes_on_where_it_was(tmp_path: Path, file: Path, keyed: bool) -> None:
    url = f"sqlite:///{tmp_path / 'queue.db'}"
    asked = [
        "--url",
        url,
        "submit",
        "batch",
        "--file",
        str(file),
        "--prompt",
        "{text}",
        "--model",
        "m",
        "--executor",
        "echo",
        "-q",
        "--resume",
    ]
    if keyed:
        asked += ["--key", "id"]
    async with AsyncQueue(url, work=False) as queue:
        with command(tmp_path, *asked) as importing:
            id = await in_the_middle(queue)
            importing.send_signal(signal.SIGKILL)
            await asyncio.to_thread(importing.wait)
        half = await queue.batches.get(id)
        assert 0 < half.total < LINES
        assert half.state == "open"
        with command(tmp_path, *asked) as again:
            assert await asyncio.to_thread(again.wait) == 0
        if keyed:
            await check_whole(queue, id)
        else:
            assert ((await queue.batches.get(id)).total, (await queue.stats()).total) == (LINES, LINES)


async def test_a_server_killed_in_mid_import_goes_on_by_resume_after_its_restart(tmp_path: Path, file: Path) -> None:
    url = f"sqlite:///{tmp_path / 'queue.db'}"
    port = _free_port()
    serve = ["--url", url, "serve", "--port", str(port), "--no-work"]

    async def load() -> Any:
        async with AsyncClient(f"http://127.0.0.1:{port}") as client:
            return await client.batches.from_jsonl(file, prompt="{text}", model="m", executor="echo", key="id", name="big")

    async with AsyncQueue(url, work=False) as queue:
        with command(tmp_path, *serve) as server:
            await wait_until(lambda: _up(port), timeout=60, every=0.05)
            loading = asyncio.create_task(load())
            id = await in_the_middle(queue)
            server.send_signal(signal.SIGKILL)
            await asyncio.to_thread(server.wait)
            with pytest.raises(InferqError):
                await loading
        assert 0 < (await queue.batches.get(id)).total < LINES
        with command(tmp_path, *serve):
            await wait_until(lambda: _up(port), timeout=60, every=0.05)
            batch = await load()
            assert batch.id == id
        await check_whole(queue, id)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _up(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
