"""The server is killed while it streams to a hundred clients and a long file is imported: nothing is lost, nothing is doubled."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from faultkit.served import Served, Streams

from inferq import AsyncClient, Batch, State
from inferq.testing import wait_until

LONG = os.environ.get("INFERQ_FAULTS") == "long"
ROUNDS = int(os.environ.get("INFERQ_FAULTS_SERVER_ROUNDS", "20" if LONG else "1"))
STREAMS = 100
LINES = 20_000
KILLS = 2
"""In a round of the long form; the quick one kills once. A task whose worker dies thrice under it is given up (`worker.lost_limit`)."""

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120 + 120 * ROUNDS)]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path, slots=STREAMS + 4)
    yield made
    made.end()


@pytest.fixture
def importing(tmp_path: Path, served: Served) -> Iterator[Importing]:
    made = Importing(tmp_path, served.url)
    yield made
    made.end()


class Importing:
    """`inferq submit batch --resume` as a process, begun again as often as it takes."""

    def __init__(self, directory: Path, url: str) -> None:
        self._directory = directory
        self._command = [sys.executable, "-m", "inferq", "--url", url, "submit", "batch", "--file", "questions.jsonl"]
        self._command += ["--prompt", "{text}", "--key", "id", "--name", "big", "--model", "m", "--executor", "echo", "--resume"]
        self._process: subprocess.Popen[bytes] | None = None
        lines = (json.dumps({"id": f"q{number}", "text": f"question {number}"}) + "\n" for number in range(LINES))
        (directory / "questions.jsonl").write_text("".join(lines))

    def begin(self) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("INFERQ_")} | {"HOME": str(self._directory)}
        with (self._directory / "import.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._directory, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
            )

    async def ended(self) -> int:
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, 120)

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def said(self) -> str:
        return (self._directory / "import.log").read_text()


async def loaded(client: AsyncClient, more_than: int) -> Batch | None:
    """The batch when some more of its lines are kept."""
    found = await client.batches.list(name="big")
    return found[0] if found and found[0].total > more_than else None


@pytest.mark.parametrize("number", range(ROUNDS))
async def test_a_server_killed_under_streams_and_an_import_loses_and_doubles_nothing(
    number: int, served: Served, importing: Importing
) -> None:
    draw = random.Random(os.environ.get("INFERQ_FAULTS_SEED", "server") + str(number))
    served.start()
    await served.ready()
    async with AsyncClient(served.url, patience=120, retries=50) as client:
        streams = await Streams.begin(client, STREAMS, words=80, per_second=10)
        await streams.begun()
        kept = 0
        for _ in range(KILLS if LONG else 1):
            importing.begin()
            lines = kept + draw.randrange(LINES // 5)
            batch = await wait_until(lambda lines=lines: loaded(client, lines), timeout=60, every=0.001)
            served.end(signal.SIGKILL)
            assert streams.running()
            assert await importing.ended() == 7, importing.said
            assert "--resume" in importing.said
            served.start()
            await served.ready()
            kept = (await client.batches.get(batch.id)).total
            assert batch.total <= kept < LINES, "the kill came too late" if kept == LINES else "kept lines are gone"
        importing.begin()
        assert await importing.ended() == 0, importing.said

        assert await streams.whole() == STREAMS, "some stream was not cut"
        ended = await client.batches.wait(batch.id, timeout=120)
        assert (ended.total, ended.completed) == (LINES, LINES)
        assert (await client.stats()).total == LINES + STREAMS
        items = [item async for item in client.batches.results(batch.id)]
        assert [item.key for item in items] == [f"q{line}" for line in range(LINES)]
        assert [item.result.text for item in items if item.result] == [f"question {line}" for line in range(LINES)]
        await check_log(client)
        assert await client.check() == []


async def check_log(client: AsyncClient) -> None:
    """Each task was submitted once and completed once, and the log has no gap."""
    seen: Counter[tuple[str, str]] = Counter()
    positions: list[int] = []
    completed = 0
    async with aclosing(client.events(after=0)) as events:
        async for event in events:
            positions.append(event.position)
            if event.type in ("task.submitted", "task.completed"):
                seen[event.type, event.task_id] += 1
                completed += event.type == "task.completed"
            if completed == LINES + STREAMS:
                break
    assert positions == list(range(1, len(positions) + 1))
    assert len(seen) == 2 * (LINES + STREAMS)
    assert set(seen.values()) == {1}
    assert (await client.stats()).states[State.COMPLETED] == LINES + STREAMS
