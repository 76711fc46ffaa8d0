"""What can be asked of a queue: tasks, listings, counts, why a task waits."""

from __future__ import annotations

import builtins
from abc import abstractmethod
from collections.abc import AsyncIterator

import msgspec

from inferq.door.life import Life
from inferq.errors import AmbiguousId, TaskNotFound
from inferq.given import is_text
from inferq.store import Cursor, Filter, Page, Where, query_of
from inferq.task import AttemptRecord, Task
from inferq.waiting import Waiting


class QueueStats(msgspec.Struct, frozen=True):
    """Tasks by state; pending ones by priority and lane; this process's slots; what is paused; how many tasks local and remote backends
    have completed since the store was made; whether the queue is drained."""

    states: dict[str, int]
    total: int
    pending_by_priority: dict[int, int]
    pending_by_lane: dict[str, int]
    workers_active: int
    workers_idle: int
    paused: list[str]
    executed_local: int = 0
    executed_remote: int = 0
    draining: bool = False


class Asking(Life):
    """Questions. None of them changes anything, and none costs more the longer the queue is."""

    async def resolve(self, prefix: str) -> str:
        """The full id that begins so. Raises TaskNotFound or AmbiguousId."""
        if not prefix or not is_text(prefix):
            raise TaskNotFound(f"expected the id of a task or the beginning of one, got {prefix!r}")
        found = (await self.list(Filter(prefix=prefix.lower()), limit=2)).tasks
        if not found:
            raise TaskNotFound(f"expected the id of a task or the beginning of one, got {prefix!r}: no task has it")
        if len(found) > 1 and found[0].id != prefix.lower():
            raise AmbiguousId(f"expected the beginning of one id, but several tasks begin with {prefix!r}; give more of it")
        return found[0].id

    @abstractmethod
    async def get(self, id: str) -> Task:
        """Raises TaskNotFound."""

    @abstractmethod
    async def list(self, where: Where = None, *, limit: int | None = None, after: Cursor | None = None) -> Page:
        """One page, newest first unless the filter says otherwise; pass the page's `after` to go on, until that is None.

        `where` is a text of the filter language (docs/filters.md) or a Filter. `limit` is 1 to 10,000; without it the filter's own
        or 50. A page may be short, even empty, and still be followed by others: see Page. Raises InvalidQuery, InvalidTask.
        """

    async def iterate(self, where: Where = None) -> AsyncIterator[Task]:
        """All tasks that fit, or as many as the filter's `limit:` says, newest first, page by page. Raises InvalidQuery."""
        query = query_of(where)
        left = query.limit
        after: Cursor | None = None
        while left is None or left > 0:
            page = await self.list(query, after=after, limit=500 if left is None else min(500, left))
            for task in page.tasks:
                yield task
            if page.after is None:
                return
            after = page.after
            left = None if left is None else left - len(page.tasks)

    @abstractmethod
    async def attempts(self, id: str) -> builtins.list[AttemptRecord]:
        """Ended attempts of a task, first to last. Raises TaskNotFound."""

    @abstractmethod
    async def stats(self) -> QueueStats:
        """Counts, from maintained counters."""

    @abstractmethod
    async def explain(self, id: str) -> Waiting:
        """Why a task waits: the gate that holds it, its position, an estimated start. Raises TaskNotFound."""

    async def why(self, id: str) -> str:
        """One line that says what a task waits for. Raises TaskNotFound."""
        return (await self.explain(id)).reason

    @abstractmethod
    async def paused(self) -> frozenset[str]:
        """Paused scopes."""
