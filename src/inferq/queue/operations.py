"""Bulk operations of the queue in this process: records of its store, carried out bite by bite in the background."""

from __future__ import annotations

import asyncio
import builtins
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, Protocol

from msgspec.structs import replace

from inferq.access import Principal, may_make_again
from inferq.clock import Clock
from inferq.door.operations import OperationsDoor
from inferq.errors import Conflict, InferqError, RecordNotFound, StaleRecord, StoreError, TaskNotFound, WaitTimeout, WrongState
from inferq.events import Event, RecordChanged
from inferq.given import checked_priority, checked_seconds, is_text
from inferq.operation import (
    BITE,
    COUNTED,
    EXAMPLES,
    GROWTH,
    KIND,
    Failure,
    Kept,
    Operation,
    Verb,
    asked_of,
    check_arguments,
    counted,
    decoded,
    encoded,
    example_of,
    is_changed,
    question,
)
from inferq.query import Search, search
from inferq.store import Cursor, RecordPut, Store
from inferq.task import Task, new_id

log: Final = logging.getLogger("inferq.operations")

_PAGES: Final = 100
"""Pages that a count looks at before it says that there may be more."""
_LOOK: Final = 15.0
"""Seconds between looks for operations whose process died; a change of a record is heard at once."""
_SILENT: Final = 60_000
"""Milliseconds without progress after which an operation is taken from an instance that still counts as alive."""
_KEEP: Final = 200
"""Operations that are over and kept to be looked at."""
_TRIES: Final = 50


class Home(Protocol):
    """What the operations need of their queue."""

    @property
    def store(self) -> Store: ...
    def keep(self, task: asyncio.Task[None]) -> None: ...
    def subscribe(self, callback: Callable[[Event], None], *types: str) -> Callable[[], None]: ...


