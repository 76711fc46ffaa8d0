"""The loop that chooses, claims and hands over: woken by what happens, never by a tick. Knows no outcome's meaning."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Sequence
from typing import Final

from inferq.clock import Clock
from inferq.engine.aftermath import Aftermath
from inferq.engine.attempt import Attempt, AttemptRules, Stop
from inferq.engine.backend import Backend
from inferq.engine.backends import Backends
from inferq.engine.reporter import Reporter
from inferq.errors import ExecutorError, StoreClosed, StoreError
from inferq.events import TaskCancelled
from inferq.policy import DEFAULT_STEPS, Heads, Step, Want, plan
from inferq.store import Change, Store
from inferq.task import Claim, FlowKey, NewTask, Outcome

log: Final = logging.getLogger("inferq.worker")

_PATIENCE: Final = 5.0
"""Seconds that an interrupted attempt may take to close its call before it is left behind."""


class Worker:
    """Claims for free slots only and runs what it claimed. `slots` bounds the tasks at a time over all backends."""

    def __init__(
        self,
        store: Store,
        backends: Backends,
        *,
        slots: int,
        batch: int,
        poll: float,
        rules: AttemptRules,
        clock: Clock,
        rng: random.Random,
        steps: Sequence[Step] = DEFAULT_STEPS,
    ) -> None:
        self._store = store
        self._backends = backends
        self._slots = slots
        self._batch = batch
        self._poll = poll
        self._rules = rules
        self._clock = clock
        self._rng = rng
        self._steps = steps
        self._heads = Heads()
        self._paused: frozenset[str] = frozenset()
        self._running: dict[str, Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = 0
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._reporter = Reporter(store, clock, on_lost=self._lose)
        self._wakeup: asyncio.TimerHandle | None = None
        self._fallback: asyncio.TimerHandle | None = None
        self._pumping: asyncio.Task[None] | None = None
        self._again = False
        self._claiming = False
        self._void: set[tuple[str, int]] = set()
        """(task, attempt) that were cancelled while a claim was asked for."""
        self._expected: list[FlowKey] = []
        self.on_change: Callable[[], None] = _nobody
        """Called when a backend stands otherwise than before, or a draining one has become idle."""
        self._after = Aftermath(backends, loop=self._loop, clock=clock, rng=rng, changed=lambda: self.on_change())
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._unlisten = store.listen(self._hear)

    @property
    def busy(self) -> int:
        """Slots in use."""
        return self._busy

    @property
    def slots(self) -> int:
        return self._slots

    def reconfigure(self, *, slots: int, batch: int, poll: float, rules: AttemptRules, steps: Sequence[Step]) -> None:
        """Go on under these. What runs keeps the rules it began with; fewer slots are reached as tasks end."""
        self._slots, self._batch, self._poll, self._rules, self._steps = slots, batch, poll, rules, steps
        if self._fallback is not None:
            self._fallback.cancel()
            self._tick()

    async def start(self) -> None:
        heads, self._paused = await self._store.heads()
        self._heads.update(heads, self._clock.read().mono)
        self._tick()

    # hearing ---------------------------------------------------------------------------------------------------------

    def _hear(self, change: Change) -> None:
        if change.heads:
            self._heads.update(change.heads, self._clock.read().mono)
        if change.paused is not None:
            self._paused = change.paused
        if change.lost:
            for attempt in tuple(self._running.values()):
                attempt.interrupt("lost")
        if self._running or self._claiming:
            for event in change.events:
                if type(event) is TaskCancelled:
                    self._void.add((event.task_id, event.attempt))
                    self._interrupt(event.task_id, "cancelled")
            if not self._claiming:
                self._void.clear()
        if change.heads or change.paused is not None:
            self.wake()

    def _lose(self, claim: Claim) -> None:
        attempt = self._running.get(claim.task.id)
        if attempt is not None and attempt.claim.token == claim.token:
            attempt.interrupt("lost")

    def _interrupt(self, task_id: str, why: Stop) -> None:
        attempt = self._running.get(task_id)
        if attempt is not None:
            attempt.interrupt(why)

    # choosing and claiming -------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something may be able to run now."""
        if self._stopping:
            return
        if self._pumping is not None:
            self._again = True
            return
        if self._busy < self._slots and len(self._heads):
            self._pumping = self._loop.create_task(self._pump())

    def expect(self, tasks: Sequence[NewTask]) -> None:
        """These are about to be added: where nobody waits and slots are free, ask for their claim in the same commit.

        It saves an idle queue one commit between submit and start. The claim is an ordinary one, and empty if the add is refused.
        """
        if self._stopping or len(self._heads) or self._busy >= self._slots or (self._pumping is not None and not self._expected):
            return
        # A task made now runs its first step before what is added after it is sent to the store: both share a commit.
        self._expected += [task.flow for task in tasks[: self._slots] if task.due is None]
        if self._expected and self._pumping is None:
            self._pumping = self._loop.create_task(self._pump(expecting=True))

    def _expected_wants(self) -> list[Want]:
        expected, self._expected = self._expected, []
        now, room, wants = self._loop.time(), min(self._slots - self._busy, self._batch), list[Want]()
        flows: dict[str, list[FlowKey]] = {}
        for flow in sorted(set(expected), key=lambda flow: -flow.priority):
            serving = self._backends.serving(flow.lane)
            # Where several could run it, a choice has to be made, and that needs its head.
            if len(serving) == 1 and serving[0].is_open(flow.lane, now):
                flows.setdefault(serving[0].name, []).append(flow)
        for name, mine in flows.items():
            backend = self._backends[name]
            free = self._backends.free(backend, room)
            if free > 0:
                tiers = [tuple(group) for _, group in itertools.groupby(mine, key=lambda flow: flow.priority)]
                wants.append(Want(name, tuple(tiers), free, backend.remote))
                room -= free
        return wants

    def _tick(self) -> None:
        """The fallback poll: work that nothing woke us for."""
        self.wake()
        if not self._stopping:
            self._fallback = self._loop.call_later(self._poll, self._tick)

    async def _pump(self, *, expecting: bool = False) -> None:
        try:
            if expecting and not len(self._heads) and (wants := self._expected_wants()):
                await self._claim(wants)
            while not self._stopping:
                self._again = False
                claimed = await self._claim_round()
                if not claimed and not self._again:
                    break
        except StoreClosed:
            self._stopping = True
        except StoreError as error:
            log.warning("worker.claim_failed", extra={"error": str(error)})
        except Exception:
            # The fallback poll tries again: a worker must not fall silent.
            log.exception("worker.pump_failed")
        finally:
            self._expected.clear()
            self._pumping = None
        self._wake_at_next_opening()

    async def _claim_round(self) -> int:
        room = min(self._slots - self._busy, self._batch)
        if room <= 0 or not len(self._heads):
            return 0
        now = self._clock.read()
        pools = self._backends.pools(self._heads, paused=self._paused, room=room, now=self._loop.time())
        wants = plan(self._heads, pools, limit=room, now=now.mono, steps=self._steps, rng=self._rng)
        if not wants:
            return 0
        return await self._claim(wants)

    async def _claim(self, wants: Sequence[Want]) -> int:
        # Only one round runs at a time, so nothing else can promise these slots meanwhile.
        now = self._clock.read()
        self._claiming = True
        try:
            claims = await self._store.claim(wants, now)
        finally:
            self._claiming = False
        void, self._void = self._void, set()
        count = 0
        for want, mine in zip(wants, claims, strict=True):
            for claim in mine:
                if (claim.task.id, claim.attempt) in void:
                    # Cancelled in the commit that claimed it: the news came before the claim.
                    continue
                try:
                    self._begin(claim, want.pool)
                except Exception:
                    log.exception("worker.begin_failed", extra={"task_id": claim.task.id})
                    self._reporter.end(claim, Outcome.released(at=now.wall + 1000, error="the worker could not begin it"))
            count += len(mine)
        return count

    def _wake_at_next_opening(self) -> None:
        opening = self._backends.next_opening(self._loop.time())
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None
        if opening is not None and not self._stopping:
            self._wakeup = self._loop.call_at(opening, self.wake)

    # running ---------------------------------------------------------------------------------------------------------

    def _begin(self, claim: Claim, pool: str) -> None:
        backend = self._after.rather(claim, self._backends[pool])
        backend.began(claim.task.flow.lane)
        self._busy += 1
        self._quiet.clear()
        attempt = Attempt(
            claim,
            backend,
            rules=self._rules,
            clock=self._clock,
            rng=self._rng,
            emit=self._reporter.outbox(claim),
            loop=self._loop,
            on_deaf=self._abandon,
            on_refused=self._send_on,
        )
        self._running[claim.task.id] = attempt
        task = attempt.task = self._loop.create_task(self._run(attempt))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, attempt: Attempt) -> None:
        claim = attempt.claim
        outcome: Outcome | None = None
        try:
            outcome = await attempt.run()
        finally:
            # The backend is free as soon as its call has ended; the outcome rides the next commit.
            attempt.backend.leave()
            self._busy -= 1
            if self._running.get(claim.task.id) is attempt:
                del self._running[claim.task.id]
            if not self._running:
                self._quiet.set()
            outcome = self._after.settled(attempt, outcome)
            if not attempt.abandoned:
                self._reporter.end(claim, outcome)
            if attempt.backend.switch is not None and attempt.backend.busy == 0:
                self.on_change()
            self.wake()

    def _send_on(self, attempt: Attempt, error: ExecutorError) -> Backend | None:
        """The backend that takes over what another refused, with the slot of one for that of the other."""
        other = self._after.sent_on(attempt, error)
        if other is not None:
            self.wake()
        return other

    def _abandon(self, attempt: Attempt, outcome: Outcome | None) -> None:
        """Its call does not listen. What the attempt came to is written; the backend's slot stays taken until the call ends."""
        log.error("worker.deaf_call", extra={"task_id": attempt.claim.task.id, "backend": attempt.backend.name})
        self._reporter.end(attempt.claim, self._after.settled(attempt, outcome))

    # stopping --------------------------------------------------------------------------------------------------------

    async def stop(self, grace: float) -> None:
        """No new claims; running attempts get `grace` seconds to finish, then they are handed back unburnt. Idempotent; a second
        call with a shorter grace shortens the first."""
        self._stopping = True
        for timer in (self._wakeup, self._fallback):
            if timer is not None:
                timer.cancel()
        if self._pumping is not None:
            await asyncio.wait([self._pumping])
        try:
            async with asyncio.timeout(grace):
                await self._quiet.wait()
        except TimeoutError:
            for attempt in tuple(self._running.values()):
                attempt.interrupt("stopping")
        if self._tasks:
            _, deaf = await asyncio.wait(tuple(self._tasks), timeout=_PATIENCE)
            if deaf:
                # Their claims go back when this process ends: its lock or its lease gives them up.
                log.error("worker.attempts_ignored_the_stop", extra={"attempts": len(deaf)})
        try:
            async with asyncio.timeout(max(grace, _PATIENCE)):
                await self._reporter.drain()
        except TimeoutError:
            # The store takes nothing (a full disk). What it was not told is made again by those who take the claims back.
            log.warning("worker.outcomes_not_written")
            self._reporter.give_up()
        self._unlisten()


def _nobody() -> None:
    """Who listens while nobody does."""
