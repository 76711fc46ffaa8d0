"""What the methods of a queue in this process work with: settings, clock, the open store, the hub that listens to it, the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferq.clock import Clock
from inferq.config import Settings
from inferq.door import AsyncDoor
from inferq.errors import StoreClosed
from inferq.hub import Hub
from inferq.store import Store

if TYPE_CHECKING:
    from inferq.engine import Engine


class Opened(AsyncDoor):
    """Holds them while the queue is open; `front.py` opens and closes them."""

    _settings: Settings
    _clock: Clock
    _store: Store | None = None
    _hub: Hub | None = None
    _engine: Engine | None = None

    @property
    def store(self) -> Store:
        """The open store. Raises StoreClosed."""
        if self._store is None:
            raise StoreClosed("expected an open queue; use `async with AsyncQueue(...)` or call start() first")
        return self._store

    @property
    def _open_hub(self) -> Hub:
        if self._hub is None or self._store is None:
            raise StoreClosed("expected an open queue; use `async with AsyncQueue(...)` or call start() first")
        return self._hub
