"""Changes of tasks behind a server: a request for each task, several at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from inferq.client.opened import Opened, task_id
from inferq.client.transport import Request, delete, get, post
from inferq.door import checked_ids
from inferq.errors import InferqError
from inferq.given import checked_priority, checked_text

_AT_ONCE: Final = 16
"""Requests of one call that are out at the same time."""


class Changing(Opened):
    """What is harmless twice is asked again when its answer is lost."""

    async def cancel(self, *ids: str, reason: str = "") -> None:
        """Raises TaskNotFound, WrongState (of the first that had ended; the others are cancelled)."""
        body = {"reason": checked_text(reason, "reason", empty=True)}
        await self._each(ids, lambda one: post("tasks", one, "cancel", json=body))

    async def set_priority(self, id: str, priority: int | str) -> None:
        """Move a waiting task. Raises TaskNotFound, WrongState, InvalidTask."""
        body = {"priority": checked_priority(priority)}
        await self.transport.send(post("tasks", task_id(id), "priority", json=body, again=True))

    async def retry(self, *ids: str, priority: int | str | None = None, now: bool = False) -> None:
        """Make failed or cancelled tasks wait again. Raises TaskNotFound, WrongState, InvalidTask."""
        body = {"now": now} | ({} if priority is None else {"priority": checked_priority(priority)})
        await self._each(ids, lambda one: post("tasks", one, "retry", json=body))

    async def delete(self, *ids: str) -> None:
        """Remove ended tasks with their results; there is no undo. Raises TaskNotFound, WrongState (of the first that has not ended)."""
        await self._each(ids, lambda one: delete("tasks", one))

    async def _each(self, ids: tuple[str, ...], request: Callable[[str], Request]) -> None:
        """Make a change of every task; of none when one of them does not exist. The first refusal is raised when all are done."""
        once = [*dict.fromkeys(checked_ids(ids))]
        slots = asyncio.Semaphore(_AT_ONCE)

        async def bounded(asked: Request) -> InferqError | None:
            async with slots:
                try:
                    await self.transport.send(asked)
                except InferqError as error:
                    return error
            return None

        if len(once) > 1:
            for missing in await asyncio.gather(*(bounded(get("tasks", task_id(id))) for id in once)):
                if missing is not None:
                    raise missing
        for refused in await asyncio.gather(*(bounded(request(task_id(id))) for id in once)):
            if refused is not None:
                raise refused

    async def pause(self, scope: str = "*") -> None:
        """Stop claims everywhere, or of one lane such as `ollama/qwen3`. Running tasks go on. Raises InvalidTask."""
        await self.transport.send(post("pause", json={"scope": checked_text(scope, "scope")}, again=True))

    async def resume(self, scope: str = "*") -> None:
        """Undo `pause` of the same scope; without one also `drain`. Raises InvalidTask."""
        await self.transport.send(post("resume", json={"scope": checked_text(scope, "scope")}, again=True))

    async def drain(self) -> None:
        """Take the queue out of service, in every process: nothing starts, and servers say on /readyz that they are not ready."""
        await self.transport.send(post("drain", again=True))
