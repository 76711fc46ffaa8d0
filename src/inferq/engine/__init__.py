"""Turns waiting tasks into outcomes: wires the worker, its backends and the upkeep of one process."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Final

from inferq.clock import Clock
from inferq.config import Settings
from inferq.engine.attempt import Rules
from inferq.engine.backends import Backend, Backends
from inferq.engine.ticker import Ticker
from inferq.engine.upkeep import Upkeep
from inferq.engine.worker import Worker
from inferq.policy import DEFAULT_STEPS, Step, ageing
from inferq.store import Retention, Store
from inferq.task import State

log: Final = logging.getLogger("inferq.engine")

__all__ = ["Backend", "Backends", "Engine"]


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
        self.worker = Worker(
            store,
            backends,
            slots=settings.worker.slots,
            batch=settings.worker.claim_batch,
            poll=settings.worker.poll_interval,
            rules=Rules.from_settings(settings.worker, settings.retry),
            clock=clock,
            rng=rng,
            steps=_steps(settings) if steps is None else steps,
        )
        retention = settings.store.retention
        self._upkeep = Upkeep(
            store,
            clock=clock,
            rng=rng,
            rescue_interval=settings.worker.rescue_interval,
            prune_interval=settings.store.prune_interval,
            keep={
                State.COMPLETED: Retention(retention.completed.age, retention.completed.count, retention.completed.bytes),
                State.FAILED: Retention(retention.failed.age, retention.failed.count, retention.failed.bytes),
                State.CANCELLED: Retention(retention.cancelled.age, retention.cancelled.count, retention.cancelled.bytes),
            },
            chunk_age=retention.chunk_age,
            event_age=retention.event_age,
        )
        self._ticker = Ticker(store, clock=clock, rng=rng, max_queue_size=settings.store.max_queue_size)

    async def start(self) -> None:
        """Take back what dead processes held and begin to claim."""
        await self._upkeep.start()
        await self.worker.start()
        self._ticker.start()

    async def stop(self, grace: float) -> None:
        """No new claims; finish or hand back within `grace` seconds; close the backends."""
        await self.worker.stop(grace)
        await self._ticker.stop()
        await self._upkeep.stop()
        await self._backends.close()


def _steps(settings: Settings) -> Sequence[Step]:
    worker = settings.worker
    return DEFAULT_STEPS if worker.ageing is None else (ageing(worker.ageing, worker.ageing_bound),)
