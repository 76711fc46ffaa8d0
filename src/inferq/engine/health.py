"""Watches the backends: asks each how it is, at its own pace, and takes those out that do not answer. Blocks nobody."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from inferq.backend import plain_name
from inferq.clock import Clock
from inferq.config import DEFAULT_BACKENDS, HealthSettings
from inferq.engine.backend import Backend
from inferq.engine.backends import Backends
from inferq.executor import Executor, Health

log: Final = logging.getLogger("inferq.health")

_SOONER: Final = 6
"""One that failed its last check is asked again after this part of the interval."""


class Watch:
    """One task a backend, each at a random phase. `changed` is called when a backend stands otherwise than before."""

    def __init__(
        self, backends: Backends, settings: HealthSettings, *, clock: Clock, rng: random.Random, changed: Callable[[], None]
    ) -> None:
        self._backends = backends
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[str, tuple[Backend, asyncio.Task[None]]] = {}

    def start(self) -> None:
        self.tend()

    async def stop(self) -> None:
        tasks = [task for _, task in self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks = {}

    def reconfigure(self, settings: HealthSettings) -> None:
        """Go on under these; a rest that is being taken is taken to its end."""
        self._settings = settings

    def tend(self) -> None:
        """Watch those that came, and those that are gone no more."""
        here = {backend.name: backend for backend in self._backends if _is_watched(backend)}
        for name, (backend, task) in tuple(self._tasks.items()):
            if here.get(name) is not backend:
                task.cancel()
                del self._tasks[name]
        for name, backend in here.items():
            if name not in self._tasks:
                self._tasks[name] = (backend, self._loop.create_task(self._follow(backend), name=f"inferq-health-{name}"))

    async def _follow(self, backend: Backend) -> None:
        # Where several run the same, it matters at once which of them is there and what it has; a lone one is asked when its time comes.
        interval = self._settings.interval
        soon = not backend.models and self._has_rivals(backend)
        await asyncio.sleep(self._rng.uniform(0.0, min(1.0, interval)) if soon else self._rng.uniform(interval / 2, interval))
        while True:
            # Of the built-in ones nobody has configured, only those in use are asked: OpenAI is not to hear from everybody all day.
            if (backend.opened or backend.settings not in DEFAULT_BACKENDS) and backend.enabled:
                await self.check(backend)
            pause = self._settings.interval / (_SOONER if backend.failed_checks else 1)
            await asyncio.sleep(pause * self._rng.uniform(0.9, 1.1))

    def _has_rivals(self, backend: Backend) -> bool:
        return any(other is not backend and other.kinds & backend.kinds for other in self._backends)

    async def check(self, backend: Backend) -> Health:
        """Ask it now and take the answer to heart. Never raises, never takes longer than the timeout."""
        health = await ask(backend, self._settings.timeout)
        if health.ok or health.answered:
            changed = backend.is_up()
            if changed:
                log.info("backend %s is up again", backend.name, extra={"event": "backend.up", "backend": backend.name})
            if health.ok and await learn_models(backend, self._settings.timeout):
                self._backends.changed()
                changed = True
        else:
            changed = self._missed(backend, health.detail)
        if changed:
            backend.since = self._clock.read().wall
            self._changed()
        return health

    def _missed(self, backend: Backend, detail: str) -> bool:
        if self._loop.time() - backend.heard < self._settings.interval / _SOONER:
            # It has just answered a task: what is missing is time for the check.
            return False
        backend.failed_checks += 1
        if backend.failed_checks < self._settings.failures:
            return False
        news = backend.is_down(detail)
        if news:
            log.warning("backend %s is down: %s", backend.name, detail, extra={"event": "backend.down", "backend": backend.name})
        return news


async def ask(backend: Backend, limit: float) -> Health:
    """What it says of itself, at most `limit` seconds long. Never raises."""
    try:
        async with asyncio.timeout(limit):
            executor = await backend.ready()
            return await executor.health()
    except TimeoutError:
        return Health(ok=False, detail=f"no answer to the health check within {limit:g} s")
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and a watch must go on
        return Health(ok=False, detail=str(error) or type(error).__name__)


async def learn_models(backend: Backend, limit: float) -> bool:
    """Ask for its models where the settings list none; True if they are others than before. Never raises."""
    if backend.models or type(backend.executor).models is Executor.models:
        return False
    try:
        async with asyncio.timeout(limit):
            names = frozenset(plain_name(name) for name in await backend.executor.models())
    except Exception as error:  # noqa: BLE001 - as in `ask`; what was known stays known
        said = str(error) or type(error).__name__
        if said != backend.unlisted:
            backend.unlisted = said
            log.info(
                "backend %s did not list its models: %s",
                backend.name,
                said,
                extra={"event": "backend.models_unknown", "backend": backend.name},
            )
        return False
    backend.unlisted = ""
    changed, backend.known = names != backend.known, names
    return changed


def _is_watched(backend: Backend) -> bool:
    kind = type(backend.executor)
    return kind.health is not Executor.health or kind.models is not Executor.models
