"""`queue.operations` for programs without an event loop."""

from __future__ import annotations

import builtins
from datetime import timedelta

from inferq.door.operations import OperationsDoor
from inferq.operation import Operation, Verb
from inferq.sync.group import Group


class Operations(Group[OperationsDoor]):
    """Cancel, retry, move or delete all tasks that pass a filter: an object with its progress, which outlives who asked for it."""

    def start(
        self,
        verb: Verb,
        q: str,
        *,
        priority: int | str | None = None,
        reason: str = "",
        dry_run: bool = False,
        expected: int | None = None,
        bound: int | None = None,
    ) -> Operation:
        """Begin one, and return at once; with `dry_run` only count and show examples. See `OperationsDoor.start`."""
        begun = self._asynchronous.start(verb, q, priority=priority, reason=reason, dry_run=dry_run, expected=expected, bound=bound)
        return self._queue.call(begun)

    def get(self, id: str) -> Operation:
        """How far it is. Raises RecordNotFound."""
        return self._queue.call(self._asynchronous.get(id))

    def list(self, *, limit: int = 50) -> builtins.list[Operation]:
        """The latest ones, newest first."""
        return self._queue.call(self._asynchronous.list(limit=limit))

    def stop(self, id: str) -> Operation:
        """End it after the bite it is at; what was changed stays so. Idempotent. Raises RecordNotFound."""
        return self._queue.call(self._asynchronous.stop(id))

    def wait(self, id: str, timeout: float | str | timedelta | None = None) -> Operation:
        """The operation when it is over. Raises WaitTimeout (it goes on), RecordNotFound."""
        return self._queue.call(self._asynchronous.wait(id, timeout))
