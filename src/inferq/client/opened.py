"""What the methods of a client work with: the transport that carries their requests."""

from __future__ import annotations

from abc import abstractmethod

from inferq.client.transport import Transport
from inferq.door import AsyncDoor
from inferq.errors import TaskNotFound
from inferq.given import is_text


class Opened(AsyncDoor):
    """Holds it while the client is open; `front.py` opens and closes it."""

    @property
    @abstractmethod
    def transport(self) -> Transport:
        """What carries requests to the server. Raises StoreClosed."""


def task_id(id: str) -> str:
    """What may stand in an address as the id of a task. Raises TaskNotFound."""
    if not is_text(id) or not id:
        raise TaskNotFound(f"expected the id of a task, got {id!r}")
    return id
