"""From an address to an open queue: its scheme says where the queue is, and where none is given, the environment does."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


async def aconnect(
    url: str | None = None, *, api_key: str | None = None, work: bool = True, settings: Settings | None = None
) -> AsyncQueue | AsyncClient:
    """An open queue: behind a server for http:// and https://, in this program for a store's URL or path. Close it, or use it as a
    context manager.

    Without `url` it is what INFERQ_URL says, else the profile in use, else the configured store. `api_key` (else INFERQ_API_KEY, else
    the profile's) is for a server; `work` and `settings` are for a queue in this program.
    """
    door = door_of(find_address(url, api_key=api_key, settings=settings), work=work, settings=settings)
    await door.start()
    return door


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
