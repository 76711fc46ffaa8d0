"""A running server with the queue behind it and a client before it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from inferq import AsyncClient, AsyncQueue
from inferq.server.serving import Server


class Site:
    """A running server, the queue behind it and a client before it."""

    def __init__(self, queue: AsyncQueue, server: Server, client: AsyncClient) -> None:
        self.queue = queue
        self.server = server
        self.client = client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"


Open = Callable[..., Awaitable[Site]]
