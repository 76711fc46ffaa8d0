"""Whether who holds a stream open still may: a key that was revoked or has come to its end ends its streams and sockets too."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from inferq.errors import InferqError, Unauthenticated
from inferq.events import Event
from inferq.server.call import Call
from inferq.server.guard import by_key

if TYPE_CHECKING:
    from inferq.server.app import App

_EVERY: Final = 5.0
"""Seconds between two looks: a key's end comes without an event. A revoked one is heard of at once."""


class Standing:
    """One watch for all streams of an application; it runs while there are any."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._held: dict[int, tuple[Call, asyncio.Event]] = {}
        self._changed = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def lost(self, call: Call) -> None:
        """Returns when the caller would no longer be let in; never where the program itself says who is."""
        void = asyncio.Event()
        if self._app.authenticate is by_key:
            self._held[id(call)] = (call, void)
            if self._watching is None or self._watching.done():
                self._watching = asyncio.create_task(self._watch())
        try:
            await void.wait()
        finally:
            self._held.pop(id(call), None)
            if not self._held and self._watching is not None:
                self._watching.cancel()
                self._watching = None

    def _hear(self, _: Event) -> None:
        self._changed.set()

    async def _watch(self) -> None:
        stop = self._app.queue.subscribe(self._hear, "record.changed")
        try:
            while True:
                # One after the other: the first to ask after a change reads the keys for all.
                for call, void in tuple(self._held.values()):
                    if not await self._admits(call):
                        void.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(_EVERY, self._app.settings.heartbeat)):
                        await self._changed.wait()
                self._changed.clear()
        finally:
            stop()

    async def _admits(self, call: Call) -> bool:
        try:
            await self._app.authenticate(call)
        except Unauthenticated:
            return False
        except InferqError:
            return True  # a store that cannot be read now says nothing about the key
        return True


def standing(app: App) -> Standing:
    """The application's one watch."""
    found = app.parts.get("standing")
    if found is None:
        found = app.parts["standing"] = Standing(app)
    assert isinstance(found, Standing)  # noqa: S101 - narrows the type
    return found
