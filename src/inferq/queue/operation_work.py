"""Carrying out bulk operations bite by bite in the background, and taking over those whose process is gone."""

from __future__ import annotations

import asyncio
import builtins
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from msgspec.structs import replace

from inferq.access import Principal, may_make_again
from inferq.clock import Clock
from inferq.errors import InferqError, RecordNotFound, StaleRecord, StoreError, TaskNotFound, WrongState
from inferq.events import Event, RecordChanged
from inferq.given import is_text
from inferq.operation import (
    BITE,
    KIND,
    Failure,
    Kept,
    Operation,
    counted,
    decoded,
    encoded,
    is_changed,
    question,
)
from inferq.store import RecordPut, Store
from inferq.task import Task

log: Final = logging.getLogger("inferq.operations")

_LOOK: Final = 15.0
"""Seconds between looks for operations whose process died; a change of a record is heard at once."""
_SILENT: Final = 60_000
"""Milliseconds without progress after which an operation is taken from an instance that still counts as alive."""
TRIES: Final = 50
"""Goes at a record that others change too."""
PAGES: Final = 100
"""Pages that are looked at in one go: a filter may pass few tasks."""


class Home(Protocol):
    """What the operations need of their queue."""

    @property
    def store(self) -> Store: ...
    def keep(self, task: asyncio.Task[None]) -> None: ...
    def subscribe(self, callback: Callable[[Event], None], *types: str) -> Callable[[], None]: ...


