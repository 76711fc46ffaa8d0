"""Questions to a server: each is one request."""

from __future__ import annotations

import builtins
from typing import Final

from inferq.client.opened import Opened, task_id
from inferq.client.transport import Query, get
from inferq.door import QueueStats
from inferq.store import Cursor, Page, Where, checked_cursor, page_size, query_of
from inferq.task import AttemptRecord, Task
from inferq.waiting import Waiting
from inferq.wire.native import Listing, StatsView, TaskView

_LARGEST_PAGE: Final = 1000
"""Tasks that a server gives at once; a page may be shorter than its limit."""


class Asking(Opened):
    """Tasks, listings, counts, and why a task waits."""

    async def get(self, id: str) -> Task:
        """Raises TaskNotFound."""
        return (await self.transport.ask(get("tasks", task_id(id)), TaskView)).task()

    async def list(self, where: Where = None, *, limit: int | None = None, after: Cursor | None = None) -> Page:
        """One page, newest first unless the filter says otherwise; pass the page's `after` to go on, until that is None."""
        said = query_of(where)
        wanted = page_size(limit, said)
        query: Query = {"q": str(said) or None, "limit": min(wanted, _LARGEST_PAGE), "after": checked_cursor(after)}
        page = await self.transport.ask(get("tasks", query=query), Listing[TaskView])
        return Page([view.task() for view in page.items], int(page.next) if page.next is not None and page.next.isdecimal() else page.next)

    async def attempts(self, id: str) -> builtins.list[AttemptRecord]:
        """Ended attempts of a task, first to last."""
        return (await self.transport.ask(get("tasks", task_id(id), "attempts"), Listing[AttemptRecord])).items

    async def stats(self) -> QueueStats:
        """Counts, from maintained counters."""
        view = await self.transport.ask(get("stats"), StatsView)
        return QueueStats(
            states=view.states,
            total=view.total,
            pending_by_priority={int(priority): count for priority, count in view.pending_by_priority.items()},
            pending_by_lane=view.pending_by_lane,
            workers_active=view.workers_active,
            workers_idle=view.workers_idle,
            paused=view.paused,
            executed_local=view.executed_local,
            executed_remote=view.executed_remote,
            draining=view.draining,
        )

    async def explain(self, id: str) -> Waiting:
        """Why a task waits: the gate that holds it, its position, an estimated start. Raises TaskNotFound."""
        return await self.transport.ask(get("tasks", task_id(id), "why"), Waiting)

    async def paused(self) -> frozenset[str]:
        """Paused scopes."""
        return frozenset((await self.stats()).paused)
