"""Turns waiting tasks into outcomes: wires the worker, its backends and the upkeep of one process.

A claim's way: `worker.py` chooses and claims; `attempt.py` runs it on a `backend.py`, checks what the executor hands over (`handed.py`)
and judges what it raises (`verdict.py`); `aftermath.py` turns its end into gates, breakers and the next backend (`backends.py`);
`reporter.py` takes chunks and outcomes to the store. Beside them `health.py` watches backends, `board.py` obeys switches and posts how
they stand, and `upkeep.py`, `ticker.py` and `courier.py` do what is due.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any, Final

from inferq.breaker import BreakerPolicy
from inferq.clock import Clock
from inferq.config import Settings
from inferq.engine.attempt import AttemptRules
from inferq.engine.backends import Backend, Backends
from inferq.engine.board import Board
from inferq.engine.courier import Courier
from inferq.engine.health import Watch
from inferq.engine.ticker import Ticker
from inferq.engine.upkeep import Upkeep
from inferq.engine.worker import Worker
from inferq.placement import Rules
from inferq.policy import DEFAULT_STEPS, Step, ageing
from inferq.store import Retention, Store
from inferq.task import State

log: Final = logging.getLogger("inferq.engine")

_PATIENCE: Final = 5.0
"""Seconds that a backend which left the configuration may take to close when everything stops."""

__all__ = ["Backend", "Backends", "Engine", "breaker_of", "rules_of"]


class Engine:
    """One process's part in running tasks. `start` once, `stop` once."""

    def __init__(
        self,
        store: Store,
        backends: Backends,
        settings: Settings,
        *,
        clock: Clock,
        rng: random.Random | None = None,
        steps: Sequence[Step] | None = None,
    ) -> None:
        rng = rng or random.Random()  # noqa: S311 - jitter needs no secrecy
        self._backends = backends
        self._steps = steps
        self.worker = Worker(store, backends, **self._of_worker(settings), clock=clock, rng=rng)
        self._upkeep = Upkeep(store, clock=clock, rng=rng, **_of_upkeep(settings))
        self.watch = Watch(backends, settings.health, clock=clock, rng=rng, changed=self.changed)
        self.board = Board(store, backends, slots=settings.worker.slots, clock=clock, switched=self.changed)
        self.worker.on_change = self.changed
        self._ticker = Ticker(store, clock=clock, rng=rng, max_queue_size=settings.store.max_queue_size)
        self._courier = Courier(store, settings.webhooks, clock=clock, rng=rng)
        self._closing: set[asyncio.Task[None]] = set()

    def _of_worker(self, settings: Settings) -> dict[str, Any]:
        worker = settings.worker
        return {
            "slots": worker.slots,
            "batch": worker.claim_batch,
            "poll": worker.poll_interval,
            "rules": AttemptRules.from_settings(worker, settings.retry),
            "steps": _steps(settings) if self._steps is None else self._steps,
        }

    def reconfigure(self, settings: Settings, *, backends: bool = True, installed: bool = False) -> None:
        """Go on under these settings; without `backends` those stay. Raises UnknownExecutor or PluginError, and then nothing has changed.

        Attempts that run keep their backend and their rules; a backend that is gone is closed when its last call has ended.
        """
        if backends:
            renewed = self._backends.renewed(settings.backends)
            for gone in self._backends.replace(renewed, settings.backends, installed=installed):
                closing = asyncio.create_task(_close(gone), name=f"inferq-drain-{gone.name}")
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
        self.worker.reconfigure(**self._of_worker(settings))
        self._upkeep.reconfigure(**_of_upkeep(settings))
        self._backends.govern(rules_of(settings), breaker_of(settings))
        self.watch.reconfigure(settings.health)
        self.board.slots = settings.worker.slots
        self.board.look()
        self._ticker.max_queue_size = settings.store.max_queue_size
        self.changed()

    def changed(self) -> None:
        """A backend stands otherwise than before: say so, and look for work that can go now."""
        self.board.changed()
        self.watch.tend()
        self.worker.wake()

    async def start(self) -> None:
        """Take back what dead processes held and begin to claim."""
        await self._upkeep.start()
        await self.board.start()
        await self.worker.start()
        self.watch.start()
        self._ticker.start()
        self._courier.start()

    async def stop(self, grace: float) -> None:
        """No new claims; finish or hand back within `grace` seconds; close the backends."""
        await self.worker.stop(grace)
        await self.watch.stop()
        await self.board.stop()
        await self._ticker.stop()
        await self._courier.stop(grace)
        await self._upkeep.stop()
        await self._backends.close()
        if self._closing:
            # The worker has stopped: whatever still ran on them was handed back.
            await asyncio.wait(self._closing, timeout=_PATIENCE)


async def _close(backend: Backend) -> None:
    await backend.drained()
    try:
        await backend.close()
    except Exception as error:
        log.warning("backend.close_failed", exc_info=error, extra={"backend": backend.name})
    else:
        log.info("backend.closed", extra={"backend": backend.name})


def _of_upkeep(settings: Settings) -> dict[str, Any]:
    retention = settings.store.retention
    states = {State.COMPLETED: retention.completed, State.FAILED: retention.failed, State.CANCELLED: retention.cancelled}
    return {
        "rescue_interval": settings.worker.rescue_interval,
        "prune_interval": settings.store.prune_interval,
        "keep": {state: Retention(kept.age, kept.count, kept.bytes) for state, kept in states.items()},
        "chunk_age": retention.chunk_age,
        "event_age": retention.event_age,
    }


def rules_of(settings: Settings) -> Rules:
    """The settings `remote.*` as the rules of placement."""
    remote = settings.remote
    return Rules(
        remote.policy,
        remote.local_first,
        remote.max_local_queue,
        remote.overflow_priority,
        remote.remote_priority,
        remote.fallback_to_local,
    )


def breaker_of(settings: Settings) -> BreakerPolicy:
    """The settings `breaker.*` as a breaker's policy."""
    breaker = settings.breaker
    return BreakerPolicy(breaker.failures, breaker.initial_delay, breaker.max_delay)


def _steps(settings: Settings) -> Sequence[Step]:
    worker = settings.worker
    return DEFAULT_STEPS if worker.ageing is None else (ageing(worker.ageing, worker.ageing_bound),)
