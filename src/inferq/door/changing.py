"""Changes of tasks that are in the queue, and of whether it runs any."""

from __future__ import annotations

from abc import abstractmethod

from inferq.door.life import Life


class Changing(Life):
    """Cancel, retry, move, delete; pause, resume, drain."""

    @abstractmethod
    async def cancel(self, *ids: str, reason: str = "") -> None:
        """Raises TaskNotFound, WrongState (of the first that had ended; the others are cancelled)."""

    @abstractmethod
    async def set_priority(self, id: str, priority: int | str) -> None:
        """Move a waiting task. Raises TaskNotFound, WrongState, InvalidTask."""

    @abstractmethod
    async def retry(self, *ids: str, priority: int | str | None = None, now: bool = False) -> None:
        """Make failed or cancelled tasks wait again, at another priority where one is given. With `now` also those that wait for their
        time (a delay, or the next attempt) are due at once. Raises TaskNotFound, WrongState, InvalidTask."""

    @abstractmethod
    async def delete(self, *ids: str) -> None:
        """Remove ended tasks with their results; there is no undo. Raises TaskNotFound, WrongState (of the first that has not ended)."""

    @abstractmethod
    async def pause(self, scope: str = "*") -> None:
        """Stop claims everywhere, of one lane such as `ollama/qwen3`, or of a model in all lanes: `*/qwen3`. Running tasks go on. Raises
        InvalidTask."""

    @abstractmethod
    async def resume(self, scope: str = "*") -> None:
        """Undo `pause` of the same scope; without one also `drain`. Raises InvalidTask."""

    @abstractmethod
    async def drain(self) -> None:
        """Take the queue out of service, in every process: `pause` of everything, and servers say on /readyz that they are not ready.

        Running tasks go on, new ones are kept and wait. `resume()` undoes it. Idempotent.
        """
