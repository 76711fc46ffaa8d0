"""What the guide's examples share: a queue with one pretended model, so that they cost nothing and run anywhere.

`EchoExecutor` answers with what it was asked; its payload can script slowness and failures. Put `ollama`, `openai` or `llamacpp` in its
place and every example works on a real model.

Nothing in the examples says where the queue is. With INFERQ_GUIDE set to the address of a server they all run against that one: a queue
in this program and a queue behind a server are used alike.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from inferq import AsyncClient, AsyncQueue, Settings
from inferq.config import RetrySettings
from inferq.testing import EchoExecutor

SERVERS = os.environ.get("INFERQ_GUIDE", "").split()
"""Servers of the same queues, the one to ask first; each makes a new queue of any name that it is asked for."""


@pytest.fixture
async def url(tmp_path: Path) -> str:
    """Where a queue of one's own is: a file of this machine, or a server's address."""
    if not SERVERS:
        return f"sqlite:///{tmp_path / 'inferq.db'}"
    name = uuid4().hex
    for server in SERVERS:
        async with AsyncClient(f"{server}/{name}") as client:
            await client.stats()
    return f"{SERVERS[0]}/{name}"


@pytest.fixture
async def queue(url: str) -> AsyncIterator[AsyncQueue | AsyncClient]:
    """An open queue, whose tasks are run. Retries wait a thousandth of a second, to keep the examples quick."""
    if SERVERS:
        async with AsyncClient(url) as client:
            yield client
        return
    settings = Settings(retry=RetrySettings(initial_delay=0.001, max_delay=0.001))
    async with AsyncQueue(url, backends=[EchoExecutor("echo")], settings=settings) as opened:
        yield opened
