"""One follower of the event log for all who listen: each event is read and encoded once, and a slow listener costs nobody anything."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from inferq.errors import InvalidRequest, StoreClosed
from inferq.events import Event, type_filter

if TYPE_CHECKING:
    from inferq.queue import AsyncQueue

log: Final = logging.getLogger("inferq.server")

_KEPT: Final = 8192
"""Newest events that are held in memory; who is further behind reads the log."""
_PAGE: Final = 500
_LONGEST_GATHER: Final = 0.25
_GATHER_EACH: Final = 0.0001
"""Seconds for each listener that events are gathered before all are woken: a thousand listeners are woken ten times a second."""
_FILTERS: Final = 256

_encode: Final = msgspec.json.Encoder().encode


class Frame(NamedTuple):
    """One event, encoded."""

    position: int
    type: str
    json: bytes


class Block(NamedTuple):
    """Events in order, joined as the listener's wire wants them; `place` is the position to go on after."""

    place: int
    content: bytes
    behind: bool = False
    """The listener was too slow for what is held in memory: what follows comes from the log."""


Join = Callable[[Sequence[Frame]], bytes]


def as_sse(frames: Sequence[Frame]) -> bytes:
    """Server-sent events; the id is the position."""
    return b"".join(b"id: %d\ndata: %b\n\n" % (frame.position, frame.json) for frame in frames)


def as_items(frames: Sequence[Frame]) -> bytes:
    """The inside of a JSON list."""
    return b",".join(frame.json for frame in frames)


def as_sign(frames: Sequence[Frame]) -> bytes:
    """Only that something happened."""
    return b"." if frames else b""


class Broadcast:
    """Runs while somebody listens."""

    def __init__(self, queue: AsyncQueue, missed: Callable[[int], object] = int) -> None:
        self._queue = queue
        self._missed = missed
        """Told how many events a listener wanted that retention had removed."""
        self._ring: deque[Frame] = deque(maxlen=_KEPT)
        self._floor = 0
        self._last = 0
        self._told = 0
        self._changed: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._starting: asyncio.Future[None] | None = None
        self._waking: asyncio.TimerHandle | None = None
        self._joined: dict[tuple[int, tuple[str, ...], Join], Block] = {}
        self._filters: dict[tuple[str, ...], Callable[[str], bool]] = {}
        self.listeners = 0
        self.resynchronised = 0
        """How often a listener had to go back to the log."""

    def filter_of(self, types: Sequence[str]) -> tuple[str, ...]:
        """A checked filter of types. Raises InvalidRequest for one that fits no event."""
        key = tuple(sorted(set(types)))
        if key not in self._filters:
            if len(key) > 64:
                raise InvalidRequest("expected at most 64 types", parameter="types")
            try:
                wanted = type_filter(key)
            except ValueError as error:
                raise InvalidRequest(str(error), parameter="types") from None
            if len(self._filters) >= _FILTERS:
                self._filters.clear()
            self._filters[key] = wanted
        return key

    async def listen(self, types: tuple[str, ...], after: int | None, join: Join) -> AsyncGenerator[Block]:
        """Blocks of events after a position (None: from now on), from the log and then as they come; the first may be empty and says
        where it begins. Raises StoreClosed when the queue closes."""
        self.listeners += 1
        try:
            await self._begin()
            place = self._last if after is None else after
            ahead = place > self._last and place > await self._queue.store.last_event()
            if ahead:
                # A position of another store, or of this one before a backup was put back.
                place = self._last
            yield Block(place, b"", behind=ahead)
            following = False
            while True:
                if place < self._floor:
                    async with aclosing(self._from_log(place, types, join, behind=following)) as logged:
                        async for block in logged:
                            place = block.place
                            yield block
                following = True
                if place < self._told:
                    block = self._newest(place, types, join)
                    place = block.place
                    if block.content:
                        yield block
                else:
                    await self._change()
        finally:
            self.listeners -= 1
            if not self.listeners:
                await self._end()

    async def _from_log(self, place: int, types: tuple[str, ...], join: Join, *, behind: bool) -> AsyncGenerator[Block]:
        if behind:
            self.resynchronised += 1
        wanted = self.test_of(types)
        while place < self._floor:
            page = await self._queue.store.events(after=place, limit=_PAGE)
            # An empty page, or one that begins later: retention removed what was between.
            if gone := (page[0].position - 1 if page else self._floor) - place:
                self._missed(gone)
            place = page[-1].position if page else self._floor
            yield Block(place, join([frame_of(event) for event in page if wanted(event.type)]), behind)
            behind = False

    def _newest(self, place: int, types: tuple[str, ...], join: Join) -> Block:
        key = (place, types, join)
        block = self._joined.get(key)
        if block is None:
            wanted = self.test_of(types)
            frames = islice(self._ring, place - self._floor, self._told - self._floor)
            block = Block(self._told, join([frame for frame in frames if wanted(frame.type)]))
            self._joined[key] = block
        return block

    def test_of(self, types: tuple[str, ...]) -> Callable[[str], bool]:
        """The test that a filter from `filter_of` is."""
        return self._filters.get(types) or type_filter(types)

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    # following the log -------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        if self._task is None:
            started = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._follow(started))
            self._starting = started
        if self._starting is not None:
            await asyncio.shield(self._starting)

    async def _follow(self, started: asyncio.Future[None]) -> None:
        try:
            self._last = self._floor = self._told = await self._queue.store.last_event()
            async with aclosing(self._queue.events(after=self._last)) as events:
                started.set_result(None)
                async for event in events:
                    self._take(event)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - it belongs to those who listen
            self._fail(started, error)
        else:
            self._fail(started, StoreClosed("the queue was closed while its events were followed"))

    def _take(self, event: Event) -> None:
        if event.position != self._last + 1:
            # Retention was quicker than we: what is held before is of no use to those who want all.
            self._ring.clear()
            self._floor = event.position - 1
        elif len(self._ring) == _KEPT:
            self._floor = self._ring[0].position
        self._ring.append(frame_of(event))
        self._last = event.position
        if self._waking is None:
            gather = min(_LONGEST_GATHER, self.listeners * _GATHER_EACH)
            self._waking = asyncio.get_running_loop().call_later(gather, self._wake)

    def _wake(self) -> None:
        self._waking = None
        self._told = self._last
        self._joined.clear()
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set_result(None)

    def _fail(self, started: asyncio.Future[None], error: Exception) -> None:
        for waiting in (started, self._changed):
            if waiting is not None and not waiting.done():
                waiting.set_exception(error)
                waiting.exception()
        self._changed = asyncio.get_running_loop().create_future()
        self._changed.set_exception(error)
        self._changed.exception()

    async def _end(self) -> None:
        task, self._task = self._task, None
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        self._ring.clear()
        self._joined.clear()
        self._changed = None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def frame_of(event: Event) -> Frame:
    """An event, encoded."""
    return Frame(event.position, event.type, _encode(event))
