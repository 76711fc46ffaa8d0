"""Gathers what is known of a store when somebody asks why a task waits: workers' notices, places, service times from the event log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from inferq.access import TENANT, TenantLimits
from inferq.backend import NOTICE, Notice
from inferq.clock import Clock
from inferq.events import BackendChanged, RecordChanged, TaskCompleted
from inferq.store import Change, Filter, Store
from inferq.task import State, Task
from inferq.waiting import Facts, Waiting, explain, retry_after

log: Final = logging.getLogger("inferq.queue")

_HISTORY: Final = 2000
"""Events that are read back to learn how long attempts take."""
_FRESH: Final = 0.25
"""Seconds that what was gathered is good for, unless it is heard to have changed: a page of fifty tasks asks once."""
_GAIN: Final = 0.2
"""Share of the newest attempt in a lane's moving average."""
_LANES: Final = 1000


class Pace:
    """How long attempts take, by lane: a moving average over the completions in the event log. Seconds."""

    def __init__(self) -> None:
        self.service: dict[str, float] = {}
        self._read_to: int | None = None

    async def update(self, store: Store) -> None:
        """Read what came since the last time, the newest of it at most."""
        last = await store.last_event()
        after = max(self._read_to or 0, last - _HISTORY)
        if last > after:
            for event in await store.events(after=after, limit=_HISTORY):
                if type(event) is TaskCompleted and event.lane:
                    self._take(event.lane, event.ran_ms / 1000)
        self._read_to = last

    def _take(self, lane: str, seconds: float) -> None:
        before = self.service.pop(lane, None)
        if len(self.service) >= _LANES:
            del self.service[next(iter(self.service))]
        self.service[lane] = seconds if before is None else before + _GAIN * (seconds - before)


class Explainer:
    """Answers for one open queue. `here` gives this process's own notice, None where it does not work."""

    def __init__(self, store: Store, clock: Clock, here: Callable[[], Notice | None]) -> None:
        self._store = store
        self._clock = clock
        self._here = here
        self._pace = Pace()
        self._known: Facts | None = None
        self._gathered = 0.0
        self._changes = 0
        self._loop = asyncio.get_running_loop()
        self._unlisten = store.listen(self._hear)

    def close(self) -> None:
        self._unlisten()

    def _hear(self, change: Change) -> None:
        if change.paused is not None or any(type(event) in (RecordChanged, BackendChanged) for event in change.events):
            self._known = None
            self._changes += 1

    async def explain(self, task: Task) -> Waiting:
        """Why that task waits."""
        if task.state is not State.PENDING:
            return explain(task, Facts(now=self._clock.read().wall))
        facts = await self._facts()
        ahead = await self._store.ahead(task.id)
        if ahead is not None:
            facts = msgspec.structs.replace(facts, in_flow=ahead.flow, lanes=ahead.lanes, more=ahead.more)
        full = await self._bound_reached(task.flow.tenant) if task.flow.tenant else None
        return explain(task, msgspec.structs.replace(facts, tenant_full=full))

    async def retry_after(self, lane: str | None = None) -> float:
        """Seconds after which a caller that was refused for want of room should come again."""
        return retry_after(await self._facts(), lane)

    async def _facts(self) -> Facts:
        if self._known is not None and self._loop.time() - self._gathered < _FRESH:
            return msgspec.structs.replace(self._known, now=self._clock.read().wall)
        changes = self._changes
        await self._pace.update(self._store)
        executed = await self._store.executed()
        running: dict[str, int] = {}
        for one in executed:
            running[one.backend] = running.get(one.backend, 0) + one.running
        facts = Facts(
            now=self._clock.read().wall,
            notices=await self.notices(),
            paused=await self._store.paused(),
            running=running,
            service=dict(self._pace.service),
        )
        if changes == self._changes:
            self._known, self._gathered = facts, self._loop.time()
        return facts

    async def notices(self) -> tuple[Notice, ...]:
        """What the workers that are alive say, this process's own as it is this moment."""
        alive = frozenset((await self._store.stats()).names)
        here = self._here()
        found = [] if here is None else [here]
        for record in await self._store.records(NOTICE):
            if record.id in alive and (here is None or record.id != here.worker):
                try:
                    found.append(msgspec.json.decode(record.body, type=Notice))
                except msgspec.DecodeError as error:
                    log.warning("queue.unreadable_notice", extra={"worker": record.id, "error": str(error)})
        return tuple(found)

    async def _bound_reached(self, tenant: str) -> int | None:
        record = await self._store.record(TENANT, tenant)
        if record is None:
            return None
        bound = msgspec.json.decode(record.body, type=TenantLimits).concurrency
        if bound is None:
            return None
        running = await self._store.find(Filter(tenants=(tenant,), states=(State.RUNNING,)).search(), limit=bound)
        return bound if len(running.tasks) >= bound else None
