"""Makes the tasks of schedules: sleeps until the next fire, hears of every change, and counts a fire only by the version it was read at."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Final

import msgspec

from inferq.clock import Clock, Now
from inferq.cron import CronError
from inferq.errors import QueueFull, RateLimited, StaleRecord, StoreClosed, StoreError, TaskNotFound
from inferq.events import TERMINAL, Event, RecordChanged, ScheduleFired, ScheduleSkipped
from inferq.schedule import KIND, Schedule, Step, decoded, encoded, next_step
from inferq.store import Change, Filter, RecordPut, Store
from inferq.task import WAITING, State

log: Final = logging.getLogger("inferq.ticker")

_PHASE: Final = 0.05
"""Seconds by which processes differ at random, so that one has told the others before they try."""
_LOOK: Final = 1.0
"""Seconds after which the wall clock is read again at the latest: it may have stepped."""
_RELOAD: Final = 60.0
_PATIENCE: Final = 2.0
_PAGE: Final = 500
_ACTIVE: Final = (*WAITING, State.RUNNING)
_MOST_ACTIVE: Final = 100
_AT_ONCE: Final = 32
_STEPS: Final = 50
"""Steps of one schedule before the others have their turn."""


class Ticker:
    """May run in any number of processes: whoever stores the schedule's next version together with the task has made the fire."""

    def __init__(self, store: Store, *, clock: Clock, rng: random.Random, max_queue_size: int | None) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self.max_queue_size = max_queue_size
        self._due: dict[str, int] = {}
        """When each enabled schedule wants to be looked at, in wall milliseconds."""
        self._changed: set[str] = set()
        self._blocking: dict[str, str] = {}
        """Tasks whose end a held fire waits for, and its schedule."""
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._reload_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._unlisten = store.listen(self._hear)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="inferq-ticker")

    async def stop(self) -> None:
        """End after the step that is being written, which a store may take its time for."""
        self._unlisten()
        self._stopping = True
        self._wake.set()
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait([task], timeout=_PATIENCE)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # hearing ---------------------------------------------------------------------------------------------------------

    def _hear(self, change: Change) -> None:
        for event in change.events:
            if type(event) is RecordChanged and event.kind == KIND:
                self._changed.add(event.id)
                self._wake.set()
            elif self._blocking and isinstance(event, TERMINAL) and event.task_id in self._blocking:
                self._changed.add(self._blocking.pop(event.task_id))
                self._wake.set()

    # the loop --------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                await self.look()
            except StoreClosed:
                return
            except StoreError as error:
                log.warning("ticker.failed", extra={"error": str(error)})
                self._reload_at = 0.0
                await self._wait(at_most=_LOOK)
            except Exception:
                # One schedule's trouble must not silence the others.
                log.exception("ticker.broken")
                await self._wait(at_most=_LOOK)
            else:
                await self._wait()

    async def look(self) -> None:
        """Make every fire whose time has come."""
        if self._loop.time() >= self._reload_at:
            await self._load()
        changed, self._changed = self._changed, set()
        now = self._clock.read().wall
        names = changed | {name for name, due in self._due.items() if due <= now}
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(name: str) -> None:
            async with slots:
                await self._advance(name)

        # Side by side, so that many schedules of the same minute share their commits.
        for ended in await asyncio.gather(*(one(name) for name in names), return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended

    async def _wait(self, *, at_most: float | None = None) -> None:
        """Until a schedule is due, something changed, or it is time to look at the clock again; after trouble, `at_most` seconds."""
        limit = self._reload_at - self._loop.time() if at_most is None else at_most
        if self._due and at_most is None:
            ahead = (min(self._due.values()) - self._clock.read().wall) / 1000
            limit = min(limit, _LOOK, max(0.0, ahead) + self._rng.uniform(0.0, _PHASE))
        try:
            async with asyncio.timeout(max(0.0, limit)):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _load(self) -> None:
        """Every schedule, as the store has it: at the start, and as a fallback for news that did not come."""
        self._reload_at = self._loop.time() + _RELOAD
        found, after = dict[str, int](), ""
        while page := await self._store.records(KIND, after=after, limit=_PAGE):
            for record in page:
                schedule = _readable(record.id, record.body)
                if schedule is not None and (schedule.due is not None or schedule.held is not None):
                    found[record.id] = 0 if schedule.due is None or schedule.held is not None else schedule.due
            after = page[-1].id
        self._due = found

    # one schedule ----------------------------------------------------------------------------------------------------

    async def _advance(self, name: str) -> None:
        """Take every step that the schedule asks for now, and remember when to look at it again."""
        for _ in range(_STEPS):
            if self._stopping:
                return
            record = await self._store.record(KIND, name)
            schedule = None if record is None else _readable(name, record.body)
            if record is None or schedule is None:
                self._due.pop(name, None)
                return
            now = self._clock.read()
            active = await self._active(schedule, now.wall)
            try:
                step = next_step(schedule, now.wall, active)
            except CronError as error:
                # Another version of inferq, or a machine with other time zones, wrote it: somebody else may know it.
                log.error("ticker.schedule_unusable", extra={"schedule": name, "error": str(error)})  # noqa: TRY400 - the place says nothing
                self._due.pop(name, None)
                return
            if step is None:
                self._remember(schedule, active)
                return
            try:
                await self._take(step, schedule, record.version, now)
            except StaleRecord:
                # Somebody else was quicker: look again at what it left to do.
                await asyncio.sleep(self._rng.uniform(0.0, _PHASE))
            except (QueueFull, RateLimited) as error:
                log.warning("ticker.queue_full", extra={"schedule": name, "error": str(error)})
                self._due[name] = now.wall + 1000
                return
        self._due[name] = self._clock.read().wall

    async def _active(self, schedule: Schedule, now: int) -> list[str]:
        """The schedule's tasks that have not ended, where that matters now."""
        due = schedule.due
        if schedule.held is None and (schedule.overlap == "allow" or due is None or due > now):
            return []
        where = Filter(states=_ACTIVE, schedule=schedule.name, tenants=(schedule.tenant,))
        page = await self._store.find(where.search(), limit=_MOST_ACTIVE)
        return [task.id for task in page.tasks]

    async def _take(self, step: Step, before: Schedule, version: int, now: Now) -> None:
        name, tenant = before.name, before.tenant
        told: list[Event] = [ScheduleSkipped(schedule=name, fire=skip.fire, reason=skip.reason, tenant=tenant) for skip in step.skipped]
        if step.schedule is not before:
            # With its events in the same transaction: whatever dies when, no fire is without its event.
            guard = RecordPut(KIND, before.place, encoded(step.schedule), version)
            if step.task is None:
                await self._store.put_record(guard, now, told=told)
            else:
                told.append(ScheduleFired(schedule=name, task_id=step.task.id, fire=step.fire, tenant=tenant))
                await self._store.add([step.task], now, limit=self.max_queue_size, guard=guard, told=told)
                log.info("schedule.fired", extra={"schedule": name, "task_id": step.task.id, "late_ms": now.wall - step.fire})
        for skip in step.skipped:
            log.info("schedule.skipped", extra={"schedule": name, "fires": skip.count, "reason": skip.reason})
        for task_id in step.cancel:
            try:
                await self._store.cancel([task_id], now, reason=f"schedule {name}: its next fire came")
            except TaskNotFound:
                continue

    def _remember(self, schedule: Schedule, active: Sequence[str]) -> None:
        due = schedule.due
        if schedule.held is not None:
            # Woken by the end of what it waits for; the second look is for an end that came while we asked.
            self._blocking.update(dict.fromkeys(active, schedule.place))
            again = self._clock.read().wall + round(_LOOK * 1000)
            due = again if due is None else min(due, again)
        if due is None:
            self._due.pop(schedule.place, None)
        else:
            self._due[schedule.place] = due


def _readable(name: str, body: bytes) -> Schedule | None:
    try:
        return decoded(body)
    except msgspec.DecodeError as error:
        log.error("ticker.schedule_unreadable", extra={"schedule": name, "error": str(error)})  # noqa: TRY400 - the place says nothing
        return None
