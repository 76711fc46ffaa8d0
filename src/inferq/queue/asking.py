"""Questions to a queue in this process, answered by its store."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

from inferq.door import QueueStats
from inferq.errors import TaskNotFound
from inferq.given import is_text
from inferq.query import search
from inferq.queue.opened import Opened
from inferq.store import Cursor, Page, Where, checked_cursor, page_size, query_of
from inferq.task import DRAIN, AttemptRecord, Task
from inferq.waiting import Waiting

if TYPE_CHECKING:
    from inferq.backend import Notice
    from inferq.queue.waiting import Explainer


class Asking(Opened):
    """Tasks, listings, counts, and why a task waits."""

    _explains: Explainer | None = None

    async def get(self, id: str) -> Task:
        """Raises TaskNotFound."""
        task = await self.store.get(id) if is_text(id) else None
        if task is None:
            raise TaskNotFound.of(id)
        return task

    async def list(self, where: Where = None, *, limit: int | None = None, after: Cursor | None = None) -> Page:
        """One page, newest first unless the filter says otherwise; pass the page's `after` to go on."""
        query = query_of(where)
        wanted = page_size(limit, query)
        return await self.store.find(search(query, self._clock.read().wall), after=checked_cursor(after), limit=wanted)

    async def attempts(self, id: str) -> builtins.list[AttemptRecord]:
        """Ended attempts of a task, first to last."""
        found = await self.store.attempts(id)
        if not found:
            await self.get(id)
        return found

    async def explain(self, id: str) -> Waiting:
        """Why a task waits: the gate that holds it, its position, an estimated start. Raises TaskNotFound."""
        return await self._explainer.explain(await self.get(id))

    async def retry_after(self, lane: str | None = None) -> float:
        """Seconds after which a caller that was refused for want of room should come again, by measured service times."""
        return await self._explainer.retry_after(lane)

    async def paused(self) -> frozenset[str]:
        """Paused scopes."""
        return await self.store.paused() - {DRAIN}

    async def stats(self) -> QueueStats:
        """Counts, from maintained counters."""
        counts, paused = await self.store.counts(), await self.store.paused()
        worker = self._engine.worker if self._engine is not None else None
        executed = await self.store.executed()
        return QueueStats(
            states=counts.states,
            total=counts.total,
            pending_by_priority=counts.pending_by_priority,
            pending_by_lane=counts.pending_by_lane,
            workers_active=counts.states["running"],
            workers_idle=max(0, worker.slots - worker.busy) if worker is not None else 0,
            paused=sorted(paused - {DRAIN}),
            draining=DRAIN in paused,
            executed_local=sum(one.completed for one in executed if not one.remote),
            executed_remote=sum(one.completed for one in executed if one.remote),
        )

    @property
    def _explainer(self) -> Explainer:
        if self._explains is None:
            from inferq.queue.waiting import Explainer

            self._explains = Explainer(self.store, self._clock, self._notice)
        return self._explains

    def _notice(self) -> Notice | None:
        return None if self._engine is None else self._engine.board.notice()
