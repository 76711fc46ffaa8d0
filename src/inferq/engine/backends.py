"""The places where tasks run: their executors, slots and gates, and which of them serve a lane."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from inferq.config import BackendSettings
from inferq.errors import ConfigError, PluginError, UnknownExecutor
from inferq.executor import Executor
from inferq.executors import found, load
from inferq.policy import Heads, Pool
from inferq.task import lane_parts

log: Final = logging.getLogger("inferq.backends")


class Backend:
    """One configured place: an executor, how many tasks it runs at once, which models it serves."""

    def __init__(self, executor: Executor, *, kind: str, slots: int | None = None, models: Iterable[str] = ()) -> None:
        self.executor = executor
        self.name = executor.name
        self.kind = kind
        self.slots = slots
        self.models = frozenset(models)
        self.busy = 0
        self.settings: BackendSettings | None = None
        """What it was made from, where that was a configuration."""
        self.closed: dict[str, float] = {}
        """Lanes that the backend asked to leave alone, until when (event loop time)."""
        self._idle = asyncio.Event()
        self._gate = asyncio.Lock()
        self._opened = False
        self._closed = False

    @classmethod
    def from_settings(cls, settings: BackendSettings) -> Backend:
        """Raises UnknownExecutor or PluginError."""
        executor = load(settings.executor)(settings.name, settings.opened())
        made = cls(executor, kind=settings.executor, slots=settings.slots, models=settings.models)
        made.settings = settings
        return made

    def adopts(self, wanted: BackendSettings) -> bool:
        """Whether it becomes what is wanted without a new executor: a model server that it runs keeps running."""
        mine = self.settings
        return mine is not None and msgspec.structs.replace(mine, slots=wanted.slots, models=wanted.models) == wanted

    def adopt(self, wanted: BackendSettings) -> None:
        """Take over what `adopts` said yes to."""
        self.settings, self.slots, self.models = wanted, wanted.slots, frozenset(wanted.models)

    def leave(self) -> None:
        """A task's call has ended."""
        self.busy -= 1
        if not self.busy:
            self._idle.set()

    async def drained(self) -> None:
        """Until no call runs on it; for one that gets no new ones."""
        while self.busy:
            self._idle.clear()
            await self._idle.wait()

    def serves(self, lane: str) -> bool:
        executor, model, backend = lane_parts(lane)
        return executor == self.kind and backend in (None, self.name) and (not self.models or model in self.models)

    def is_open(self, lane: str, now: float) -> bool:
        """False while the lane's gate is closed; opens it when its time has come."""
        until = self.closed.get(lane)
        if until is None:
            return True
        if until > now:
            return False
        del self.closed[lane]
        return True

    def shut(self, lane: str, until: float) -> None:
        """Close the lane's gate until that event loop time."""
        self.closed[lane] = max(until, self.closed.get(lane, 0.0))

    async def ready(self) -> Executor:
        """The executor, opened once; an opening that failed is tried again by the next call."""
        if not self._opened:
            async with self._gate:
                if not self._opened:
                    await self.executor.open()
                    self._opened, self._closed = True, False
        return self.executor

    async def close(self) -> None:
        """Close the executor. Idempotent; a later call opens it again."""
        if not self._closed:
            self._closed, self._opened = True, False
            await self.executor.close()


