"""Everything a program can ask of a queue, wherever the queue is: what `AsyncQueue` (in this process) and `AsyncClient` (over HTTP)
have in common. What can be said in terms of a few questions is written here once; the questions are abstract."""

from __future__ import annotations

import builtins
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from inferq.door.submitting import Submitting
from inferq.store import Compacted, StoreStats

if TYPE_CHECKING:
    from inferq.door.archive import ArchiveDoor
    from inferq.door.backends import BackendsDoor
    from inferq.door.batches import BatchesDoor
    from inferq.door.keys import KeysDoor
    from inferq.door.operations import OperationsDoor
    from inferq.door.schedules import SchedulesDoor
    from inferq.door.webhooks import WebhooksDoor


class AsyncDoor(Submitting):
    """The methods of a queue; more of them in groups, such as `queue.batches`."""

    @property
    @abstractmethod
    def batches(self) -> BatchesDoor:
        """Many tasks under one name: files of them, their progress, their results."""

    @property
    @abstractmethod
    def backends(self) -> BackendsDoor:
        """Where tasks run, and whether they may."""

    @property
    @abstractmethod
    def schedules(self) -> SchedulesDoor:
        """Tasks that come again at set times."""

    @property
    @abstractmethod
    def operations(self) -> OperationsDoor:
        """Changes of all tasks that pass a filter."""

    @property
    @abstractmethod
    def keys(self) -> KeysDoor:
        """Keys of servers, limits of tenants, and the audit log."""

    @property
    @abstractmethod
    def archive(self) -> ArchiveDoor:
        """The whole store as a file for another store."""

    @property
    @abstractmethod
    def webhooks(self) -> WebhooksDoor:
        """Who is told over HTTP of what happens."""

    @abstractmethod
    async def backup(self, path: str | Path) -> None:
        """A consistent copy into a new file, while work goes on."""

    @abstractmethod
    async def compact(self, *, dry_run: bool = False) -> Compacted:
        """Give space that removed tasks have left in the store back to the disk; nobody can write meanwhile. With `dry_run` only say how
        much. Raises Conflict for a large store in which tasks run, StoreFull where there is no room for the copy that it takes."""

    @abstractmethod
    async def check(self) -> builtins.list[str]:
        """What is wrong with the store; empty when it is sound."""

    @abstractmethod
    async def store_stats(self) -> StoreStats:
        """What the store says of itself, for operators."""
