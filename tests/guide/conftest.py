"""What the guide's examples share: a queue with one pretended model, so that they cost nothing and run anywhere.

`EchoExecutor` answers with what it was asked; its payload can script slowness and failures. Put `ollama`, `openai` or `llamacpp` in its
place and every example works on a real model.

Nothing in the examples says where the queue is. With INFERQ_GUIDE_EMPTIES set to the address of a server they all run against that one: a
queue in this program and a queue behind a server are used alike. The name is a warning: each example finds an empty queue, so whatever
that server keeps is deleted. `tests/client/test_guide.py` starts servers for it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import inferq
from inferq import AsyncClient, AsyncQueue, Executor, Settings
from inferq.config import RetrySettings
from inferq.testing import EchoExecutor

SERVER = os.environ.get("INFERQ_GUIDE_EMPTIES", "")
TURNS = os.environ.get("INFERQ_GUIDE_TURNS", "")
"""A file that is locked during each example, for programs that run the guide on one queue at the same time: some pause it and count."""


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """Nobody else runs an example on this queue meanwhile."""
    with Path(TURNS or tmp_path / "turns").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
async def url(tmp_path: Path, alone: None) -> str:
    """Where an empty queue is: a file of this machine, or a server's address."""
    if not SERVER:
        return f"sqlite:///{tmp_path / 'inferq.db'}"
    async with AsyncClient(SERVER) as client:
        await empty(client)
    return SERVER


@pytest.fixture
def backends() -> list[Executor]:
    """Where the tasks of a queue in this program run; a server has that in its configuration."""
    return [EchoExecutor("echo")]


@pytest.fixture
async def queue(url: str, backends: list[Executor]) -> AsyncIterator[AsyncQueue | AsyncClient]:
    """An open queue, whose tasks are run. Retries wait a thousandth of a second, to keep the examples quick."""
    if SERVER:
        async with await inferq.aconnect(url) as client:
            yield client
        return
    settings = Settings(retry=RetrySettings(initial_delay=0.001, max_delay=0.001))
    async with AsyncQueue(url, backends=backends, settings=settings) as opened:
        yield opened


async def empty(queue: AsyncClient) -> None:
    """Take away what the example before has left."""
    for schedule in await queue.schedules.list():
        await queue.schedules.remove(schedule.name)
    for verb in ("cancel", "delete"):
        await queue.operations.wait((await queue.operations.start(verb, "state:*")).id)
    for batch in await queue.batches.list():
        await queue.batches.delete(batch.id)
    for scope in await queue.paused():
        await queue.resume(scope)
