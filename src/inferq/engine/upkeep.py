"""Background duties that keep work flowing: stage what is due, expire what is late, rescue what lost its worker, prune what is old."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from inferq.clock import Clock
from inferq.errors import StoreClosed, StoreError
from inferq.events import TaskReleased, TaskRetrying, TaskSubmitted
from inferq.store import Change, Retention, Store
from inferq.task import State

log: Final = logging.getLogger("inferq.upkeep")

_DELAYING: Final = (TaskSubmitted, TaskRetrying, TaskReleased)
_LIMIT: Final = 500
_STEP_MS: Final = 1000
"""A change of wall time against monotonic time beyond this is a step of the clock."""


class Upkeep:
    """Every duty may run in any process at any time; each starts at a random phase, so that processes do not march in step. Seconds."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        rng: random.Random,
        rescue_interval: float,
        prune_interval: float,
        keep: dict[State, Retention],
        chunk_age: float,
        event_age: float,
    ) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._renewed = asyncio.Event()
        self.reconfigure(
            rescue_interval=rescue_interval, prune_interval=prune_interval, keep=keep, chunk_age=chunk_age, event_age=event_age
        )
        self._offset = self._read_offset()
        self._stepped = True
        """Whether the wall clock may have gone back since the last staging; nobody knows what it did before this start."""
        self._due_changed = asyncio.Event()
        self._next_due: int | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._unlisten = store.listen(self._hear)

    def reconfigure(
        self, *, rescue_interval: float, prune_interval: float, keep: dict[State, Retention], chunk_age: float, event_age: float
    ) -> None:
        """Go on under these; a rest that a shorter interval ends early is ended."""
        self._rescue_interval = rescue_interval
        self._prune_interval = prune_interval
        self._keep = keep
        self._chunk_age = chunk_age
        self._event_age = event_age
        renewed, self._renewed = self._renewed, asyncio.Event()
        renewed.set()

    async def start(self) -> None:
        """Take back what dead processes held, then go on in the background."""
        await self._rescue()
        await self._stage()
        self._tasks = [
            asyncio.create_task(self._stage_when_due(), name="inferq-stage"),
            asyncio.create_task(self._every(lambda: self._rescue_interval, self._rescue), name="inferq-rescue"),
            asyncio.create_task(self._every(lambda: self._prune_interval, self._prune), name="inferq-prune"),
        ]

    async def stop(self) -> None:
        self._unlisten()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def _hear(self, change: Change) -> None:
        for event in change.events:
            if not isinstance(event, _DELAYING) or not event.due:
                continue
            self._notice_step()
            if event.at > self._clock.read().wall + _STEP_MS:
                # Written by a clock that stood ahead of ours.
                self._stepped = True
            if self._stepped or event.due < (self._next_due or 1 << 62):
                self._next_due = min(event.due, self._next_due or event.due)
                self._due_changed.set()

    async def _stage_when_due(self) -> None:
        while True:
            self._due_changed.clear()
            self._notice_step()
            if not self._stepped and await self._wait_for_due():
                continue
            try:
                await self._stage()
            except StoreClosed:
                return
            except StoreError as error:
                log.warning("upkeep.stage_failed", extra={"error": str(error)})
                await asyncio.sleep(1.0)

    async def _wait_for_due(self) -> bool:
        """Until the next task is due, or a second has passed; True if what is due next has changed meanwhile."""
        wait = 1.0
        if self._next_due is not None:
            wait = min(wait, max(0.0, (self._next_due - self._clock.read().wall) / 1000))
        try:
            async with asyncio.timeout(wait):
                await self._due_changed.wait()
        except TimeoutError:
            return False
        return True

    async def _stage(self) -> None:
        """What becomes due while the store answers is heard meanwhile: the earlier of both counts."""
        self._notice_step()
        stepped, self._stepped = self._stepped, False
        self._next_due = None
        try:
            due = await self._store.stage(self._clock.read(), limit=_LIMIT, stepped=stepped)
        except BaseException:
            self._stepped = stepped or self._stepped
            raise
        self._next_due = min((time for time in (due, self._next_due) if time is not None), default=None)

    def _notice_step(self) -> None:
        before, self._offset = self._offset, self._read_offset()
        if abs(self._offset - before) > _STEP_MS:
            self._stepped = True

    def _read_offset(self) -> int:
        now = self._clock.read()
        return now.wall - now.mono

    async def _every(self, interval: Callable[[], float], duty: Callable[[], Awaitable[None]]) -> None:
        phase = self._rng.uniform(0.0, 1.0)
        await self._rest(lambda: phase * min(interval(), 30.0))
        while True:
            try:
                await duty()
            except StoreClosed:
                return
            except StoreError as error:
                log.warning("upkeep.duty_failed", extra={"error": str(error)})
            await self._rest(interval)

    async def _rest(self, interval: Callable[[], float]) -> None:
        """The interval, as long as it now is; a change of settings counts for the rest that is being taken."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (left := began + interval() - loop.time()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._renewed.wait()
            except TimeoutError:
                return

    async def _rescue(self) -> None:
        while await self._store.rescue(self._clock.read(), limit=_LIMIT) >= _LIMIT:
            await asyncio.sleep(0)
        while await self._store.settle_batches(self._clock.read(), limit=_LIMIT):
            await asyncio.sleep(0)
        while await self._store.expire(self._clock.read(), limit=_LIMIT) >= _LIMIT:
            await asyncio.sleep(0)

    async def _prune(self) -> None:
        while True:
            removed = await self._store.prune(self._keep, self._clock.read(), chunks=self._chunk_age, events=self._event_age, limit=_LIMIT)
            if removed < _LIMIT:
                return
            # Claims go first: pruning takes small bites with pauses between them.
            await asyncio.sleep(0.01)