class Operations(OperationsDoor):
    """Each is one record under its id; every bite names the version it was taken from, so that two processes never work on one."""

    def __init__(self, home: Home, clock: Clock) -> None:
        self._home = home
        self._clock = clock
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tending = False

    # the door --------------------------------------------------------------------------------------------------------

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
        who: str = "",
        tenant: str | None = None,
        by: Principal | None = None,
    ) -> Operation:
        """`who` asked for it, `tenant` bounds it, and a retry makes only what `by` could submit itself: a server says all three."""
        by = by if verb == "retry" else None
        level = None if priority is None else checked_priority(priority)
        asked = asked_of(verb, q, tenant=tenant)
        check_arguments(verb, level)
        now = self._clock.read().wall
        if bound is None:
            newest = (await self._home.store.find(Search(), limit=1)).tasks
            bound = newest[0].seq if newest else 0
        count, more, examples = await self._count(search(asked, now), bound, by)
        made = Operation(
            id="",
            verb=verb,
            q=q,
            state="preview",
            priority=level,
            reason=reason,
            expected=count,
            more=more,
            examples=tuple(example_of(task) for task in examples),
            bound=bound,
            who=who,
            tenant=tenant,
            created=now,
            updated=now,
        )
        if dry_run:
            return made
        if expected is not None and count > expected * GROWTH:
            raise Conflict(f"expected about {expected:,} tasks to pass the filter, but by now {count:,} do; look again before you go on")
        made = replace(made, id=new_id(), state="running", examples=())
        kept = Kept(made, bound + 1, owner=self._home.store.instance, by=by)
        version = await self._put(kept, 0)
        self._run(kept, version)
        await self._forget_old()
        return made

    async def get(self, id: str) -> Operation:
        return (await self._kept(id))[0].operation

    async def list(self, *, limit: int = 50) -> builtins.list[Operation]:
        found = [kept.operation for kept, _ in await self._all()]
        return found[::-1][:limit]

    async def stop(self, id: str) -> Operation:
        for _ in range(_TRIES):
            kept, version = await self._kept(id)
            if kept.operation.is_over:
                return kept.operation
            operation = kept.operation
            if kept.owner not in (await self._home.store.stats()).names:
                # Nobody is left to count the bite that was under way.
                operation = await self._as_left(kept)
            now = self._clock.read().wall
            stopped = replace(operation, state="stopped", updated=now, finished=now)
            try:
                await self._put(replace(kept, operation=stopped), version)
            except StaleRecord:
                continue
            return await self._settled(id)
        raise Conflict(f"expected to stop operation {id}, but it changes all the time; try again")

    async def _as_left(self, kept: Kept) -> Operation:
        changed = [is_changed(kept.operation, await self._home.store.get(id)) for id in kept.taken]
        return counted(kept.operation, [], sum(changed), kept.operation.updated)

    async def wait(self, id: str, timeout: float | str | timedelta | None = None) -> Operation:
        limit = checked_seconds(timeout, "timeout")
        changed = asyncio.Event()

        def hear(event: Event) -> None:
            if isinstance(event, RecordChanged) and event.kind == KIND and event.id == id:
                changed.set()

        unsubscribe = self._home.subscribe(hear, "record.changed")
        try:
            async with asyncio.timeout(limit):
                while not (await self.get(id)).is_over:
                    await changed.wait()
                    changed.clear()
                return await self._settled(id)
        except TimeoutError:
            raise WaitTimeout(f"operation {id} is not over within {limit:g} s; it goes on, ask again later") from None
        finally:
            unsubscribe()

    async def _settled(self, id: str) -> Operation:
        """What it came to when this process, if it worked on it, has counted its last bite."""
        if (task := self._running.get(id)) is not None:
            await asyncio.wait([task])
        return await self.get(id)

    # counting --------------------------------------------------------------------------------------------------------

    async def _count(self, asked: Search, bound: int, by: Principal | None) -> tuple[int, bool, Sequence[Task]]:
        count = 0
        examples: builtins.list[Task] = []
        after: Cursor | None = bound + 1
        for _ in range(_PAGES):
            page = await self._home.store.find(asked, after=after, limit=1000)
            tasks = _covered(by, page.tasks)
            count += len(tasks)
            examples += tasks[: EXAMPLES - len(examples)]
            after = page.after
            if after is None:
                return count, False, examples
            if count >= COUNTED:
                break
        return count, True, examples

    # carrying out ----------------------------------------------------------------------------------------------------

    def _run(self, kept: Kept, version: int) -> None:
        id = kept.operation.id
        task = self._running[id] = asyncio.create_task(self._work(kept, version), name=f"inferq operation {id}")
        self._home.keep(task)

    async def _work(self, kept: Kept, version: int) -> None:
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
            return kept, await self._put(kept, version)
        except StaleRecord:
            return await self._overtaken(kept)

    async def _next(self, operation: Operation, after: int, by: Principal | None) -> tuple[tuple[str, ...], int]:
        """The next tasks that pass, and where to go on after them; 0 at the end."""
        for _ in range(_PAGES):
            page = await self._home.store.find(question(operation), after=after, limit=BITE)
            after = page.after if isinstance(page.after, int) else 0
            tasks = _covered(by, page.tasks)
            if tasks or not after:
                return tuple(task.id for task in tasks), after
        return (), after

    async def _overtaken(self, mine: Kept) -> tuple[Kept, int]:
        """Somebody else changed the record: it was stopped, or another process took it over, who counts for itself."""
        for _ in range(_TRIES):
            kept, version = await self._kept(mine.operation.id)
            over = kept.operation.is_over and kept.owner == self._home.store.instance
            if not over:
                return _left(kept), version
            # Stopped: the bite that was under way is counted, the next one is not begun.
            final = mine.operation
            if not final.is_over:
                final = replace(final, state=kept.operation.state, finished=kept.operation.finished)
            last = Kept(final, 0, (), "")
            try:
                return last, await self._put(last, version)
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
        waiting = [(kept, version) for kept, version in await self._all() if not kept.operation.is_over]
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
                version = await self._put(mine, version)
            except StaleRecord:
                continue
            log.info("operation.taken_over", extra={"operation": kept.operation.id})
            self._run(mine, version)
            taken += 1
        return taken

    async def _fail(self, id: str, error: Exception) -> None:
        try:
            kept, version = await self._kept(id)
            if not kept.operation.is_over and kept.owner == self._home.store.instance:
                now = self._clock.read().wall
                failed = replace(kept.operation, state="failed", error=str(error), updated=now, finished=now)
                await self._put(replace(kept, operation=failed, taken=()), version)
        except InferqError as also:
            log.warning("operation.not_marked_failed", extra={"operation": id, "error": str(also)})

    async def _release(self, id: str) -> None:
        """Say that nobody works on it, so that others need not wait until this instance counts as dead."""
        for _ in range(_TRIES):
            try:
                kept, version = await self._kept(id)
                if not kept.operation.is_over and kept.owner == self._home.store.instance:
                    await self._put(replace(kept, owner=""), version)
            except StaleRecord:
                # The bite that was cancelled had been given to the store already.
                continue
            except InferqError as error:
                log.warning("operation.not_released", extra={"operation": id, "error": str(error)})
            return

    # records ---------------------------------------------------------------------------------------------------------

    async def _put(self, kept: Kept, version: int) -> int:
        put = RecordPut(KIND, kept.operation.id, encoded(kept), version)
        return (await self._home.store.put_record(put, self._clock.read())).version

    async def _kept(self, id: str) -> tuple[Kept, int]:
        record = await self._home.store.record(KIND, id) if is_text(id) else None
        if record is None:
            raise RecordNotFound(f"expected the id of an operation, got {id!r}: there is none")
        return decoded(record.body), record.version

    async def _all(self) -> builtins.list[tuple[Kept, int]]:
        """Oldest first: ids rise with time."""
        return [(decoded(record.body), record.version) for record in await self._home.store.records(KIND)]

    async def _forget_old(self) -> None:
        over = [kept.operation.id for kept, _ in await self._all() if kept.operation.is_over]
        for id in over[:-_KEEP]:
            await self._home.store.drop_record(KIND, id, self._clock.read())


def _covered(by: Principal | None, tasks: Sequence[Task]) -> Sequence[Task]:
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
