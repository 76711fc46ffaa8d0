"""What a store must do: the contract that queue and engine are written against, and that any store can prove with `inferq.testing`.

Every method is a transition or a question of the domain. Time is an argument (`Now`). A method that writes has committed, at the
store's durability, when it returns. Whoever holds a `Claim` and lost it is refused with `ClaimLost` and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from inferq.batch.keeping import BatchFilter as BatchFilter
from inferq.batch.keeping import BatchStore
from inferq.clock import Now
from inferq.errors import ClaimLost, InvalidQuery, InvalidTask, WrongState
from inferq.events import Event
from inferq.executor import Chunk
from inferq.query import LARGEST_LIMIT, At, Compare, Query, Search, Term, Text, parse, search
from inferq.task import AttemptRecord, Claim, Head, NewTask, Outcome, Size, State, Task, TaskResult

if TYPE_CHECKING:
    from inferq.access import AuditEntry
    from inferq.policy import Want


class Filter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which tasks, for programs that have the values in hand; empty means any. People write the same as text (`inferq.query`).

    Instants are Unix milliseconds: `since` is included, `until` is not. `prefix` is the beginning of an id.
    """

    states: tuple[State, ...] = ()
    actions: tuple[str, ...] = ()
    executors: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    priorities: tuple[int, ...] = ()
    sizes: tuple[Size, ...] = ()
    tenants: tuple[str, ...] = ()
    tag: str | None = None
    schedule: str | None = None
    since: int | None = None
    until: int | None = None
    prefix: str | None = None

    def query(self) -> Query:
        """The same in the filter language."""
        lists: dict[str, tuple[object, ...]] = {
            "state": self.states,
            "action": self.actions,
            "executor": self.executors,
            "model": self.models,
            "size": self.sizes,
            "tenant": self.tenants,
            "tag": () if self.tag is None else (self.tag,),
            "schedule": () if self.schedule is None else (self.schedule,),
        }
        terms = [Term(name, tuple(Text(str(value)) for value in values)) for name, values in lists.items() if values]
        if self.priorities:
            terms.append(Term("priority", tuple(Compare("=", number) for number in self.priorities)))
        if self.since is not None:
            terms.append(Term("created", (Compare(">=", At(self.since)),)))
        if self.until is not None:
            terms.append(Term("created", (Compare("<", At(self.until)),)))
        if self.prefix is not None:
            terms.append(Term("id", (Text(self.prefix, prefix=True),)))
        return Query(tuple(terms))

    def search(self) -> Search:
        """What a store is asked; a Filter knows no relative times, so no moment is needed."""
        return search(self.query(), 0)


Where = Filter | Query | str | None
"""How callers say which tasks: a Filter, a text of the filter language, what was parsed from one, or None for all."""


def query_of(where: Where) -> Query:
    """What was said, parsed. Raises InvalidQuery."""
    if isinstance(where, Query):
        return where
    if isinstance(where, str):
        return parse(where)
    if isinstance(where, Filter):
        return where.query()
    if where is None:
        return Query()
    raise InvalidQuery(f"expected a Filter or a text of the filter language, got {type(where).__name__}")


def page_size(limit: int | None, query: Query) -> int:
    """How many tasks a page has: the limit that was given, else the filter's own, else 50. Raises InvalidTask."""
    wanted = limit if limit is not None else query.limit or 50
    if type(wanted) is not int or not 1 <= wanted <= LARGEST_LIMIT:
        raise InvalidTask(f"expected a number from 1 to {LARGEST_LIMIT}, got {wanted!r}", field="limit")
    return wanted


def checked_cursor(after: Cursor | None) -> Cursor | None:
    """The `after` of a page as it was. Raises InvalidTask for what no page gave."""
    if after is None or type(after) is int or (type(after) is str and _CURSOR.fullmatch(after)):
        return after
    raise InvalidTask(f"expected the `after` of a page, got {after!r}", field="after")


_CURSOR: Final = re.compile(r"-?[0-9]{1,19}(?:\.-?[0-9]{1,19})?")
Cursor = int | str
"""Where a listing goes on: the sequence number of the last task in the order of arrival, a text in other orders. Pass it back as it is."""


class Page(msgspec.Struct, frozen=True):
    """Tasks in the order asked for (newest first); `after` continues the listing, None at its end.

    A page may be shorter than its limit, even empty, and still be followed by others: a store looks at a bounded number of candidates
    at a time, so that a rare match in a long queue holds nobody up.
    """

    tasks: list[Task]
    after: Cursor | None


class Counts(msgspec.Struct, frozen=True):
    """How many tasks are in each state and, of the pending ones, at each priority and in each lane."""

    states: dict[str, int]
    pending_by_priority: dict[int, int]
    pending_by_lane: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.states.values())


