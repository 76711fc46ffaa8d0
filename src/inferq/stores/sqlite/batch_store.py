"""The methods of the SQLite store that keep batches."""

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from inferq.batch import Batch, BatchFailures, BatchItem, BatchLine, BatchState, NewBatch
from inferq.clock import Now
from inferq.store import BatchFilter
from inferq.stores.sqlite import batch_reads, batches
from inferq.stores.sqlite.writer import Verb
from inferq.task import State

T = TypeVar("T")


class BatchVerbs(ABC):
    """What `inferq.store.BatchStore` promises."""

    @abstractmethod
    def _call(self, verb: Verb | None, args: Any) -> asyncio.Future[Any]: ...

    @abstractmethod
    async def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T: ...

    async def create_batch(self, new: NewBatch, now: Now) -> Batch:
        made: Batch = await self._call(batches.create, (new, now))
        return made

    async def add_lines(self, id: str, lines: Sequence[BatchLine], now: Now, *, limit: int | None = None) -> int:
        count: int = await self._call(batches.add_lines, (id, lines, now, limit))
        return count

    async def seal_batch(self, id: str, now: Now, *, sealed: bool = True) -> Batch:
        batch: Batch = await self._call(batches.seal, (id, now, sealed))
        return batch

    async def hold_batch(self, id: str, now: Now, *, held: bool = True) -> Batch:
        batch: Batch = await self._call(batches.hold, (id, now, held))
        return batch

    async def cancel_batch(self, id: str, now: Now, *, reason: str = "") -> Batch:
        batch: Batch = await self._call(batches.cancel, (id, now, reason))
        return batch

    async def drop_batch(self, id: str, now: Now) -> None:
        await self._call(batches.drop, (id, now))

    async def settle_batches(self, now: Now, *, limit: int = 500) -> bool:
        more: bool = await self._call(batches.settle, (now, limit))
        return more

    async def batch(self, id: str) -> Batch | None:
        return await self._ask(partial(batch_reads.get, id=id))

    async def batches(self, where: BatchFilter, *, after: str | None = None, limit: int = 50) -> list[Batch]:
        return await self._ask(partial(batch_reads.find, where=where, after=after, limit=limit))

    async def batch_counts(self) -> dict[BatchState, int]:
        return await self._ask(batch_reads.counts)

    async def batch_items(
        self, id: str, *, after: int = 0, limit: int = 100, states: Sequence[State] = (), results: bool = True
    ) -> list[BatchItem]:
        return await self._ask(partial(batch_reads.items, id=id, after=after, limit=limit, states=states, results=results))

    async def batch_tasks(
        self, id: str, state: State, *, codes: Sequence[str] = (), after: int = 0, limit: int = 500
    ) -> list[tuple[int, str]]:
        return await self._ask(partial(batch_reads.tasks, id=id, state=state, codes=codes, after=after, limit=limit))

    async def batch_failures(self, id: str) -> list[BatchFailures]:
        return await self._ask(partial(batch_reads.failures, id=id))

    async def batch_keys(self, id: str, keys: Sequence[str]) -> set[str]:
        return await self._ask(partial(batch_reads.keys, id=id, wanted=keys))
