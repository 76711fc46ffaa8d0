"""What can be asked of a queue, blocking."""

from __future__ import annotations

import builtins
from collections.abc import Iterator

from inferq.door import QueueStats
from inferq.store import Cursor, Page, Where
from inferq.sync.life import D, Life
from inferq.task import AttemptRecord, Task
from inferq.waiting import Waiting


class Asking(Life[D]):
    """Questions. None of them changes anything, and none costs more the longer the queue is."""

    def resolve(self, prefix: str) -> str:
        """The full id that begins so. Raises TaskNotFound or AmbiguousId."""
        return self.call(self.asynchronous.resolve(prefix))

    def get(self, id: str) -> Task:
        """Raises TaskNotFound."""
        return self.call(self.asynchronous.get(id))

    def list(self, where: Where = None, *, limit: int | None = None, after: Cursor | None = None) -> Page:
        """One page, newest first unless the filter says otherwise; pass the page's `after` to go on, until that is None."""
        return self.call(self.asynchronous.list(where, limit=limit, after=after))

    def iterate(self, where: Where = None) -> Iterator[Task]:
        """All tasks that fit, newest first, page by page."""
        return self._background.iterate(self.asynchronous.iterate(where))

    def attempts(self, id: str) -> builtins.list[AttemptRecord]:
        """Ended attempts of a task, first to last."""
        return self.call(self.asynchronous.attempts(id))

    def stats(self) -> QueueStats:
        """Counts, from maintained counters."""
        return self.call(self.asynchronous.stats())

    def explain(self, id: str) -> Waiting:
        """Why a task waits: the gate that holds it, its position, an estimated start. Raises TaskNotFound."""
        return self.call(self.asynchronous.explain(id))

    def why(self, id: str) -> str:
        """One line that says what a task waits for."""
        return self.call(self.asynchronous.why(id))

    def paused(self) -> frozenset[str]:
        """Paused scopes."""
        return self.call(self.asynchronous.paused())
