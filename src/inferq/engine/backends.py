"""All backends of this process: which of them serve a lane, where a waiting task may go now, where a refused one goes instead."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from inferq.breaker import BreakerPolicy
from inferq.config import BackendSettings
from inferq.engine.backend import Backend, model_of
from inferq.errors import ConfigError, Forbidden, PluginError, UnknownExecutor
from inferq.executor import Executor
from inferq.executors import found
from inferq.placement import Rank, Rules, View, rank, shares, wish_of
from inferq.policy import Heads, Pool
from inferq.task import REMOTE, Head, is_paused, lane_parts

log: Final = logging.getLogger("inferq.backends")

__all__ = ["Backend", "Backends"]


class Backends:
    """All of them, by name.

    With `installed` an executor that nobody configured but that a package brings is a backend of its own name, from first use on.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        *,
        installed: bool = False,
        rules: Rules | None = None,
        breaker: BreakerPolicy | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.installed = installed
        self.rules = rules or Rules()
        self._breaker = breaker or BreakerPolicy()
        self.rng = rng or random.Random()  # noqa: S311 - a spread of work needs no secrecy
        self._by_name: dict[str, Backend] = {backend.name: backend for backend in backends}
        if len(self._by_name) < len(backends):
            names = ", ".join(backend.name for backend in backends)
            raise ConfigError(f"expected a name of its own for each backend, got {names}")
        for backend in backends:
            backend.policy = self._breaker
        self._serving: dict[str, tuple[Backend, ...]] = {}
        self._asked: dict[tuple[str, str | None], Executor] = {}

    def renewed(self, wanted: Sequence[BackendSettings]) -> list[Backend]:
        """A backend for each of these settings: the one that is there where it adopts them, else a new one. Nothing has changed yet.

        Raises UnknownExecutor or PluginError.
        """
        return [
            mine if (mine := self._by_name.get(one.name)) is not None and mine.adopts(one) else Backend.from_settings(one) for one in wanted
        ]

    def replace(self, renewed: Sequence[Backend], wanted: Sequence[BackendSettings], *, installed: bool = False) -> list[Backend]:
        """Put what `renewed` gave into force. Returns those that get no more tasks; their running calls go on."""
        names = {one.name for one in wanted}
        found = [backend for backend in self._by_name.values() if backend.discovered and backend.name not in names]
        kept = {*renewed, *found}
        gone = [backend for backend in self._by_name.values() if backend not in kept]
        self._by_name = {backend.name: backend for backend in (*renewed, *found)}
        for backend, settings in zip(renewed, wanted, strict=True):
            backend.adopt(settings)
            backend.policy = self._breaker
        self.installed = installed
        self.changed()
        return gone

    def __iter__(self) -> Iterator[Backend]:
        return iter(tuple(self._by_name.values()))

    def __getitem__(self, name: str) -> Backend:
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def get(self, name: str) -> Backend | None:
        return self._by_name.get(name)

    def govern(self, rules: Rules, breaker: BreakerPolicy) -> None:
        """Go on under these rules; breakers that count already keep their own."""
        self.rules, self._breaker = rules, breaker
        for backend in self._by_name.values():
            backend.policy = breaker
        self.changed()

    def add(self, backends: Iterable[Backend]) -> None:
        """More of them; one whose name is taken is left out."""
        for backend in backends:
            backend.policy = self._breaker
            self._by_name.setdefault(backend.name, backend)
        self.changed()

    def changed(self) -> None:
        """What a backend serves has changed."""
        self._serving.clear()
        self._asked.clear()

    def of_kind(self, kind: str, backend: str | None = None) -> Backend:
        """A backend of that executor, or one that runs its tasks too (of that name, if one is given). Raises UnknownExecutor."""
        self._bring_in(kind)
        fitting = [candidate for candidate in self._by_name.values() if kind in candidate.kinds]
        for candidate in sorted(fitting, key=lambda candidate: candidate.kind != kind):
            if backend in (None, candidate.name):
                return candidate
        kinds = sorted({kind for candidate in self._by_name.values() for kind in candidate.kinds})
        if backend is not None and fitting:
            names = sorted(candidate.name for candidate in fitting)
            raise UnknownExecutor(f"expected a backend of executor {kind} ({', '.join(names)}), got {backend!r}", field="backend")
        raise UnknownExecutor(
            f"expected an executor that is configured here ({', '.join(kinds)}), got {kind!r}; see `inferq executors`", field="executor"
        )

    def _bring_in(self, kind: str) -> None:
        """Raises PluginError for an installed executor that cannot be loaded."""
        if self.installed and kind not in self._by_name and kind in found():
            self.add([Backend.from_settings(BackendSettings(kind, kind))])

    def check_over_http(self, kind: str, backend: str | None = None) -> None:
        """Raises Forbidden where a backend that could run such a task is not open to tasks that come over HTTP."""
        self._bring_in(kind)
        for candidate in self._by_name.values():
            if kind in candidate.kinds and backend in (None, candidate.name) and not candidate.over_http:
                raise Forbidden(
                    f"expected an executor that is open over HTTP, got {kind!r} (backend {candidate.name!r}); submit beside the queue, or "
                    f"set backends.{candidate.name}.over_http and its bounds, see docs/security.md"
                )

    def executor_of(self, kind: str, backend: str | None = None) -> Executor:
        """The executor of such a backend, to ask it about a submission. Raises UnknownExecutor."""
        found = self._asked.get((kind, backend))
        if found is None:
            found = self._asked[kind, backend] = self.of_kind(kind, backend).speaking(kind)
        return found

    def serving(self, lane: str) -> tuple[Backend, ...]:
        """Backends that serve the lane. Those that listed their models without this one count only while none is known to have it."""
        serving = self._serving.get(lane)
        if serving is None:
            try:
                self._bring_in(lane_parts(lane)[0])
            except PluginError as error:
                log.warning("backend.plugin_failed", extra={"lane": lane, "error": str(error)})
            able = [backend for backend in self._by_name.values() if backend.serves(lane)]
            if lane_parts(lane)[2] == REMOTE and not self.rules.fallback_to_local:
                able = [backend for backend in able if backend.remote]
            model = model_of(lane)
            if len(able) > 1 and any(backend.has(model) for backend in able):
                able = [backend for backend in able if backend.has(model) is not False]
            serving = self._serving[lane] = tuple(able)
        return serving

    # choosing --------------------------------------------------------------------------------------------------------

    def pools(self, heads: Heads, *, paused: frozenset[str], room: int, now: float) -> list[Pool]:
        """Free slots and the open lanes with work for them."""
        if "*" in paused:
            return []
        lanes: dict[str, list[str]] = {}
        further: list[Pool] = []
        probed: set[tuple[str, str]] = set()
        for lane in heads.lanes:
            if paused and is_paused(lane, paused):
                continue
            serving = self.serving(lane)
            if len(serving) > 1:
                further += self._shared(lane, serving, heads, probed, room=room, now=now)
                continue
            for backend in serving:
                free = self.free(backend, room)
                if free <= 0:
                    continue
                if backend.is_open(lane, now):
                    lanes.setdefault(backend.name, []).append(lane)
                elif backend.breakers and backend.gate(lane, now) == "probe" and _first_probe(probed, backend, lane):
                    further.append(Pool(backend.name, (lane,), 1, backend.remote))
        return [self._plain(name, found, room) for name, found in lanes.items()] + further

    def _plain(self, name: str, lanes: list[str], room: int) -> Pool:
        backend = self._by_name[name]
        return Pool(name, lanes, self.free(backend, room), backend.remote)

    def _shared(
        self, lane: str, serving: Sequence[Backend], heads: Heads, probed: set[tuple[str, str]], *, room: int, now: float
    ) -> list[Pool]:
        """A pool for each backend that could have the lane's tasks, with its say about who comes first."""
        gates = [(backend, backend.gate(lane, now)) for backend in serving]
        usable = [(backend, gate) for backend, gate in gates if gate != "shut"]
        if not usable:
            return []
        waiting = heads.waiting(lane, self.rules.max_local_queue) if self.rules.policy == "queue" else 0
        view = self._view(usable, waiting)
        wish = wish_of(lane)
        found: list[Pool] = []
        for backend, gate in usable:
            free = self.free(backend, room)
            if free > 0 and (gate != "probe" or _first_probe(probed, backend, lane)):
                free = 1 if gate == "probe" else free
                found.append(Pool(backend.name, (lane,), free, backend.remote, self._ranking(backend, wish, view), backend.weight))
        return found

    @staticmethod
    def _view(usable: Iterable[tuple[Backend, object]], waiting: int = 0) -> View:
        sorts = {backend.remote for backend, _ in usable}
        return View(local_up=False in sorts, remote_up=True in sorts, waiting=waiting)

    def _ranking(self, backend: Backend, wish: bool | None, view: View) -> _Ranking:
        return _Ranking(backend.remote, backend.priority, wish, view, self.rules)

    def elsewhere(self, lane: str, urgency: int, *, tried: Iterable[str], near: bool, now: float) -> tuple[Backend | None, bool]:
        """Where a task that a backend refused goes instead: one with a free slot, None if there is none; and whether any other is open.

        `near` says whether local backends may have it at all.
        """
        gone = frozenset(tried)
        usable = [
            (backend, gate)
            for backend in self.serving(lane)
            if backend.name not in gone and (near or backend.remote) and (gate := backend.gate(lane, now)) != "shut"
        ]
        view = self._view(usable)
        wish = wish_of(lane)
        ranked: dict[Rank, list[Backend]] = {}
        for backend, _ in usable:
            place = rank(remote=backend.remote, priority=backend.priority, wish=wish, urgency=urgency, view=view, rules=self.rules)
            if place is not None:
                ranked.setdefault(place, []).append(backend)
        for place in sorted(ranked):
            free = [max(0, self.free(backend, 1)) for backend in ranked[place]]
            if any(free):
                given = shares(1, free, [backend.weight for backend in ranked[place]], self.rng)
                return ranked[place][given.index(1)], True
        return None, bool(ranked)

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
            found += [breaker.until for breaker in backend.breakers.values() if breaker.until is not None and breaker.until > now]
        return min(found, default=None)

    async def close(self) -> None:
        """Close all; one that fails to close keeps no other open."""
        closing = await asyncio.gather(*(backend.close() for backend in self._by_name.values()), return_exceptions=True)
        for backend, error in zip(self._by_name.values(), closing, strict=True):
            if error is not None:
                log.warning("backend.close_failed", exc_info=error, extra={"backend": backend.name})


def _first_probe(probed: set[tuple[str, str]], backend: Backend, lane: str) -> bool:
    """Whether nobody else in this round probes that model there: several lanes may need it."""
    place = (backend.name, model_of(lane))
    if place in probed:
        return False
    probed.add(place)
    return True


class _Ranking:
    """A pool's say about a head."""

    __slots__ = ("_known", "_priority", "_remote", "_rules", "_view", "_wish")

    def __init__(self, remote: bool, priority: int, wish: bool | None, view: View, rules: Rules) -> None:
        self._remote, self._priority, self._wish, self._view, self._rules = remote, priority, wish, view, rules
        self._known: dict[int, Rank | None] = {}

    def __call__(self, head: Head) -> Rank | None:
        urgency = head.key.priority
        if urgency not in self._known:
            self._known[urgency] = rank(
                remote=self._remote, priority=self._priority, wish=self._wish, urgency=urgency, view=self._view, rules=self._rules
            )
        return self._known[urgency]
