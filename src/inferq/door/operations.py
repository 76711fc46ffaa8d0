"""Bulk operations as a program meets them, wherever the queue is: `queue.operations`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import timedelta

from inferq.operation import Operation, Verb


class OperationsDoor(ABC):
    """Cancel, retry, move or delete all tasks that pass a filter: an object with its progress, which outlives who asked for it."""

    @abstractmethod
    async def start(
        self,
        verb: Verb,
        q: str,
        *,
        priority: int | str | None = None,
        reason: str = "",
        dry_run: bool = False,
        expected: int | None = None,
        bound: int | None = None,
    ) -> Operation:
        """Begin one, and return at once; with `dry_run` only count (up to 10,000) and show examples: nothing is kept or changed.

        `q` is a text of the filter language. `priority` belongs to the verb `priority`, `reason` to `cancel`. Give what a preview said as
        `expected` and `bound`: then only tasks that were there at the preview are touched, and when more than a tenth more pass by now
        it is refused with Conflict. Raises InvalidQuery, InvalidTask.
        """

    @abstractmethod
    async def get(self, id: str) -> Operation:
        """How far it is. Raises RecordNotFound."""

    @abstractmethod
    async def list(self, *, limit: int = 50) -> list[Operation]:
        """The latest ones, newest first."""

    @abstractmethod
    async def stop(self, id: str) -> Operation:
        """End it after the bite it is at; what was changed stays so. Idempotent. Raises RecordNotFound."""

    @abstractmethod
    async def wait(self, id: str, timeout: float | str | timedelta | None = None) -> Operation:
        """The operation when it is over. Raises WaitTimeout (it goes on), RecordNotFound."""
