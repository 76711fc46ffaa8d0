"""What every part of the store contract stands on: how a store is opened for a test, and the processes that share it."""

# ruff: noqa: S101 - a contract asserts; pytest rewrites these modules so that a failure shows its values

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from inferq.clock import Clock
from inferq.store import Store
from inferq.testing.clock import FakeClock
from inferq.testing.peer import Peer


class ContractBase:
    """Opens stores on one truth a test; see `StoreContract` for how to use it."""

    shared: ClassVar[bool] = True
    """Whether a second `open` of a test joins the first one's truth. Where it cannot, tests of two processes are skipped."""
    lease: ClassVar[float] = 2.0
    """Seconds, passed to `open`; short, since a store's own renewals follow it in real time."""
    lost_limit: ClassVar[int] = 2
    """Passed to `open`: how often a task may vanish with its worker before it fails."""

    async def open(self, *, clock: Clock, lease: float, lost_limit: int) -> Store:
        """Open the truth of this test: each test gets an empty one, and a further call in it is another process on the same one."""
        raise NotImplementedError(f"{type(self).__name__} must define open(clock, lease, lost_limit)")

    async def peer(self, clock: FakeClock | None = None) -> Peer:
        """One more process. Its clock starts where every peer's starts; the test closes its store."""
        clock = clock or FakeClock()
        return Peer(await self.open(clock=clock, lease=self.lease, lost_limit=self.lost_limit), clock)

    @pytest.fixture
    async def here(self) -> AsyncIterator[Peer]:
        """A process on an empty store."""
        peer = await self.peer()
        yield peer
        await peer.store.close()

    @pytest.fixture
    async def there(self, here: Peer) -> AsyncIterator[Peer]:
        """A second process on the same store, with a clock of its own."""
        if not self.shared:
            pytest.skip("this store cannot be shared by two processes")
        peer = await self.peer()
        assert peer.store.instance != here.store.instance
        yield peer
        await peer.store.close()
