"""The queue of a server: the same door as a queue in this process, over HTTP."""

from inferq.client.front import AsyncClient

__all__ = ["AsyncClient"]