class Executed(msgspec.Struct, frozen=True):
    """What a backend has done and does: tasks `completed` since the store was made, attempts `running` now, in all processes."""

    backend: str
    remote: bool
    completed: int
    running: int


class Ahead(msgspec.Struct, frozen=True):
    """Who stands before a waiting task, by strict priority and then by sequence number.

    `flow` counts its own flow, `lanes` each lane of the store with somebody before it. Counting stops at a bound: `more` says so.
    """

    flow: int
    lanes: dict[str, int]
    more: bool = False


class Position(msgspec.Struct, frozen=True, order=True, gc=False):
    """A place in a task's chunk log: attempt number and index in it. (0, 0) is before everything."""

    attempt: int = 0
    index: int = 0


class LoggedChunk(msgspec.Struct, frozen=True):
    """A chunk and where it stands; resume after `position`."""

    position: Position
    chunk: Chunk


class Retention(msgspec.Struct, frozen=True):
    """What may stay, for one final state: seconds since the end, number of tasks, bytes of payload and result; None is unbounded."""

    age: float | None = 7 * 86_400.0
    count: int | None = None
    bytes: int | None = None


class Grown(msgspec.Struct, frozen=True, gc=False):
    """A task's chunk log grew: `chunks` are the indexes `first` and on of an attempt. None: look at the log (it ended, or another
    process wrote; an empty `task_id` then stands for any task)."""

    task_id: str
    attempt: int = 0
    first: int = 0
    chunks: Sequence[Chunk] | None = None


class Change(msgspec.Struct):
    """What a commit changed, told to listeners on their event loop after it is durable. `own` is False for another process's."""

    heads: Sequence[Head] = ()
    events: Sequence[Event] = ()
    streams: Sequence[Grown] = ()
    paused: frozenset[str] | None = None
    """All paused scopes, when that set changed."""
    lost: bool = False
    """This instance's lease ran out and others took its claims: every claim it holds is void."""
    own: bool = True


Listener = Callable[[Change], None]


class Record(msgspec.Struct, frozen=True):
    """A small object that changes rarely (a schedule, a key, a webhook...): JSON in `body`, `version` 1 when new, one more each change."""

    kind: str
    id: str
    version: int
    body: bytes
    created: int
    updated: int


class RecordPut(msgspec.Struct, frozen=True):
    """A record to be put. `version` None: create or replace; 0: it must be new; else it must be at that version now. `quiet` puts it
    without an event: for what is looked at when somebody asks, and would fill the log."""

    kind: str
    id: str
    body: bytes
    version: int | None = None
    quiet: bool = False


class StoreStats(msgspec.Struct, frozen=True):
    """For operators. Bytes and counts."""

    url: str
    durability: str
    schema: int
    file_bytes: int
    wal_bytes: int
    tasks: int
    last_event: int
    """Position of the newest event."""
    instances: int
    names: tuple[str, ...] = ()
    """Names of the instances."""


class Store(BatchStore, Protocol):
    """Where truth is kept. One object per process and event loop; open it with `stores.open_store`."""

    @property
    def instance(self) -> str:
        """This process's name among the store's users: new at each opening."""
        ...

    # a task's way ------------------------------------------------------------------------------------------------

    async def add(self, tasks: Sequence[NewTask], now: Now, *, limit: int | None = None, guard: RecordPut | None = None) -> list[str]:
        """Keep all of them or none; returns their ids in order. With a `guard` that record is put in the same transaction, or neither
        (StaleRecord): what makes tasks from a record makes them once over all processes.

        A task whose key is known with the same digest is not added again: the first one's id is returned. Raises DuplicateKey
        (other digest) and QueueFull (more than `limit` would be waiting). Keys are told apart by tenant.
        """
        ...

    async def heads(self) -> tuple[list[Head], frozenset[str]]:
        """Every non-empty flow's head, and the paused scopes. `Change` keeps both up to date afterwards."""
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

    async def retry(self, ids: Sequence[str], now: Now) -> list[WrongState | None]:
        """Make failed or cancelled tasks pending again, with their sequence numbers, a fresh retry budget and without their deadlines.
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

    async def put_record(self, put: RecordPut, now: Now) -> Record:
        """Create or replace a record. Raises StaleRecord when it is not at the version that `put` names. Emits `record.changed`."""
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

    async def counts(self) -> Counts:
        """From maintained counters; never counts rows."""
        ...

    # the store itself --------------------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` on the running event loop after every commit, this process's and others'; returns the way to stop."""
        ...

    async def backup(self, path: Path) -> None:
        """Write a consistent copy to a new file while work goes on."""
        ...

    async def check(self) -> list[str]:
        """What is wrong with the store, one line each; empty when it is sound."""
        ...

    async def stats(self) -> StoreStats: ...

    async def close(self) -> None:
        """Commit what was submitted, release the instance. Idempotent."""
        ...
