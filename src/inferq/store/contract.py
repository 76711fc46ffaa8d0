"""The methods of a store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from inferq.clock import Now
from inferq.errors import ClaimLost, WrongState
from inferq.events import Event
from inferq.executor import Chunk
from inferq.query import Search
from inferq.store.batches import BatchStore
from inferq.store.change import Listener, LoggedChunk, Position
from inferq.store.figures import Ahead, Compacted, Counts, Executed, Retention, StoreStats
from inferq.store.listing import Cursor, Page
from inferq.store.record import Record, RecordPut
from inferq.task import AttemptRecord, Claim, Head, NewTask, Outcome, State, Task, TaskResult

if TYPE_CHECKING:
    from inferq.access import AuditEntry
    from inferq.archive import Item
    from inferq.policy import Want
    from inferq.timing import Times


class Store(BatchStore, Protocol):
    """Where truth is kept. One object per process and event loop; open it with `stores.open_store`."""

    @property
    def instance(self) -> str:
        """This process's name among the store's users: new at each opening."""
        ...

    # a task's way ------------------------------------------------------------------------------------------------

    async def add(
        self,
        tasks: Sequence[NewTask],
        now: Now,
        *,
        limit: int | None = None,
        guard: RecordPut | None = None,
        told: Sequence[Event] = (),
    ) -> list[str]:
        """Keep all of them or none; returns their ids in order. With a `guard` that record is put in the same transaction, or neither
        (StaleRecord): what makes tasks from a record makes them once over all processes. `told` are events that are true with it and only
        then: they are written in the same transaction.

        A task whose key is known with the same digest is not added again: the first one's id is returned. Raises DuplicateKey
        (other digest) and QueueFull (more than `limit` would be waiting). Keys are told apart by tenant.
        """
        ...

    async def heads(self) -> tuple[list[Head], frozenset[str]]:
        """Every non-empty flow's head, and the paused scopes. `Change` keeps both up to date afterwards."""
        ...

    async def paused(self) -> frozenset[str]:
        """The paused scopes alone; what `heads` says of them, without a look at any flow."""
        ...

    async def claim(self, wants: Sequence[Want], now: Now) -> list[list[Claim]]:
        """For each want, pop up to its limit: tier after tier, within a tier by smallest sequence number. Lost races are not returned.

        Each claim is a new attempt of this instance and a new token; a `reset` record opens the attempt's chunk log if an earlier
        attempt had written any.
        """
        ...

    async def append(self, items: Sequence[tuple[Claim, Sequence[Chunk]]], now: Now) -> list[ClaimLost | None]:
        """Add chunks to the logs of these attempts; an item whose claim is lost adds nothing and gets its error."""
        ...

    async def finish(self, items: Sequence[tuple[Claim, Outcome]], now: Now) -> list[ClaimLost | None]:
        """End attempts: state, attempt record, result, terminal chunk record, counters and event in one transaction.

        A retry or release whose time has come is pending at once.
        Idempotent for a repeated call with the same claim and a final outcome: the second is refused as `finished`.
        """
        ...

    async def renew(self, now: Now) -> None:
        """Extend the lease of this instance and so of every claim it holds. The store also does so itself, from its own thread."""
        ...

    # changes from outside ----------------------------------------------------------------------------------------

    async def cancel(self, ids: Sequence[str], now: Now, *, reason: str = "") -> list[WrongState | None]:
        """Waiting tasks end at once; running ones are fenced at once (their claim is lost). A final one gets WrongState.

        Raises TaskNotFound, and then nothing was changed; so do `reprioritize` and `retry`.
        """
        ...

    async def reprioritize(self, ids: Sequence[str], priority: int, now: Now) -> list[WrongState | None]:
        """Move waiting tasks to the flow of that priority, keeping their sequence numbers. Running or final ones get WrongState."""
        ...

    async def retry(self, ids: Sequence[str], now: Now, *, priority: int | None = None, due: bool = False) -> list[WrongState | None]:
        """Make failed or cancelled tasks pending again, with their sequence numbers, a fresh retry budget and without their deadlines.
        A `priority` moves them there too. With `due` scheduled ones whose batch is not held are pending as well, as they are.
        A `reset` record takes the place of the `end` in its log. (Here and in `cancel`, an id given twice counts once.)"""
        ...

    async def delete(self, ids: Sequence[str], now: Now) -> list[WrongState | None]:
        """Remove ended tasks with their results, streams and keys; there is no undo. Waiting or running ones get WrongState.

        Raises TaskNotFound, and then nothing was removed. Emits `task.deleted`.
        """
        ...

    async def pause(self, scope: str, now: Now) -> None:
        """Stop claims of a lane, or of all with `*`, in every process. Idempotent."""
        ...

    async def resume(self, scope: str, now: Now) -> None:
        """Undo `pause` of the same scope. Idempotent."""
        ...

    async def put_record(self, put: RecordPut, now: Now, *, told: Sequence[Event] = ()) -> Record:
        """Create or replace a record. Raises StaleRecord when it is not at the version that `put` names. Emits `record.changed`, and the
        events in `told` with it."""
        ...

    async def drop_record(self, kind: str, id: str, now: Now, *, version: int | None = None, quiet: bool = False) -> bool:
        """Remove a record; False when there was none. Raises StaleRecord when it is at another version than the one given."""
        ...

    async def tell(self, events: Sequence[Event], now: Now) -> None:
        """Write events that belong to no transition (what a backend or a receiver did) to the log."""
        ...

    async def add_audit(self, entries: Sequence[AuditEntry], now: Now, *, age: float, count: int) -> None:
        """Write to the audit log; of what is in it, entries older than `age` seconds go in small bites, and all but the newest `count`."""
        ...

    # upkeep ------------------------------------------------------------------------------------------------------

    async def stage(self, now: Now, *, limit: int = 500, stepped: bool = False) -> int | None:
        """Make due tasks pending, oldest due first; returns the wall time at which the next one is due.

        `stepped` says that the wall clock may have gone back: retries that now lie further ahead than their own delay are due.
        """
        ...

    async def rescue(self, now: Now, *, limit: int = 500) -> int:
        """Take back the claims of instances that died or whose lease ran out: pending again, or failed as `lost` (at_most_once, or
        lost too often). Returns how many."""
        ...

    async def expire(self, now: Now, *, limit: int = 500) -> int:
        """Fail waiting tasks whose start_deadline or deadline has passed, with code `expired`."""
        ...

    async def prune(self, keep: dict[State, Retention], now: Now, *, chunks: float, events: float, limit: int = 500) -> int:
        """Remove what retention does not keep, at most `limit` tasks a call; `chunks` and `events` are the ages (seconds) after which
        stream logs of ended tasks and events go. Returns how many tasks were removed."""
        ...

    # questions ---------------------------------------------------------------------------------------------------

    async def get(self, id: str) -> Task | None:
        """The task, or None."""
        ...

    async def find(self, asked: Search, *, after: Cursor | None = None, limit: int = 50) -> Page:
        """A page of the tasks that `inferq.query.matches` lets pass, in the order asked for. Its cost does not grow with the queue.

        Raises InvalidQuery for a cursor of another order, and for an order that no index serves.
        """
        ...

    async def result(self, id: str) -> TaskResult | None:
        """The result of a completed task, else None."""
        ...

    async def attempts(self, id: str) -> list[AttemptRecord]:
        """Ended attempts, first to last."""
        ...

    async def chunks(self, id: str, *, after: Position = Position(), limit: int = 1000) -> list[LoggedChunk]:
        """Chunks after a place, in order. The last record of an ended task is its `end`."""
        ...

    async def events(self, *, after: int = 0, limit: int = 1000) -> list[Event]:
        """Events after a position, in order."""
        ...

    async def last_event(self) -> int:
        """The position of the newest event, 0 when there was none."""
        ...

    async def record(self, kind: str, id: str) -> Record | None:
        """The record, or None."""
        ...

    async def records(self, kind: str, *, after: str = "", limit: int = 1000) -> list[Record]:
        """Records of a kind by id, those after the id `after`."""
        ...

    async def ahead(self, id: str, *, bound: int = 10_000) -> Ahead | None:
        """Who stands before a pending task, counted up to `bound`; None when it is not pending. Never counts a whole long queue."""
        ...

    async def executed(self) -> list[Executed]:
        """Every backend that has completed or is running something, by name; from maintained counters."""
        ...

    async def audit(self, *, before: int | None = None, limit: int = 100) -> list[AuditEntry]:
        """The audit log, newest first; those before the entry of that number."""
        ...

    async def waiting_deliveries(self) -> int:
        """How many messages of webhooks wait: they do not count into the bound that `add` holds."""
        ...

    async def counts(self) -> Counts:
        """From maintained counters; never counts rows."""
        ...

    # the store itself --------------------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` on the running event loop after every commit, this process's and others'; returns the way to stop."""
        ...

    def export(self, *, keys: bool = False) -> AsyncGenerator[bytes]:
        """The whole store as `inferq.archive` writes it, of one moment, some lines at a time; keys (hashed) only where asked for."""
        ...

    async def restore(self, items: Sequence[Item], now: Now, *, dry_run: bool = False) -> list[bool | str]:
        """Take lines of an archive in: for each whether it was new, or why it was refused (and then nothing of it was kept).

        What is there already stays as it is, so that the same lines may come again. Tasks get new sequence numbers in their order.
        With `dry_run` nothing is kept.
        """
        ...

    async def backup(self, path: Path) -> None:
        """Write a consistent copy to a new file while work goes on."""
        ...

    async def check(self) -> list[str]:
        """What is wrong with the store, one line each; empty when it is sound."""
        ...

    async def compact(self, *, dry_run: bool = False) -> Compacted:
        """Give space that nothing uses back to the disk. Raises Conflict where that would hold up running tasks, StoreFull."""
        ...

    async def stats(self) -> StoreStats: ...

    def spent(self) -> Mapping[str, Times]:
        """Seconds that this process's operations took, by name, since it opened the store: each verb once a commit group however many
        calls and tasks it carries, `begin` (until others let it write), `commit` and `read`. Costs a task nothing."""
        ...

    async def close(self) -> None:
        """Commit what was submitted, release the instance. Idempotent."""
        ...
