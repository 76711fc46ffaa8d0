"""Running tasks in this process: the places where they can run, and the engine that claims them, if there is one."""

from __future__ import annotations

import asyncio
import builtins
import signal
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from inferq.clock import seconds
from inferq.config import DEFAULT_BACKENDS, BackendSettings, Changes, Settings, changes
from inferq.errors import ConfigError
from inferq.executor import Executor, Health
from inferq.handle import Duration
from inferq.queue.opened import Opened
from inferq.task import Submission

if TYPE_CHECKING:
    from inferq.engine import Backend, Backends
    from inferq.executors.discovery import Discovered
    from inferq.queue.operations import LocalOperations


class Working(Opened):
    """A queue that was opened with `work=False` has places all the same: whoever submits is told what none of them can run."""

    _given: Sequence[Backend | BackendSettings | Executor] | None
    _backends: Backends | None = None

    @property
    @abstractmethod
    def operations(self) -> LocalOperations: ...

    async def start_work(self) -> None:
        """Begin to run tasks in this process, where it was opened with `work=False`. Idempotent. Raises ConfigError or PluginError."""
        if self._engine is not None:
            return
        # Only those who work need the engine: a front door opens in half the time without it.
        from inferq.engine import Engine

        engine = Engine(self.store, self._places(), self._settings, clock=self._clock)
        await engine.start()
        self._engine = engine
        self.operations.tend()

    async def stop(self, grace: Duration | None = None) -> None:
        """Stop working: no new claims; running tasks finish within the grace (default: the settings') or are handed back unburnt."""
        if self._engine is not None:
            await self._engine.stop(self._settings.worker.shutdown_grace if grace is None else seconds(grace))

    async def reconfigure(self, settings: Settings) -> Changes:
        """Go on under these settings, as far as a running process can: the answer says what was applied and what needs a new start.

        Running attempts keep their backend; a backend that is gone is closed when its last call has ended. Backends given to this
        queue by its program stay. Raises ConfigError, UnknownExecutor or PluginError, and then nothing has changed.
        """
        made = changes(self._settings, settings)
        own = self._given is None
        installed = _names(settings.backends) == _names(DEFAULT_BACKENDS)
        if self._engine is not None:
            self._engine.reconfigure(made.settings, backends=own, installed=installed)
        elif own and self._backends is not None:
            for gone in self._backends.replace(self._backends.renewed(settings.backends), settings.backends, installed=installed):
                await gone.close()
        self._settings = made.settings
        return made

    async def discover(self) -> builtins.list[Discovered]:
        """Look for model servers of this machine; one of a kind that nobody has configured is a backend of this process from now on."""
        from inferq.queue.discovering import look

        found = await look(self._settings)
        made = [_backend(one.backend) for one in found if one.backend is not None and self._given is None]
        for backend in made:
            backend.discovered = True
        self._places().add(made)
        if self._engine is not None:
            self._engine.changed()
        return found

    async def run_until_stopped(self, *, ready: Callable[[], object] | None = None) -> None:
        """Work until SIGINT or SIGTERM: the first stops gracefully, a second hands back at once. `ready` is called when they are heeded."""
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        stopping: list[asyncio.Task[None]] = []

        def ask() -> None:
            if asked.is_set():
                stopping.append(loop.create_task(self.stop(0)))
            asked.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ask)
        try:
            if ready is not None:
                ready()
            await asked.wait()
            await self.stop()
            if stopping:
                await asyncio.wait(stopping)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def places(self) -> builtins.list[Backend]:
        """Where tasks can run in this process, as configured."""
        return builtins.list(self._places())

    def check_over_http(self, submission: Submission) -> Submission:
        """The submission, where tasks of its executor may come over HTTP. Raises Forbidden."""
        self._places().check_over_http(submission.executor, submission.backend)
        return submission

    def _places(self) -> Backends:
        if self._backends is None:
            from inferq.engine import Backends, breaker_of, rules_of

            given = self._settings.backends if self._given is None else self._given
            # Who configured backends said which exist; who did not may use whatever is installed.
            installed = self._given is None and _names(self._settings.backends) == _names(DEFAULT_BACKENDS)
            rules, breaker = rules_of(self._settings), breaker_of(self._settings)
            self._backends = Backends([_backend(place) for place in given], installed=installed, rules=rules, breaker=breaker)
        return self._backends

    async def _check(self, backend: Backend) -> Health:
        if self._engine is not None:
            return await self._engine.watch.check(backend)
        from inferq.engine.health import ask, learn_models

        health = await ask(backend, self._settings.health.timeout)
        if health.ok:
            await learn_models(backend, self._settings.health.timeout)
        await backend.close()
        return health


def _names(backends: Sequence[BackendSettings]) -> list[tuple[str, str]]:
    return [(backend.name, backend.executor) for backend in backends]


def _backend(place: Backend | BackendSettings | Executor) -> Backend:
    from inferq.engine import Backend

    if isinstance(place, Backend):
        return place
    if isinstance(place, BackendSettings):
        return Backend.from_settings(place)
    if isinstance(place, Executor):
        return Backend(place, kind=place.name)
    raise ConfigError(f"expected a Backend, BackendSettings or an Executor, got {type(place).__name__}")
