"""A real server over a real file with a client of ours, and a server that answers whatever a test writes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from inferq import AsyncQueue, Settings
from inferq.client import AsyncClient
from inferq.config import RetrySettings
from inferq.server import create_app
from inferq.server.serving import Server
from inferq.testing import EchoExecutor

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode does not let test files import each other

from misbehaving import Scripted
from served import Open, Site


@pytest.fixture
async def open_site(tmp_path: Path) -> AsyncIterator[Open]:
    """Makes servers, each with a queue that runs tasks; everything is stopped at the end of the test."""
    async with AsyncExitStack() as stack:

        async def make(*, executor: Any = None, settings: Settings | None = None, **client: Any) -> Site:
            settings = settings or Settings(retry=RetrySettings(initial_delay=0.001, max_delay=0.001))
            queue = AsyncQueue(f"sqlite:///{tmp_path / 'inferq.db'}", backends=[executor or EchoExecutor("echo")], settings=settings)
            await stack.enter_async_context(queue)
            server = Server(create_app(queue), port=0)
            serving = asyncio.create_task(server.serve())

            async def stop() -> None:
                server.stop()
                await serving

            stack.push_async_callback(stop)
            await server.listening.wait()
            asking = AsyncClient(f"http://127.0.0.1:{server.port}", **client)
            return Site(queue, server, await stack.enter_async_context(asking))

        yield make


@pytest.fixture
async def site(open_site: Open) -> Site:
    return await open_site()


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    """A server that answers what the test says."""
    server = Scripted()
    async with server:
        yield server


@pytest.fixture
async def client(scripted: Scripted) -> AsyncIterator[AsyncClient]:
    """A client of the scripted server."""
    async with AsyncClient(scripted.url, api_key="iq_abc_s3cret", timeout=5) as opened:
        yield opened


@pytest.fixture
def count_open_files() -> Callable[[], int]:
    """How many descriptors this process has."""
    return lambda: len(os.listdir("/proc/self/fd"))