class Work:
    """Works on operations as their records say; every bite names the version it was taken from, so that two processes never work on one."""

    def __init__(self, home: Home, clock: Clock) -> None:
        self._home = home
        self._clock = clock
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tending = False

    def run(self, kept: Kept, version: int) -> None:
        """Begin to work on it in the background, from the record's version that was read or put last."""
        id = kept.operation.id
        task = self._running[id] = asyncio.create_task(self._go_through(kept, version), name=f"inferq operation {id}")
        self._home.keep(task)

    async def _go_through(self, kept: Kept, version: int) -> None:
        id = kept.operation.id
        try:
            # Whoever had it before may have begun this bite: what is changed already counts as changed.
            again = bool(kept.taken)
            while not kept.operation.is_over:
                kept, version = await self._bite(kept, version, again=again)
                again = False
        except asyncio.CancelledError:
            await self._release(id)
            raise
        except Exception as error:
            # Whatever it is, the operation must say that it did not end well.
            log.exception("operation.failed", extra={"operation": id})
            await self._fail(id, error)
        finally:
            self._running.pop(id, None)

    async def _bite(self, kept: Kept, version: int, *, again: bool) -> tuple[Kept, int]:
        """Change the tasks that were taken, count them, and take the next ones: one write of the record a bite."""
        operation, now = kept.operation, self._clock.read()
        if kept.taken:
            failures = await self._change(operation, kept.taken, again=again)
            operation = counted(operation, failures, len(kept.taken), now.wall)
        if kept.after == 0 and kept.taken:
            operation = replace(operation, state="done", finished=now.wall, updated=now.wall)
            kept = replace(kept, operation=operation, taken=())
        else:
            ids, after = await self._next(operation, kept.after, kept.by)
            operation = replace(operation, updated=now.wall)
            if not ids and not after:
                operation = replace(operation, state="done", finished=now.wall)
            kept = replace(kept, operation=operation, taken=ids, after=after)
        try:
            return kept, await self.put(kept, version)
        except StaleRecord:
            return await self._overtaken(kept)

    async def _next(self, operation: Operation, after: int, by: Principal | None) -> tuple[tuple[str, ...], int]:
        """The next tasks that pass, and where to go on after them; 0 at the end."""
        for _ in range(PAGES):
            page = await self._home.store.find(question(operation), after=after, limit=BITE)
            after = page.after if isinstance(page.after, int) else 0
            tasks = covered(by, page.tasks)
            if tasks or not after:
                return tuple(task.id for task in tasks), after
        return (), after

    async def _overtaken(self, mine: Kept) -> tuple[Kept, int]:
        """Somebody else changed the record: it was stopped, or another process took it over, who counts for itself."""
        for _ in range(TRIES):
            kept, version = await self.kept(mine.operation.id)
            over = kept.operation.is_over and kept.owner == self._home.store.instance
            if not over:
                return _left(kept), version
            # Stopped: the bite that was under way is counted, the next one is not begun.
            final = mine.operation
            if not final.is_over:
                final = replace(final, state=kept.operation.state, finished=kept.operation.finished)
            last = Kept(final, 0, (), "")
            try:
                return last, await self.put(last, version)
            except StaleRecord:
                continue
        return _left(mine), 0

    async def _change(self, operation: Operation, ids: Sequence[str], *, again: bool) -> builtins.list[Failure]:
        change = self._verb(operation)
        try:
            errors: builtins.list[InferqError | None] = [*await change(ids)]
        except TaskNotFound:
            # One of them is gone: nothing was changed, so each is asked for itself.
            errors = [await _alone(change, id) for id in ids]
        failures = []
        for id, error in zip(ids, errors, strict=True):
            if error is None or (again and is_changed(operation, await self._home.store.get(id))):
                continue
            failures.append(Failure(id, error.code, str(error)))
        return failures

    def _verb(self, operation: Operation) -> Callable[[Sequence[str]], Awaitable[Sequence[WrongState | None]]]:
        store, now = self._home.store, self._clock.read()
        if operation.verb == "cancel":
            return lambda ids: store.cancel(ids, now, reason=operation.reason)
        if operation.verb == "retry":
            return lambda ids: store.retry(ids, now)
        if operation.verb == "priority":
            return lambda ids: store.reprioritize(ids, operation.priority or 0, now)
        return lambda ids: store.delete(ids, now)

    async def _fail(self, id: str, error: Exception) -> None:
        try:
            kept, version = await self.kept(id)
            if not kept.operation.is_over and kept.owner == self._home.store.instance:
                now = self._clock.read().wall
                failed = replace(kept.operation, state="failed", error=str(error), updated=now, finished=now)
                await self.put(replace(kept, operation=failed, taken=()), version)
        except InferqError as also:
            log.warning("operation.not_marked_failed", extra={"operation": id, "error": str(also)})

    async def _release(self, id: str) -> None:
        """Say that nobody works on it, so that others need not wait until this instance counts as dead."""
        for _ in range(TRIES):
            try:
                kept, version = await self.kept(id)
                if not kept.operation.is_over and kept.owner == self._home.store.instance:
                    await self.put(replace(kept, owner=""), version)
            except StaleRecord:
                # The bite that was cancelled had been given to the store already.
                continue
            except InferqError as error:
                log.warning("operation.not_released", extra={"operation": id, "error": str(error)})
            return

    # taking over -----------------------------------------------------------------------------------------------------

    def tend(self) -> None:
        """From now on take over operations whose process is gone. Idempotent; for processes that stay."""
        if not self._tending:
            self._tending = True
            self._home.keep(asyncio.create_task(self._tend(), name="inferq operations"))

    async def _tend(self) -> None:
        changed = asyncio.Event()

        def hear(event: Event) -> None:
            if isinstance(event, RecordChanged) and event.kind == KIND and event.id not in self._running:
                changed.set()

        unsubscribe = self._home.subscribe(hear, "record.changed")
        try:
            while True:
                changed.clear()
                try:
                    await self.adopt()
                except StoreError as error:
                    log.warning("operation.not_looked_after", extra={"error": str(error)})
                try:
                    async with asyncio.timeout(_LOOK):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            unsubscribe()

    async def adopt(self) -> int:
        """Go on with operations that nobody works on any more; returns how many."""
        waiting = [(kept, version) for kept, version in await self.all() if not kept.operation.is_over]
        if not waiting:
            return 0
        alive = set((await self._home.store.stats()).names)
        now = self._clock.read().wall
        taken = 0
        for kept, version in waiting:
            quiet = now - kept.operation.updated > _SILENT
            if kept.operation.id in self._running or (kept.owner in alive and not quiet):
                continue
            mine = replace(kept, owner=self._home.store.instance, operation=replace(kept.operation, updated=now))
            try:
                version = await self.put(mine, version)
            except StaleRecord:
                continue
            log.info("operation.taken_over", extra={"operation": kept.operation.id})
            self.run(mine, version)
            taken += 1
        return taken

    async def settled(self, id: str) -> None:
        """Return when this process, if it works on it, has counted its last bite."""
        if (task := self._running.get(id)) is not None:
            await asyncio.wait([task])

    # records ---------------------------------------------------------------------------------------------------------

    async def put(self, kept: Kept, version: int) -> int:
        """Its record's new version. Raises StaleRecord when it is not at that version any more; 0: it must be new."""
        put = RecordPut(KIND, kept.operation.id, encoded(kept), version)
        return (await self._home.store.put_record(put, self._clock.read())).version

    async def kept(self, id: str) -> tuple[Kept, int]:
        """The record and its version. Raises RecordNotFound."""
        record = await self._home.store.record(KIND, id) if is_text(id) else None
        if record is None:
            raise RecordNotFound(f"expected the id of an operation, got {id!r}: there is none")
        return decoded(record.body), record.version

    async def all(self) -> builtins.list[tuple[Kept, int]]:
        """Oldest first: ids rise with time."""
        return [(decoded(record.body), record.version) for record in await self._home.store.records(KIND)]


def covered(by: Principal | None, tasks: Sequence[Task]) -> Sequence[Task]:
    """Those that whoever asked could submit: a model may stand where no filter looks."""
    return tasks if by is None else [task for task in tasks if may_make_again(by, task)]


def _left(kept: Kept) -> Kept:
    """The same, as something that this process has no more to do with."""
    return kept if kept.operation.is_over else replace(kept, operation=replace(kept.operation, state="stopped"))


async def _alone(change: Callable[[Sequence[str]], Awaitable[Sequence[WrongState | None]]], id: str) -> InferqError | None:
    try:
        (error,) = await change([id])
    except TaskNotFound as gone:
        return gone
    return error
