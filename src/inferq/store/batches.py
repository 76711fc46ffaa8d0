"""What a store must do for batches: tasks under one name whose counts move in the transactions of their tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from inferq.batch.record import Batch, BatchFailures, BatchItem, BatchLine, BatchState, NewBatch
from inferq.clock import Now
from inferq.task import State


class BatchFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which batches; empty means any. `prefix` is the beginning of an id; `unfinished` leaves out those that are finished."""

    name: str | None = None
    tenant: str | None = None
    source: str | None = None
    prefix: str | None = None
    unfinished: bool = False


class BatchStore(Protocol):
    """The part of a store that keeps batches: tasks under one name whose counts move in the transactions of their tasks.

    `batch.finished` is told once: in the transaction in which a sealed batch has nothing waiting or running any more. A retry of its
    tasks opens it again, and its next end is told again. Methods that name a batch raise BatchNotFound.
    """

    async def create_batch(self, new: NewBatch, now: Now) -> Batch:
        """Raises BatchExists when the tenant has another batch of that name."""
        ...

    async def add_lines(self, id: str, lines: Sequence[BatchLine], now: Now, *, limit: int | None = None) -> int:
        """Keep the tasks of these lines, all or none, and return how many were new: lines whose number or key the batch has are passed
        over, so that adding again is harmless. Raises WrongState (sealed or cancelled) and what `add` raises."""
        ...

    async def seal_batch(self, id: str, now: Now, *, sealed: bool = True) -> Batch:
        """No more lines, or with False: more of them. Idempotent. Raises WrongState for opening a cancelled one."""
        ...

    async def hold_batch(self, id: str, now: Now, *, held: bool = True) -> Batch:
        """Pause or resume: waiting tasks are held (`scheduled`, due never) and go back to their places; so are those that are added or
        come back meanwhile. Done in bites, by `settle_batches`. Idempotent. Raises WrongState for pausing a cancelled one."""
        ...

    async def cancel_batch(self, id: str, now: Now, *, reason: str = "") -> Batch:
        """It is sealed, and its tasks that have not ended are cancelled, in bites, by `settle_batches`. Idempotent; a finished
        one stays as it is."""
        ...

    async def drop_batch(self, id: str, now: Now) -> None:
        """It cannot be found from now on; it and its tasks are removed, in bites, by `settle_batches`. Raises WrongState while some
        wait or run."""
        ...

    async def settle_batches(self, now: Now, *, limit: int = 500) -> bool:
        """One bite, at most `limit` tasks, of what batches still have to become; whether there is more."""
        ...

    async def batch(self, id: str) -> Batch | None: ...

    async def batches(self, where: BatchFilter, *, after: str | None = None, limit: int = 50) -> list[Batch]:
        """Newest first; `after` is the id of the last one seen."""
        ...

    async def batch_counts(self) -> dict[BatchState, int]:
        """How many batches are in each state; read from an index, not from the batches."""
        ...

    async def batch_items(
        self, id: str, *, after: int = 0, limit: int = 100, states: Sequence[State] = (), results: bool = True
    ) -> list[BatchItem]:
        """Lines with a number above `after`, in input order, with what became of them."""
        ...

    async def batch_tasks(
        self, id: str, state: State, *, codes: Sequence[str] = (), after: int = 0, limit: int = 500
    ) -> list[tuple[int, str]]:
        """(sequence number, id) of its tasks in a state, after a sequence number."""
        ...

    async def batch_failures(self, id: str) -> list[BatchFailures]:
        """Its failed tasks by code, the most frequent first."""
        ...

    async def batch_keys(self, id: str, keys: Sequence[str]) -> set[str]:
        """Those of the keys that the batch has."""
        ...
