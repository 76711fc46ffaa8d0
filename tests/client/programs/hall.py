"""A process that serves many queues, each under a prefix of its own: /NAME is the queue in DIRECTORY/NAME.db, opened when first asked.

    hall.py DIRECTORY work|gateway      prints its port

As `work` it also runs the tasks; as `gateway` it only speaks HTTP, and another process must work on the same stores.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn

from inferq import AsyncQueue, Settings
from inferq.config import RetrySettings
from inferq.server import create_app
from inferq.testing import EchoExecutor


class Hall:
    """An application around the applications."""

    def __init__(self, directory: Path, *, work: bool) -> None:
        self._directory = directory
        self._work = work
        self._opened: dict[str, asyncio.Task[Any]] = {}
        self._queues: list[AsyncQueue] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        name = scope["path"].split("/")[1]
        if name not in self._opened:
            self._opened[name] = asyncio.create_task(self._open(name))
        app = await self._opened[name]
        await app(scope | {"root_path": f"/{name}"}, receive, send)

    async def _open(self, name: str) -> Any:
        settings = Settings(retry=RetrySettings(initial_delay=0.001, max_delay=0.001))
        url = f"sqlite:///{self._directory / name}.db"
        queue = AsyncQueue(url, backends=[EchoExecutor("echo")], settings=settings, work=self._work)
        await queue.start()
        self._queues.append(queue)
        return create_app(queue)

    async def close(self) -> None:
        await asyncio.gather(*(queue.close(0) for queue in self._queues))


async def main() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    hall = Hall(Path(sys.argv[1]), work=sys.argv[2] == "work")
    config = uvicorn.Config(hall, lifespan="off", log_level="warning", timeout_graceful_shutdown=1)
    await uvicorn.Server(config).serve(sockets=[listening])
    await hall.close()


asyncio.run(main())
