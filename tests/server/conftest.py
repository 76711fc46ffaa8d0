"""A real server on a real port over a real file, and a client that is not ours."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from inferq import AsyncQueue, Settings
from inferq.clock import Clock, SystemClock
from inferq.config import WorkerSettings
from inferq.server import create_app
from inferq.server.serving import Server
from inferq.testing import EchoExecutor

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode does not let test files import each other


class Site:
    """A running server and a session of its own to ask it with."""

    def __init__(self, queue: AsyncQueue, server: Server, session: aiohttp.ClientSession) -> None:
        self.queue = queue
        self.server = server
        self.app = server.app
        self.session = session
        self.url = f"http://127.0.0.1:{server.port}"

    async def ask(self, method: str, path: str, **how: Any) -> tuple[int, Any, Any]:
        """Status, decoded body (None when empty), headers."""
        async with self.session.request(method, self.url + path, **how) as answer:
            content = await answer.read()
            return (
                answer.status,
                msgspec.json.decode(content) if content and "json" in answer.content_type else content or None,
                answer.headers,
            )

    async def get(self, path: str, **how: Any) -> Any:
        status, body, _ = await self.ask("GET", path, **how)
        assert status == 200, body
        return body

    async def post(self, path: str, json: Any = None, **how: Any) -> Any:
        status, body, _ = await self.ask("POST", path, json=json, **how)
        assert status in (200, 201, 202, 204), body
        return body


Open = Callable[..., Awaitable[Site]]


@pytest.fixture
async def open_site(tmp_path: Path) -> AsyncIterator[Open]:
    """Makes servers; each is stopped at the end of the test."""
    async with AsyncExitStack() as stack:

        async def make(
            *,
            settings: Settings | None = None,
            work: bool = True,
            file: str = "queue.db",
            executor: Any = None,
            app: Any = None,
            configured: bool = False,
            clock: Clock | None = None,
            **server: Any,
        ) -> Site:
            settings = settings or Settings(worker=WorkerSettings(shutdown_grace=0.0))
            if server:
                settings = msgspec.structs.replace(settings, server=msgspec.structs.replace(settings.server, **server))
            backends = None if configured else [executor or EchoExecutor("echo")]
            queue = await stack.enter_async_context(
                AsyncQueue(f"sqlite:///{tmp_path / file}", backends=backends, settings=settings, work=work, clock=clock or SystemClock())
            )
            running = Server(app(queue) if app else create_app(queue), port=0)
            task = asyncio.create_task(running.serve())

            async def stop() -> None:
                running.stop()
                await task

            stack.push_async_callback(stop)
            await running.listening.wait()
            session = await stack.enter_async_context(aiohttp.ClientSession())
            return Site(queue, running, session)

        yield make


@pytest.fixture
async def site(open_site: Open) -> Site:
    return await open_site()


@pytest.fixture
def chat() -> Callable[..., dict[str, Any]]:
    """A body for POST /api/tasks."""

    def make(text: str = "hello", **further: Any) -> dict[str, Any]:
        return {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": [{"role": "user", "content": text}]}} | further

    return make
