"""The methods of a queue for programs without an event loop, over any `AsyncDoor`: what `Queue` and `Client` have in common."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from inferq.store import Compacted, StoreStats
from inferq.sync.life import D
from inferq.sync.submitting import Submitting

if TYPE_CHECKING:
    from inferq.sync.archive import Archive
    from inferq.sync.backends import Backends
    from inferq.sync.batches import Batches
    from inferq.sync.keys import Keys
    from inferq.sync.operations import Operations
    from inferq.sync.schedules import Schedules
    from inferq.sync.webhooks import Webhooks

T = TypeVar("T")


class Door(Submitting[D]):
    """The methods of a queue, blocking; more of them in groups, such as `queue.batches`."""

    @property
    def operations(self) -> Operations:
        """Changes of all tasks that pass a filter."""
        from inferq.sync.operations import Operations

        return Operations(self, self._group(lambda door: door.operations))

    @property
    def batches(self) -> Batches:
        """Many tasks under one name: files of them, their progress, their results."""
        from inferq.sync.batches import Batches

        return Batches(self, self._group(lambda door: door.batches))

    @property
    def backends(self) -> Backends:
        """Where tasks run, and whether they may."""
        from inferq.sync.backends import Backends

        return Backends(self, self._group(lambda door: door.backends))

    @property
    def schedules(self) -> Schedules:
        """Tasks that come again at set times."""
        from inferq.sync.schedules import Schedules

        return Schedules(self, self._group(lambda door: door.schedules))

    @property
    def keys(self) -> Keys:
        """Keys of servers, limits of tenants, and the audit log."""
        from inferq.sync.keys import Keys

        return Keys(self, self._group(lambda door: door.keys))

    @property
    def archive(self) -> Archive:
        """The whole store as a file for another store."""
        from inferq.sync.archive import Archive

        return Archive(self, self._group(lambda door: door.archive))

    @property
    def webhooks(self) -> Webhooks:
        """Who is told over HTTP of what happens."""
        from inferq.sync.webhooks import Webhooks

        return Webhooks(self, self._group(lambda door: door.webhooks))

    def _group(self, get: Callable[[D], T]) -> T:
        """A group of the door's methods; it is made on the loop, which it may listen on."""

        async def found() -> T:
            return get(self.asynchronous)

        return self.call(found())

    def backup(self, path: str | Path) -> None:
        """A consistent copy into a new file, while work goes on."""
        self.call(self.asynchronous.backup(path))

    def compact(self, *, dry_run: bool = False) -> Compacted:
        """Give space that removed tasks have left in the store back to the disk; nobody can write meanwhile."""
        return self.call(self.asynchronous.compact(dry_run=dry_run))

    def check(self) -> builtins.list[str]:
        """What is wrong with the store; empty when it is sound."""
        return self.call(self.asynchronous.check())

    def store_stats(self) -> StoreStats:
        """What the store says of itself, for operators."""
        return self.call(self.asynchronous.store_stats())
