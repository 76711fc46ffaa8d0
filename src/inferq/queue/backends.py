"""Backends of a queue in this process: what the workers' notices and the settings say of them, and the switches in the store."""

from __future__ import annotations

import asyncio
import builtins
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from inferq.backend import SWITCH, BackendInfo, BackendState, BackendView, Notice, Switch
from inferq.clock import Clock
from inferq.door.backends import BackendsDoor, Held, Tested
from inferq.errors import Conflict, ExecutorError, RecordNotFound, WaitTimeout
from inferq.executor import Executor, Health
from inferq.store import Executed, RecordPut, Store

if TYPE_CHECKING:
    from inferq.engine import Backend, Backends

_BEST: Final[tuple[BackendState, ...]] = ("up", "down", "draining", "disabled")
"""Of several workers' words the first of these holds: where one can use it, it can be used."""
_PATIENCE: Final = 5.0
"""Seconds that a backend has to say what it has in memory."""
Check = Callable[["Backend"], Awaitable[Health]]


class LocalBackends(BackendsDoor):
    """`check` asks one of this process's backends how it is; `notices` gives what the workers say; `works`: it runs tasks itself."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        places: Callable[[], Backends],
        notices: Callable[[], Awaitable[Iterable[Notice]]],
        check: Check,
        works: bool = False,
    ) -> None:
        self._store = store
        self._clock = clock
        self._places = places
        self._notices = notices
        self._check = check
        self._works = works

    async def list(self) -> builtins.list[BackendInfo]:
        notices = list(await self._notices())
        seen = {view.name for notice in notices for view in notice.backends}
        executed = await self._store.executed()
        switches = await self._switches()
        found = [info for name in sorted(seen) if (info := _merged(name, notices, switches.get(name))) is not None]
        for backend in self._places():
            if backend.name not in seen:
                backend.turn(switches.get(backend.name))
                found.append(_info(backend.view(self._clock.read(), 0.0), ()))
        return sorted((_counted(info, executed) for info in found), key=lambda info: info.name)

    async def get(self, name: str) -> BackendInfo:
        known = await self.list()
        for info in known:
            if info.name == name:
                return info
        raise RecordNotFound(f"expected the name of a backend ({', '.join(info.name for info in known)}), got {name!r}")

    async def test(self, name: str) -> Tested:
        backend = await self._own(name)
        began = time.monotonic()
        health = await self._check(backend)
        taken = time.monotonic() - began
        models: tuple[str, ...] = ()
        if health.ok and type(backend.executor).models is not Executor.models:
            models = tuple(sorted(backend.models or backend.known or ()))
        return Tested(name, health.ok, health.detail, round(taken, 4), models, await self._loaded(backend) if health.ok else None)

    async def _loaded(self, backend: Backend) -> tuple[str, ...] | None:
        """What it says that it has in memory; a backend that fails here has just said that it is well, which counts."""
        if type(backend.executor).loaded is Executor.loaded:
            return None
        try:
            async with asyncio.timeout(_PATIENCE):
                found = await backend.executor.loaded()
        except (ExecutorError, TimeoutError):
            return None
        finally:
            if not self._works:
                await backend.close()
        return None if found is None else tuple(sorted(found))

    async def _hold(self, name: str, model: str, verb: Literal["load", "unload"], keep: float | None, timeout: float) -> Held:
        backend = await self._own(name)
        executor = backend.executor
        if executor.keeps_models and not self._works:
            raise Conflict(
                f"backend {name} keeps its models in the process that runs its tasks, which is not this one: ask that server, by --url"
            )
        began = time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                await (executor.load_model(model, keep=keep) if verb == "load" else executor.unload_model(model))
                loaded = await executor.loaded()
        except TimeoutError:
            raise WaitTimeout(f"backend {name} did not {verb} {model} within {timeout:g} s; it may go on, see `inferq models ps`") from None
        except ExecutorError as error:
            raise Conflict(str(error)) from error
        finally:
            if not self._works:
                await backend.close()
        return Held(name, model, None if loaded is None else tuple(sorted(loaded)), round(time.monotonic() - began, 3))

    async def _own(self, name: str) -> Backend:
        backend = self._places().get(name)
        if backend is None:
            await self.get(name)
            raise RecordNotFound(f"expected a backend that this process has too, got {name!r}: only workers elsewhere have it")
        return backend

    async def enable(self, name: str) -> BackendInfo:
        await self.get(name)
        await self._store.drop_record(SWITCH, name, self._clock.read())
        self._turn(name, None)
        return await self.get(name)

    async def _switch(self, name: str, state: str, reason: str) -> BackendInfo:
        await self.get(name)
        ordered: Literal["draining", "disabled"] = "draining" if state == "draining" else "disabled"
        now = self._clock.read()
        before = (await self._switches()).get(name)
        if before is None or (before.state, before.reason) != (ordered, reason):
            switch = Switch(ordered, reason, now.wall)
            await self._store.put_record(RecordPut(SWITCH, name, msgspec.json.encode(switch)), now)
            self._turn(name, switch)
        return await self.get(name)

    def _turn(self, name: str, switch: Switch | None) -> None:
        """This process obeys before whoever switched goes on: what he submits next must not begin there. The others hear of it."""
        backend = self._places().get(name)
        if backend is not None and backend.turn(switch):
            backend.since = self._clock.read().wall

    async def _switches(self) -> dict[str, Switch]:
        return {record.id: msgspec.json.decode(record.body, type=Switch) for record in await self._store.records(SWITCH)}


def _merged(name: str, notices: builtins.list[Notice], switch: Switch | None) -> BackendInfo | None:
    told = [(notice, view) for notice in notices for view in notice.backends if view.name == name]
    if not told:
        return None
    ordered = "" if switch is None else switch.state
    heard = [(notice.worker, view.state in ("draining", "disabled") if ordered else view.state in ("up", "down")) for notice, view in told]
    unaware = tuple(sorted(worker for (worker, aware), (_, view) in zip(heard, told, strict=True) if view.enabled and not aware))
    _, best = min(told, key=lambda entry: (not entry[1].enabled, _BEST.index(entry[1].state)))
    if best.enabled and switch is not None:
        best = msgspec.structs.replace(best, state=switch.state, reason=switch.reason, since=switch.at)
    elif best.enabled and best.state in ("draining", "disabled"):
        best = msgspec.structs.replace(best, state="up", reason="")
    slots = [notice.slots if view.slots is None else view.slots for notice, view in told]
    info = _info(best, tuple(sorted(notice.worker for notice, _ in told)))
    models = sorted({model for _, view in told for model in view.models})
    breakers = tuple(breaker for _, view in told for breaker in view.breakers)
    gates = tuple(gate for _, view in told for gate in view.gates)
    return msgspec.structs.replace(info, slots=sum(slots), unaware=unaware, models=tuple(models), breakers=breakers, gates=gates)


def _info(view: BackendView, workers: tuple[str, ...]) -> BackendInfo:
    return BackendInfo(
        name=view.name,
        executor=view.executor,
        address=view.address,
        remote=view.remote,
        state=view.state,
        reason=view.reason,
        since=view.since,
        slots=view.slots,
        priority=view.priority,
        weight=view.weight,
        serves=view.serves,
        models=view.models,
        breakers=view.breakers,
        gates=view.gates,
        workers=workers,
    )


def _counted(info: BackendInfo, executed: Iterable[Executed]) -> BackendInfo:
    mine = [one for one in executed if one.backend == info.name]
    return msgspec.structs.replace(info, busy=sum(one.running for one in mine), completed=sum(one.completed for one in mine))
