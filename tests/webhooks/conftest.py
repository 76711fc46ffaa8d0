"""Receivers on real sockets that do what the test says, and queues that may call them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from inferq import AsyncQueue, Settings, verify_webhook
from inferq.config import WebhookSettings
from inferq.testing import EchoExecutor, wait_until


class Receiver:
    """Remembers every message. `answers` are what the next ones get: a status, a response, or `cut`; then 204."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.held = asyncio.Event()
        self.held.set()
        self.url = ""

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.got.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        await self.held.wait()
        answer = self.answers.pop(0) if self.answers else 204
        if answer == "cut":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(answer, int):
            return web.Response(status=answer)
        made: web.StreamResponse = answer
        return made

    def messages(self, secret: str) -> list[dict[str, Any]]:
        """Every message, its signature checked."""
        return [verify_webhook(body, headers, secret) for headers, body in self.got]

    async def until(self, count: int) -> None:
        await wait_until(lambda: len(self.got) >= count, what=f"{count} messages")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    made.url = f"http://127.0.0.1:{port}/hook"
    yield made
    made.held.set()
    await runner.cleanup()


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[AsyncQueue]]]:
    """Opens queues on one file whose receivers may be on this machine, and whose retries come at once."""
    async with AsyncExitStack() as stack:

        async def make(*, work: bool = True, executor: Any = None, **hooks: Any) -> AsyncQueue:
            chosen: dict[str, Any] = {"allow_private": True, "initial_delay": 0.001, "max_delay": 0.002}
            settings = Settings(webhooks=WebhookSettings(**(chosen | hooks)))
            backends = [executor or EchoExecutor("echo")]
            queue = AsyncQueue(f"sqlite:///{tmp_path / 'q.db'}", backends=backends, settings=settings, work=work)
            await stack.enter_async_context(queue)
            return queue

        yield make
