"""A queue behind a server, for programs without an event loop."""

from __future__ import annotations

from typing import Any

from inferq.client import AsyncClient
from inferq.config.secret import Secret
from inferq.handle import Duration
from inferq.sync.door import Door


class Client(Door[AsyncClient]):
    """The queue of a server; the same methods as AsyncClient, blocking.

    with inferq.Client("http://127.0.0.1:7125", api_key="iq_...") as queue:
        print(queue.chat("smollm2", "Why is the sky blue?", executor="llamacpp").result().text)
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | Secret | None = None,
        timeout: Duration = 30.0,
        connect_timeout: Duration = 5.0,
        retries: int = 3,
        patience: Duration = 60.0,
    ) -> None:
        super().__init__()
        self._arguments: dict[str, Any] = {
            "url": url,
            "api_key": api_key if isinstance(api_key, Secret) or api_key is None else Secret(api_key),
            "timeout": timeout,
            "connect_timeout": connect_timeout,
            "retries": retries,
            "patience": patience,
        }

    def __repr__(self) -> str:
        return f"Client({self._arguments['url']!r})"

    def _make(self) -> AsyncClient:
        return AsyncClient(**self._arguments)
