"""One place where tasks run: its executor and slots, what it serves, and whether it may have a task now."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from inferq.backend import BackendState, BackendView, BreakerView, GateView, Switch, plain_name
from inferq.breaker import COUNTED, Breaker, BreakerPolicy, Gate
from inferq.clock import Now
from inferq.config import BackendSettings
from inferq.errors import UnknownExecutor
from inferq.executor import Executor
from inferq.executors import load
from inferq.placement import is_remote
from inferq.task import LOCAL, REMOTE, lane_parts

log: Final = logging.getLogger("inferq.backends")

_MODELS_SHOWN: Final = 200
_MADE_FROM: Final = ("name", "executor", "settings", "over_http")
"""What an executor is made from; with these unchanged it goes on under other settings."""


@lru_cache(maxsize=4096)
def model_of(lane: str) -> str:
    return lane_parts(lane)[1]


class Backend:
    """One configured place: an executor, how many tasks it runs at once, which models and which executors' tasks it serves.

    `remote` None goes by the executor's address. `open` is false while nobody may have a task: down, draining or disabled.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        kind: str,
        slots: int | None = None,
        models: Iterable[str] = (),
        serves: Iterable[str] = (),
        remote: bool | None = None,
        priority: int = 0,
        weight: float = 1.0,
        enabled: bool = True,
        over_http: bool | None = None,
    ) -> None:
        self.executor = executor
        self.name = executor.name
        self.kind = kind
        self.slots = slots
        self.models = frozenset(models)
        self.kinds = frozenset((kind, *serves))
        self.remote = is_remote(executor.address) if remote is None else remote
        self.over_http = executor.over_http is not False if over_http is None else over_http
        """Whether tasks that came over HTTP may run on it; a program that hands over an executor has thereby said so."""
        self.priority = priority
        self.weight = weight
        self.busy = 0
        self.closed: dict[str, float] = {}
        """Lanes that the backend asked to leave alone, until when (event loop time)."""
        self.breakers: dict[str, Breaker] = {}
        """By model; only those that have lately counted a failure."""
        self.known: frozenset[str] | None = None
        """Models that it listed when it was last asked; None: it was not, or has no such notion."""
        self.unlisted = ""
        """Why it did not list them, when it was last asked in vain."""
        self.discovered = False
        """Nobody configured it: it was found on this machine, and stays when the configuration is read again."""
        self.enabled = enabled
        self.switch: Switch | None = None
        self.down = ""
        """Why it is down; empty while it is not."""
        self.since = 0
        self.failed_checks = 0
        self.heard = 0.0
        """When a call to it last succeeded (event loop time)."""
        self.open = enabled
        self.policy = BreakerPolicy()
        self.settings: BackendSettings | None = None
        """What it was made from, where that was a configuration."""
        self._bridges: dict[str, Executor] = {}
        self._idle = asyncio.Event()
        self._gate = asyncio.Lock()
        self._opened = False
        self._closed = False

    @classmethod
    def from_settings(cls, settings: BackendSettings) -> Backend:
        """Raises UnknownExecutor, PluginError, or ConfigError where it is to be open over HTTP without bounds."""
        try:
            kind = load(settings.executor)
        except UnknownExecutor as error:
            raise UnknownExecutor(str(error).removeprefix("executor: "), field=f"backends.{settings.name}.executor") from None
        executor = kind(settings.name, settings.opened())
        made = cls(
            executor,
            kind=settings.executor,
            slots=settings.slots,
            models=settings.models,
            serves=settings.serves,
            remote=settings.remote,
            priority=settings.priority,
            weight=settings.weight,
            enabled=settings.enabled,
            over_http=bool(executor.over_http) if settings.over_http is None else settings.over_http,
        )
        if settings.over_http:
            executor.confine()
        made.settings = settings
        return made

    def adopts(self, wanted: BackendSettings) -> bool:
        """Whether it becomes what is wanted without a new executor: a model server that it runs keeps running."""
        mine = self.settings
        return mine is not None and all(getattr(mine, name) == getattr(wanted, name) for name in _MADE_FROM)

    def adopt(self, wanted: BackendSettings) -> None:
        """Take over what `adopts` said yes to."""
        self.settings, self.slots, self.models = wanted, wanted.slots, frozenset(wanted.models)
        self.kinds = frozenset((wanted.executor, *wanted.serves))
        self.remote = is_remote(self.executor.address) if wanted.remote is None else wanted.remote
        self.priority, self.weight, self.enabled = wanted.priority, wanted.weight, wanted.enabled
        self._settle()

    def leave(self) -> None:
        """A task's call has ended, or went on elsewhere."""
        self.busy -= 1
        if not self.busy:
            self._idle.set()

    async def drained(self) -> None:
        """Until no call runs on it; for one that gets no new ones."""
        while self.busy:
            self._idle.clear()
            await self._idle.wait()

    # what it serves --------------------------------------------------------------------------------------------------

    def serves(self, lane: str) -> bool:
        """Whether its settings let it run the lane's tasks; a lane that asks for a remote backend leaves local ones in as a last resort."""
        executor, model, backend = lane_parts(lane)
        if backend == LOCAL and self.remote:
            return False
        return executor in self.kinds and backend in (None, self.name, LOCAL, REMOTE) and (not self.models or model in self.models)

    def has(self, model: str) -> bool | None:
        """Whether it is known to have the model; None when it is not known."""
        if self.models:
            return True
        return None if self.known is None else plain_name(model) in self.known

    def forget(self, model: str) -> bool:
        """It said that it has no such model; True if that is news."""
        if self.models or plain_name(model) not in (self.known or ()):
            return False
        self.known = (self.known or frozenset()) - {plain_name(model)}
        return True

    # whether it may have a task --------------------------------------------------------------------------------------

    def is_open(self, lane: str, now: float) -> bool:
        """Whether the lane's tasks may go to it without a second thought; a probe has its own way."""
        return self.open and (not self.closed or self._unclosed(lane, now)) and (not self.breakers or self.gate(lane, now) == "open")

    def gate(self, lane: str, now: float) -> Gate:
        """`open`, `shut`, or `probe` when one task may find out whether it works again."""
        if not self.open or (self.closed and not self._unclosed(lane, now)):
            return "shut"
        breaker = self.breakers.get(model_of(lane)) if self.breakers else None
        return "open" if breaker is None else breaker.gate(now)

    def _unclosed(self, lane: str, now: float) -> bool:
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

    def began(self, lane: str) -> None:
        """A task of that lane goes to it now."""
        self.busy += 1
        if self.breakers and (breaker := self.breakers.get(model_of(lane))) is not None and breaker.until is not None:
            breaker.probe()

    # what happened to it ---------------------------------------------------------------------------------------------

    def succeeded(self, lane: str, now: float) -> bool:
        """A call succeeded. True if that changes how it stands."""
        self.heard = now
        changed = self.breakers.pop(model_of(lane), None) is not None if self.breakers else False
        return self.is_up() or changed

    def failed(self, lane: str, code: str | None, now: float, rng: random.Random, *, task: str, reason: str) -> bool:
        """A call failed with that code. True if a breaker opened or a probe ended."""
        model = model_of(lane)
        breaker = self.breakers.get(model)
        if code not in COUNTED:
            if breaker is not None and breaker.probing:
                # It answered, though not with what was hoped for: it works.
                del self.breakers[model]
                return True
            return False
        if breaker is None:
            breaker = self.breakers[model] = Breaker(self.policy)
        return breaker.failed(str(code), now, rng, task=task, reason=reason)

    def is_up(self) -> bool:
        """It works. True if that is news."""
        self.failed_checks = 0
        if not self.down:
            return False
        self.down = ""
        self._settle()
        return True

    def is_down(self, reason: str) -> bool:
        """It cannot be reached. True if that is news."""
        before, self.down = self.down, reason or "it does not answer"
        self._settle()
        return not before

    def turn(self, switch: Switch | None) -> bool:
        """People drain, disable or enable it. True if that is news."""
        before, self.switch = self.state, switch
        self._settle()
        return self.state != before

    def _settle(self) -> None:
        self.open = self.enabled and self.switch is None and not self.down

    @property
    def state(self) -> BackendState:
        """As its settings, its switch and its health checks say, the first of them that objects."""
        if not self.enabled:
            return "disabled"
        if self.switch is not None:
            return self.switch.state
        return "down" if self.down else "up"

    @property
    def reason(self) -> str:
        """Why it has no tasks now, or why a switch was set; empty where nothing is to be said."""
        if not self.enabled:
            return "its settings say enabled = false"
        return self.switch.reason if self.switch is not None else self.down

    # its executor ----------------------------------------------------------------------------------------------------

    def speaking(self, kind: str) -> Executor:
        """Its executor for tasks of executor `kind`: with a bridge to its dialect where they are not its own."""
        if kind == self.kind:
            return self.executor
        found = self._bridges.get(kind)
        if found is None:
            from inferq.executors.bridge import speaking  # few need it, and everybody waits for imports

            found = self._bridges[kind] = speaking(self.executor, kind)
        return found

    @property
    def opened(self) -> bool:
        """Whether its executor was opened."""
        return self._opened

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

    # for people ------------------------------------------------------------------------------------------------------

    def view(self, now: Now, loop_now: float) -> BackendView:
        """How it stands, with times by the wall clock."""

        def wall(moment: float) -> int:
            return now.wall + round((moment - loop_now) * 1000)

        return BackendView(
            name=self.name,
            executor=self.kind,
            address=self.executor.address,
            remote=self.remote,
            state=self.state,
            reason=self.reason,
            since=self.since,
            enabled=self.enabled,
            slots=self.slots,
            busy=self.busy,
            priority=self.priority,
            weight=self.weight,
            serves=tuple(sorted(self.kinds - {self.kind})),
            models=tuple(sorted(self.models or self.known or ()))[:_MODELS_SHOWN],
            listed=bool(self.models),
            breakers=tuple(
                BreakerView(
                    model,
                    breaker.failures,
                    open=breaker.until is not None,
                    probing=breaker.probing,
                    until=None if breaker.until is None else wall(breaker.until),
                    reason=breaker.reason,
                )
                for model, breaker in sorted(self.breakers.items())
            ),
            gates=tuple(GateView(lane, wall(until)) for lane, until in sorted(self.closed.items()) if until > loop_now),
        )
