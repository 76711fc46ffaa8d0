"""Changes of tasks that are in the queue, and of whether it runs any, blocking."""

from __future__ import annotations

from inferq.sync.life import D, Life


class Changing(Life[D]):
    """Cancel, retry, move, delete; pause, resume, drain."""

    def cancel(self, *ids: str, reason: str = "") -> None:
        """Raises TaskNotFound, WrongState (of the first that had ended; the others are cancelled)."""
        self.call(self.asynchronous.cancel(*ids, reason=reason))

    def set_priority(self, id: str, priority: int | str) -> None:
        """Move a waiting task. Raises TaskNotFound, WrongState, InvalidTask."""
        self.call(self.asynchronous.set_priority(id, priority))

    def retry(self, *ids: str, priority: int | str | None = None, now: bool = False) -> None:
        """Make failed or cancelled tasks wait again. Raises TaskNotFound, WrongState, InvalidTask."""
        self.call(self.asynchronous.retry(*ids, priority=priority, now=now))

    def delete(self, *ids: str) -> None:
        """Remove ended tasks with their results; there is no undo. Raises TaskNotFound, WrongState (of the first that has not ended)."""
        self.call(self.asynchronous.delete(*ids))

    def pause(self, scope: str = "*") -> None:
        """Stop claims everywhere, or of one lane such as `ollama/qwen3`. Running tasks go on."""
        self.call(self.asynchronous.pause(scope))

    def resume(self, scope: str = "*") -> None:
        """Undo `pause` of the same scope; without one also `drain`. Raises InvalidTask."""
        self.call(self.asynchronous.resume(scope))

    def drain(self) -> None:
        """Take the queue out of service, in every process: nothing starts, and servers say on /readyz that they are not ready."""
        self.call(self.asynchronous.drain())