class Backends:
    """All of them, by name.

    With `installed` an executor that nobody configured but that a package brings is a backend of its own name, from first use on.
    """

    def __init__(self, backends: Sequence[Backend], *, installed: bool = False) -> None:
        self._installed = installed
        self._by_name: dict[str, Backend] = {backend.name: backend for backend in backends}
        if len(self._by_name) < len(backends):
            names = ", ".join(backend.name for backend in backends)
            raise ConfigError(f"expected a name of its own for each backend, got {names}")
        self._serving: dict[str, tuple[Backend, ...]] = {}

    def renewed(self, wanted: Sequence[BackendSettings]) -> list[Backend]:
        """A backend for each of these settings: the one that is there where it adopts them, else a new one. Nothing has changed yet.

        Raises UnknownExecutor or PluginError.
        """
        return [
            mine if (mine := self._by_name.get(one.name)) is not None and mine.adopts(one) else Backend.from_settings(one) for one in wanted
        ]

    def replace(self, renewed: Sequence[Backend], wanted: Sequence[BackendSettings], *, installed: bool = False) -> list[Backend]:
        """Put what `renewed` gave into force. Returns those that get no more tasks; their running calls go on."""
        kept = set(renewed)
        gone = [backend for backend in self._by_name.values() if backend not in kept]
        self._by_name = {backend.name: backend for backend in renewed}
        for backend, settings in zip(renewed, wanted, strict=True):
            backend.adopt(settings)
        self._installed = installed
        self._serving.clear()
        return gone

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._by_name.values())

    def __getitem__(self, name: str) -> Backend:
        return self._by_name[name]

    def of_kind(self, kind: str, backend: str | None = None) -> Backend:
        """A backend of that executor (of that name, if one is given). Raises UnknownExecutor."""
        self._bring_in(kind)
        for candidate in self._by_name.values():
            if candidate.kind == kind and backend in (None, candidate.name):
                return candidate
        kinds = sorted({candidate.kind for candidate in self._by_name.values()})
        if backend is not None and any(candidate.kind == kind for candidate in self._by_name.values()):
            names = sorted(c.name for c in self._by_name.values() if c.kind == kind)
            raise UnknownExecutor(f"expected a backend of executor {kind} ({', '.join(names)}), got {backend!r}", field="backend")
        raise UnknownExecutor(
            f"expected an executor that is configured here ({', '.join(kinds)}), got {kind!r}; see `inferq executors`", field="executor"
        )

    def _bring_in(self, kind: str) -> None:
        """Raises PluginError for an installed executor that cannot be loaded."""
        if self._installed and kind not in self._by_name and kind in found():
            self._by_name[kind] = Backend.from_settings(BackendSettings(kind, kind))

    def executor_of(self, kind: str, backend: str | None = None) -> Executor:
        """The executor of such a backend, to ask it about a submission. Raises UnknownExecutor."""
        return self.of_kind(kind, backend).executor

    def serving(self, lane: str) -> tuple[Backend, ...]:
        serving = self._serving.get(lane)
        if serving is None:
            try:
                self._bring_in(lane_parts(lane)[0])
            except PluginError as error:
                log.warning("backend.plugin_failed", extra={"lane": lane, "error": str(error)})
            serving = self._serving[lane] = tuple(backend for backend in self._by_name.values() if backend.serves(lane))
        return serving

    def pools(self, heads: Heads, *, paused: frozenset[str], room: int, now: float) -> list[Pool]:
        """Free slots and the open lanes with work for them."""
        if "*" in paused:
            return []
        lanes: dict[str, list[str]] = {}
        for lane in heads.lanes:
            if lane in paused:
                continue
            for backend in self.serving(lane):
                if backend.is_open(lane, now) and self.free(backend, room) > 0:
                    lanes.setdefault(backend.name, []).append(lane)
        return [Pool(name, found, self.free(self._by_name[name], room)) for name, found in lanes.items()]

    @staticmethod
    def free(backend: Backend, room: int) -> int:
        """Its free slots, at most `room`."""
        return room if backend.slots is None else min(room, backend.slots - backend.busy)

    def next_opening(self, now: float) -> float | None:
        """When the next closed gate opens (event loop time); `now` if one opened since it was last asked."""
        found: list[float] = []
        for backend in self._by_name.values():
            for lane, until in tuple(backend.closed.items()):
                found.append(max(until, now))
                if until <= now:
                    # Its time came after the last look: whoever looks again finds it open.
                    del backend.closed[lane]
        return min(found, default=None)

    async def close(self) -> None:
        """Close all; one that fails to close keeps no other open."""
        closing = await asyncio.gather(*(backend.close() for backend in self._by_name.values()), return_exceptions=True)
        for backend, error in zip(self._by_name.values(), closing, strict=True):
            if error is not None:
                log.warning("backend.close_failed", exc_info=error, extra={"backend": backend.name})
