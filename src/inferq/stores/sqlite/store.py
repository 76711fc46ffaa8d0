"""The SQLite store: the Store contract on one file, shared by as many processes as like to."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from inferq.access import AuditEntry
from inferq.clock import Clock, Now, SystemClock
from inferq.errors import ClaimLost, InferqError, StoreClosed, StoreDamaged, StoreError, WrongState
from inferq.events import Event
from inferq.executor import Chunk
from inferq.policy import Want
from inferq.query import Search
from inferq.store import (
    Ahead,
    Change,
    Counts,
    Cursor,
    Executed,
    Listener,
    LoggedChunk,
    Page,
    Position,
    Record,
    RecordPut,
    Retention,
    StoreStats,
)
from inferq.stores.sqlite import arrivals, audit, changes, claims, files, finishing, limits, listing, reads, records, upkeep
from inferq.stores.sqlite.archive_store import ArchiveVerbs
from inferq.stores.sqlite.batch_store import BatchVerbs
from inferq.stores.sqlite.conditions import Flows
from inferq.stores.sqlite.instances import Instances
from inferq.stores.sqlite.statements import MIGRATIONS, SQL
from inferq.stores.sqlite.writer import Command, Delivery, Verb, Writer
from inferq.task import AttemptRecord, Claim, FlowKey, Head, NewTask, Outcome, State, Task, TaskResult
from inferq.timing import Spent, Times

T = TypeVar("T")

SWITCH_INTERVAL: Final = 0.0001
"""Seconds. With Python's default (5 ms) a writer thread starves behind a busy event loop: commits took 1,052 ms at 95 % load, 2.4 ms
with this (see benchmarks). It is set once for the process when the first store opens, and only ever lowered."""

_forks = 0


def _forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_forked)


class SQLiteStore(BatchVerbs, ArchiveVerbs):
    """Open with `inferq.stores.open_store`; belongs to the event loop that opened it."""

    def __init__(self, path: str, durability: files.Durability, *, clock: Clock, lease: float, lost_limit: int) -> None:
        """Opens the file and registers this instance (blocking, some milliseconds). `lease` in seconds."""
        self._path = path
        self._durability = durability
        self._lost_limit = lost_limit
        self._lease_ms = round(lease * 1000)
        self._loop = asyncio.get_running_loop()
        self._generation = _forks
        self._pending: list[Command] = []
        self._listeners: list[Listener] = []
        self._closing: asyncio.Future[None] | None = None
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._pool: ThreadPoolExecutor | None = None
        self._flows = Flows()
        self._asked, self._counting = Spent(), threading.Lock()
        db = files.open_file(path, durability)
        self._instances = Instances(None if path == files.MEMORY else Path(f"{path}-instances"))
        self._writer = Writer(db, path=path, clock=clock, lease_ms=self._lease_ms, instances=self._instances, deliver=self._deliver)
        if sys.getswitchinterval() > SWITCH_INTERVAL:
            sys.setswitchinterval(SWITCH_INTERVAL)
        try:
            self._writer.start()
        except BaseException:
            db.close()
            self._instances.leave()
            raise

    @property
    def instance(self) -> str:
        return self._instances.name

    # commands --------------------------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._closing is not None:
            raise StoreClosed("the store is closed; open it again to go on")
        if self._generation != _forks:
            raise StoreClosed("the store was opened before a fork; open it again in this process")
        if asyncio.get_running_loop() is not self._loop:
            raise StoreClosed("the queue was opened on another event loop; open one on this loop, or use inferq.Queue from other threads")

    def _call(self, verb: Verb | None, args: Any) -> asyncio.Future[Any]:
        self._check_usable()
        future = self._loop.create_future()
        self._pending.append(Command(verb, args, future))
        if len(self._pending) == 1:
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        """Everything that was asked in this turn of the loop goes to the writer together."""
        if self._pending:
            self._writer.submit(self._pending)
            self._pending = []

    def _deliver(self, delivery: Delivery) -> None:
        try:
            self._loop.call_soon_threadsafe(self._arrive, delivery)
        except RuntimeError:
            # The loop is closed: nobody is left to be told. What was committed stays committed.
            return

    def _arrive(self, delivery: Delivery) -> None:
        replies, news = delivery
        for future, reply in replies:
            if future.done():
                continue
            if isinstance(reply, BaseException):
                future.set_exception(reply)
            else:
                future.set_result(reply)
        for change in news:
            for listener in tuple(self._listeners):
                listener(change)

    async def add(
        self,
        tasks: Sequence[NewTask],
        now: Now,
        *,
        limit: int | None = None,
        guard: RecordPut | None = None,
        told: Sequence[Event] = (),
    ) -> list[str]:
        ids: list[str] = await self._call(arrivals.add, (tasks, now, limit, guard, told))
        return ids

    async def heads(self) -> tuple[list[Head], frozenset[str]]:
        def ask(db: sqlite3.Connection) -> tuple[list[Head], frozenset[str]]:
            rows = db.execute(SQL["waiting_flows"]).fetchall()
            heads = [
                Head(id, FlowKey(lane, priority, size, tenant), head, length) for id, lane, priority, size, tenant, head, length in rows
            ]
            if hidden := limits.full(db, limits.read(db)):
                heads = [head for head in heads if limits.shown(head, hidden) is head]
            return heads, frozenset(scope for (scope,) in db.execute("SELECT scope FROM pause"))

        # Asked of the writer, so that no change can slip between this answer and the first `Change`.
        found: tuple[list[Head], frozenset[str]] = await self._call(None, ask)
        return found

    async def paused(self) -> frozenset[str]:
        return await self._ask(reads.paused)

    async def claim(self, wants: Sequence[Want], now: Now) -> list[list[Claim]]:
        claimed: list[list[Claim]] = await self._call(claims.claim, (wants, now))
        return claimed

    async def append(self, items: Sequence[tuple[Claim, Sequence[Chunk]]], now: Now) -> list[ClaimLost | None]:
        errors: list[ClaimLost | None] = await self._call(claims.append, (items, now))
        return errors

    async def finish(self, items: Sequence[tuple[Claim, Outcome]], now: Now) -> list[ClaimLost | None]:
        errors: list[ClaimLost | None] = await self._call(finishing.finish, (items, now))
        return errors

    async def renew(self, now: Now) -> None:
        await self._call(upkeep.renew, (now, self._lease_ms))

    async def cancel(self, ids: Sequence[str], now: Now, *, reason: str = "") -> list[WrongState | None]:
        errors: list[WrongState | None] = await self._call(changes.cancel, (ids, now, reason))
        return errors

    async def reprioritize(self, ids: Sequence[str], priority: int, now: Now) -> list[WrongState | None]:
        errors: list[WrongState | None] = await self._call(changes.reprioritize, (ids, priority, now))
        return errors

    async def retry(self, ids: Sequence[str], now: Now, *, priority: int | None = None, due: bool = False) -> list[WrongState | None]:
        errors: list[WrongState | None] = await self._call(changes.retry, (ids, now, priority, due))
        return errors

    async def delete(self, ids: Sequence[str], now: Now) -> list[WrongState | None]:
        errors: list[WrongState | None] = await self._call(changes.delete, (ids, now))
        return errors

    async def pause(self, scope: str, now: Now) -> None:
        await self._call(changes.pause, (scope, now))

    async def resume(self, scope: str, now: Now) -> None:
        await self._call(changes.resume, (scope, now))

    async def put_record(self, put: RecordPut, now: Now, *, told: Sequence[Event] = ()) -> Record:
        record: Record = await self._call(records.put, (put, now, told))
        return record

    async def drop_record(self, kind: str, id: str, now: Now, *, version: int | None = None, quiet: bool = False) -> bool:
        dropped: bool = await self._call(records.drop, (kind, id, now, version, quiet))
        return dropped

    async def add_audit(self, entries: Sequence[AuditEntry], now: Now, *, age: float, count: int) -> None:
        await self._call(audit.add, (entries, now, age, count))

    async def tell(self, events: Sequence[Event], now: Now) -> None:
        await self._call(records.tell, (events, now))

    async def stage(self, now: Now, *, limit: int = 500, stepped: bool = False) -> int | None:
        due: int | None = await self._call(upkeep.stage, (now, limit, stepped))
        return due

    async def rescue(self, now: Now, *, limit: int = 500) -> int:
        taken: int = await self._call(upkeep.rescue, (now, limit, self._lost_limit, self._instances.judge))
        return taken

    async def expire(self, now: Now, *, limit: int = 500) -> int:
        ended: int = await self._call(upkeep.expire, (now, limit))
        return ended

    async def prune(self, keep: dict[State, Retention], now: Now, *, chunks: float, events: float, limit: int = 500) -> int:
        removed: int = await self._call(upkeep.prune, (keep, now, chunks, events, limit))
        return removed

    # questions -------------------------------------------------------------------------------------------------------

    def spent(self) -> Mapping[str, Times]:
        return {**self._writer.spent.all(), **self._asked.all()}

    async def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        if self._path == files.MEMORY:
            answer: T = await self._call(None, question)
            return answer
        self._check_usable()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(2, thread_name_prefix="inferq-reader")
        return await self._loop.run_in_executor(self._pool, self._read, question)

    def _read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        since = time.perf_counter()
        try:
            db: sqlite3.Connection | None = getattr(self._local, "db", None)
            if db is None:
                db = self._local.db = files.open_reader(self._path)
                self._readers.append(db)
            return question(db)
        except sqlite3.Error as error:
            raise files.named(error, self._path) from error
        except msgspec.DecodeError as error:
            raise StoreDamaged(f"what {self._path} holds cannot be read ({error}); see `inferq db check`, or restore a backup") from error
        except UnicodeEncodeError as error:
            raise StoreError(f"expected text that UTF-8 can hold, got {error.object!r}") from None
        finally:
            took = time.perf_counter() - since
            with self._counting:
                self._asked.add("read", took)

    async def get(self, id: str) -> Task | None:
        return await self._ask(partial(reads.get, id=id))

    async def find(self, asked: Search, *, after: Cursor | None = None, limit: int = 50) -> Page:
        return await self._ask(partial(listing.find, flows=self._flows, asked=asked, after=after, limit=limit))

    async def result(self, id: str) -> TaskResult | None:
        return await self._ask(partial(reads.result, id=id))

    async def attempts(self, id: str) -> list[AttemptRecord]:
        return await self._ask(partial(reads.attempts, id=id))

    async def chunks(self, id: str, *, after: Position = Position(), limit: int = 1000) -> list[LoggedChunk]:
        return await self._ask(partial(reads.chunks, id=id, after=after, limit=limit))

    async def events(self, *, after: int = 0, limit: int = 1000) -> list[Event]:
        return await self._ask(partial(reads.events, after=after, limit=limit))

    async def last_event(self) -> int:
        return await self._ask(reads.last_event)

    async def record(self, kind: str, id: str) -> Record | None:
        return await self._ask(partial(reads.record, kind=kind, id=id))

    async def records(self, kind: str, *, after: str = "", limit: int = 1000) -> list[Record]:
        return await self._ask(partial(reads.records, kind=kind, after=after, limit=limit))

    async def ahead(self, id: str, *, bound: int = 10_000) -> Ahead | None:
        return await self._ask(partial(reads.ahead, id=id, bound=bound))

    async def executed(self) -> list[Executed]:
        return await self._ask(reads.executed)

    async def audit(self, *, before: int | None = None, limit: int = 100) -> list[AuditEntry]:
        return await self._ask(partial(audit.read, before=before, limit=limit))

    async def waiting_deliveries(self) -> int:
        return await self._ask(reads.waiting_deliveries)

    async def counts(self) -> Counts:
        return await self._ask(reads.counts)

    # the store itself ------------------------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    async def backup(self, path: Path) -> None:
        await self._ask(partial(files.copy_to, path=path))

    async def check(self) -> list[str]:
        return await self._ask(files.problems)

    async def stats(self) -> StoreStats:
        def ask(db: sqlite3.Connection) -> StoreStats:
            pages, size = db.execute("PRAGMA page_count").fetchone()[0], db.execute("PRAGMA page_size").fetchone()[0]
            wal = Path(f"{self._path}-wal")
            disk = None if self._path == files.MEMORY else shutil.disk_usage(Path(self._path).parent)
            names = tuple(name for (name,) in db.execute("SELECT name FROM instance ORDER BY number"))
            return StoreStats(
                url=f"sqlite://{self._path}" if self._path == files.MEMORY else f"sqlite:///{self._path}",
                durability=self._durability,
                schema=len(MIGRATIONS),
                file_bytes=pages * size,
                wal_bytes=wal.stat().st_size if wal.exists() else 0,
                tasks=reads.counts(db).total,
                last_event=db.execute("SELECT value FROM meta WHERE name = 'position'").fetchone()[0],
                instances=len(names),
                names=names,
                disk_bytes=disk.total if disk else 0,
                disk_free_bytes=disk.free if disk else 0,
            )

        return await self._ask(ask)

    async def close(self) -> None:
        if self._closing is not None:
            await asyncio.shield(self._closing)
            return
        self._flush()
        self._closing = asyncio.ensure_future(asyncio.to_thread(self._shut))
        await asyncio.shield(self._closing)

    def _shut(self) -> None:
        self._writer.stop()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        for reader in self._readers:
            reader.close()


def open_sqlite(
    url: str, *, durability: files.Durability = "full", clock: Clock | None = None, lease: float = 30.0, lost_limit: int = 3
) -> SQLiteStore:
    if durability not in ("full", "normal"):
        raise InferqError(f"expected durability full or normal, got {durability!r}")
    return SQLiteStore(files.path_of(url), durability, clock=clock or SystemClock(), lease=lease, lost_limit=lost_limit)


__all__ = ["Change", "SQLiteStore", "open_sqlite"]
