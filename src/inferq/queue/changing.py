"""Changes of the tasks of a queue in this process, carried out by its store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from inferq.door import checked_ids
from inferq.errors import InvalidTask, WrongState
from inferq.given import checked_priority, checked_text
from inferq.queue.opened import Opened
from inferq.task import DRAIN


class Changing(Opened):
    """Each is one transaction of the store; engines hear of it by the commit."""

    async def cancel(self, *ids: str, reason: str = "") -> None:
        """Raises TaskNotFound, WrongState (of the first that had ended; the others are cancelled)."""
        _raise_first(await self.store.cancel(checked_ids(ids), self._clock.read(), reason=checked_text(reason, "reason", empty=True)))

    async def set_priority(self, id: str, priority: int | str) -> None:
        """Move a waiting task. Raises TaskNotFound, WrongState, InvalidTask."""
        _raise_first(await self.store.reprioritize(checked_ids([id]), checked_priority(priority), self._clock.read()))

    async def retry(self, *ids: str, priority: int | str | None = None, now: bool = False) -> None:
        """Make failed or cancelled tasks wait again. Raises TaskNotFound, WrongState, InvalidTask."""
        level = None if priority is None else checked_priority(priority)
        _raise_first(await self.store.retry(checked_ids(ids), self._clock.read(), priority=level, due=now))

    async def delete(self, *ids: str) -> None:
        """Remove ended tasks with their results; there is no undo. Raises TaskNotFound, WrongState (of the first that has not ended)."""
        _raise_first(await self.store.delete(checked_ids(ids), self._clock.read()))

    async def pause(self, scope: str = "*") -> None:
        """Stop claims everywhere, or of one lane such as `ollama/qwen3`. Running tasks go on. Raises InvalidTask."""
        await self.store.pause(_scope(scope), self._clock.read())

    async def resume(self, scope: str = "*") -> None:
        """Undo `pause` of the same scope; without one also `drain`. Raises InvalidTask."""
        now = self._clock.read()
        # Asked together they are one commit.
        await asyncio.gather(*(self.store.resume(one, now) for one in ((scope, DRAIN) if scope == "*" else (_scope(scope),))))

    async def drain(self) -> None:
        """Take the queue out of service, in every process: nothing starts, and servers say on /readyz that they are not ready."""
        now = self._clock.read()
        await asyncio.gather(*(self.store.pause(one, now) for one in ("*", DRAIN)))


def _scope(given: str) -> str:
    """A scope that may be paused by its name. Raises InvalidTask."""
    if given == DRAIN:
        raise InvalidTask(f"expected * or a lane such as ollama/llama3.2, got {given!r}; queue.drain() drains", field="scope")
    return checked_text(given, "scope")


def _raise_first(errors: Sequence[WrongState | None]) -> None:
    for error in errors:
        if error is not None:
            raise error
