"""The notice board of the store: obeys the switches that people set for backends, and posts how this process's backends stand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from inferq.backend import NOTICE, SWITCH, BackendView, Notice, Switch
from inferq.clock import Clock
from inferq.engine.backends import Backends
from inferq.errors import InferqError, StoreClosed
from inferq.events import BackendChanged, RecordChanged
from inferq.store import Change, RecordPut, Store

log: Final = logging.getLogger("inferq.board")

_TOGETHER: Final = 0.05
"""Seconds: changes this close to each other are posted as one."""


class Board:
    """Belongs to one engine. `switched` is called when people have turned a switch."""

    def __init__(self, store: Store, backends: Backends, *, slots: int, clock: Clock, switched: Callable[[], None]) -> None:
        self._store = store
        self._backends = backends
        self.slots = slots
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._posted: bytes = b""
        self._name = ""
        self._told: dict[str, str] = {}
        self._wish = asyncio.Event()
        self._switched = False
        self._task: asyncio.Task[None] | None = None
        self._on_switch = switched
        self._unlisten = store.listen(self._hear)

    async def start(self) -> None:
        """Read the switches; from then on they are heard of."""
        began = self._clock.read().wall
        for backend in self._backends:
            backend.since = backend.since or began
        await self._read_switches()
        await self._sweep()
        self._told = {backend.name: backend.state for backend in self._backends}
        await self._post()
        self._task = self._loop.create_task(self._work(), name="inferq-board")

    async def stop(self) -> None:
        """Take the notice down."""
        self._unlisten()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._name:
            try:
                await self._store.drop_record(NOTICE, self._name, self._clock.read(), quiet=True)
            except InferqError as error:
                log.info("board.notice_left", extra={"error": str(error)})

    def changed(self) -> None:
        """Something about a backend is to be posted."""
        self._wish.set()

    def look(self) -> None:
        """Backends came: their switches may have been turned before."""
        self._switched = True
        self._wish.set()

    def _hear(self, change: Change) -> None:
        for event in change.events:
            if type(event) is RecordChanged and event.kind == SWITCH:
                self.look()

    async def _work(self) -> None:
        while True:
            await self._wish.wait()
            await asyncio.sleep(0 if self._switched else _TOGETHER)
            self._wish.clear()
            try:
                if self._switched:
                    self._switched = False
                    await self._read_switches()
                    self._on_switch()
                await self._post()
            except StoreClosed:
                return
            except InferqError as error:
                log.warning("board.not_posted", extra={"error": str(error)})
                await asyncio.sleep(1.0)
                self._wish.set()

    async def _read_switches(self) -> None:
        switches: dict[str, Switch] = {}
        for record in await self._store.records(SWITCH):
            try:
                switches[record.id] = msgspec.json.decode(record.body, type=Switch)
            except msgspec.DecodeError as error:
                log.warning("board.unreadable_switch", extra={"backend": record.id, "error": str(error)})
        for backend in self._backends:
            if backend.turn(switches.get(backend.name)):
                backend.since = self._clock.read().wall

    def notice(self) -> Notice:
        """How this process stands this moment."""
        now, loop_now = self._clock.read(), self._loop.time()
        views = tuple(backend.view(now, loop_now) for backend in self._backends)
        rules = self._backends.rules
        return Notice(
            worker=self._store.instance,
            slots=self.slots,
            backends=views,
            overflows=rules.policy == "overflow",
            fallback=rules.fallback_to_local,
        )

    async def _post(self) -> None:
        now = self._clock.read()
        views = tuple(self._shown(view) for view in self.notice().backends)
        await self._tell(views)
        if self._name and self._name != self._store.instance:
            await self._store.drop_record(NOTICE, self._name, now, quiet=True)
            self._posted = b""
        self._name = self._store.instance
        body = msgspec.json.encode(msgspec.structs.replace(self.notice(), worker=self._name, backends=views))
        if body != self._posted:
            self._posted = body
            await self._store.put_record(RecordPut(NOTICE, self._name, body, quiet=True), now)

    @staticmethod
    def _shown(view: BackendView) -> BackendView:
        """Without what changes with every task: only who drains a backend waits for its last one."""
        return view if view.state == "draining" else msgspec.structs.replace(view, busy=0)

    async def _tell(self, views: tuple[BackendView, ...]) -> None:
        news = [view for view in views if self._told.get(view.name, "up") != view.state]
        self._told = {view.name: view.state for view in views}
        if news:
            worker = self._store.instance
            await self._store.tell([BackendChanged(0, 0, view.name, view.state, view.reason, worker) for view in news], self._clock.read())

    async def _sweep(self) -> None:
        """Notices of instances that are gone say nothing any more."""
        alive = frozenset((await self._store.stats()).names)
        for record in await self._store.records(NOTICE):
            if record.id not in alive:
                await self._store.drop_record(NOTICE, record.id, self._clock.read(), quiet=True)
