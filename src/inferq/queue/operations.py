"""Bulk operations of the queue in this process: counted and shown before they begin, records of its store from then on."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from msgspec.structs import replace

from inferq.access import Principal
from inferq.clock import Clock
from inferq.door.operations import OperationsDoor
from inferq.errors import Conflict, StaleRecord, WaitTimeout
from inferq.events import Event, RecordChanged
from inferq.given import checked_priority, checked_seconds
from inferq.operation import (
    COUNTED,
    EXAMPLES,
    GROWTH,
    KIND,
    Kept,
    Operation,
    Verb,
    asked_of,
    check_arguments,
    counted,
    example_of,
    is_changed,
)
from inferq.query import Search, search
from inferq.queue.operation_work import PAGES, TRIES, Home, Work, covered
from inferq.store import Cursor
from inferq.task import Task, new_id

_KEEP: Final = 200
"""Operations that are over and kept to be looked at."""


class LocalOperations(OperationsDoor):
    """Each is one record under its id, which outlives who asked for it; `operation_work.py` carries it out."""

    def __init__(self, home: Home, clock: Clock) -> None:
        self._home = home
        self._clock = clock
        self._work = Work(home, clock)

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
        version = await self._work.put(kept, 0)
        self._work.run(kept, version)
        await self._forget_old()
        return made

    async def get(self, id: str) -> Operation:
        return (await self._work.kept(id))[0].operation

    async def list(self, *, limit: int = 50) -> builtins.list[Operation]:
        found = [kept.operation for kept, _ in await self._work.all()]
        return found[::-1][:limit]

    async def stop(self, id: str) -> Operation:
        for _ in range(TRIES):
            kept, version = await self._work.kept(id)
            if kept.operation.is_over:
                return kept.operation
            operation = kept.operation
            if kept.owner not in (await self._home.store.stats()).names:
                # Nobody is left to count the bite that was under way.
                operation = await self._as_left(kept)
            now = self._clock.read().wall
            stopped = replace(operation, state="stopped", updated=now, finished=now)
            try:
                await self._work.put(replace(kept, operation=stopped), version)
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

    # counting --------------------------------------------------------------------------------------------------------

    async def _count(self, asked: Search, bound: int, by: Principal | None) -> tuple[int, bool, Sequence[Task]]:
        count = 0
        examples: builtins.list[Task] = []
        after: Cursor | None = bound + 1
        for _ in range(PAGES):
            page = await self._home.store.find(asked, after=after, limit=1000)
            tasks = covered(by, page.tasks)
            count += len(tasks)
            examples += tasks[: EXAMPLES - len(examples)]
            after = page.after
            if after is None:
                return count, False, examples
            if count >= COUNTED:
                break
        return count, True, examples

    async def _settled(self, id: str) -> Operation:
        """What it came to when this process, if it worked on it, has counted its last bite."""
        await self._work.settled(id)
        return await self.get(id)

    def tend(self) -> None:
        """From now on take over operations whose process is gone. Idempotent; for processes that stay."""
        self._work.tend()

    async def adopt(self) -> int:
        """Go on with operations that nobody works on any more; returns how many."""
        return await self._work.adopt()

    async def _forget_old(self) -> None:
        over = [kept.operation.id for kept, _ in await self._work.all() if kept.operation.is_over]
        for id in over[:-_KEEP]:
            await self._home.store.drop_record(KIND, id, self._clock.read())
