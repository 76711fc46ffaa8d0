"""From an address to an open queue: its scheme says where the queue is, and where none is given, the environment does."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from inferq.config import Settings
from inferq.config.address import Address, find_address

if TYPE_CHECKING:
    from inferq.client import AsyncClient
    from inferq.queue import AsyncQueue
    from inferq.sync.client import Client
    from inferq.sync.queue import Queue


def door_of(address: Address, *, work: bool = True, settings: Settings | None = None) -> AsyncQueue | AsyncClient:
    """The queue at an address, not yet open."""
    if address.is_server:
        from inferq.client import AsyncClient

        return AsyncClient(address.url, api_key=address.api_key)
    from inferq.queue import AsyncQueue

    return AsyncQueue(address.url, work=work, settings=settings)


class Opening:
    """A queue that opens when it is awaited (close it then), or for the time of an `async with`."""

    def __init__(self, url: str | None, api_key: str | None, work: bool, settings: Settings | None) -> None:
        self._asked = (url, api_key, work, settings)
        self._door: AsyncQueue | AsyncClient | None = None

    def __await__(self) -> Generator[Any, None, AsyncQueue | AsyncClient]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncQueue | AsyncClient:
        self._door = await self._open()
        return self._door

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._door is not None:
            await self._door.close()

    async def _open(self) -> AsyncQueue | AsyncClient:
        url, api_key, work, settings = self._asked
        door = door_of(find_address(url, api_key=api_key, settings=settings), work=work, settings=settings)
        await door.start()
        return door


def aconnect(url: str | None = None, *, api_key: str | None = None, work: bool = True, settings: Settings | None = None) -> Opening:
    """A queue behind a server for http:// and https://, in this program for a store's URL or path: `async with aconnect(...) as queue`,
    or `queue = await aconnect(...)`, to be closed.

    Without `url` it is what INFERQ_URL says, else the profile in use, else the configured store. `api_key` (else INFERQ_API_KEY, else
    the profile's) is for a server; `work` and `settings` are for a queue in this program.
    """
    return Opening(url, api_key, work, settings)


def connect(url: str | None = None, *, api_key: str | None = None, work: bool = True, settings: Settings | None = None) -> Queue | Client:
    """An open queue, as `aconnect` chooses it, for programs without an event loop."""
    address = find_address(url, api_key=api_key, settings=settings)
    if address.is_server:
        from inferq.sync.client import Client

        client = Client(address.url, api_key=address.api_key)
        client.start()
        return client
    from inferq.sync.queue import Queue

    queue = Queue(address.url, work=work, settings=settings)
    queue.start()
    return queue
