"""`queue.backends` for programs without an event loop."""

from __future__ import annotations

import builtins

from inferq.backend import BackendInfo
from inferq.door.backends import BackendsDoor, Held, Tested
from inferq.handle import Duration
from inferq.sync.group import Group


class Backends(Group[BackendsDoor]):
    """See where tasks run, and keep them away from there."""

    def list(self) -> builtins.list[BackendInfo]:
        """Every backend that is configured here or that a worker has, by name."""
        return self._queue.call(self._asynchronous.list())

    def get(self, name: str) -> BackendInfo:
        """Raises RecordNotFound."""
        return self._queue.call(self._asynchronous.get(name))

    def test(self, name: str) -> Tested:
        """Ask it now how it is, and for its models. Raises RecordNotFound."""
        return self._queue.call(self._asynchronous.test(name))

    def load(self, name: str, model: str, *, keep: Duration | None = None, timeout: Duration = 600.0) -> Held:
        """Bring a model into the backend's memory and return when it is there. See `BackendsDoor.load`."""
        return self._queue.call(self._asynchronous.load(name, model, keep=keep, timeout=timeout))

    def unload(self, name: str, model: str, *, timeout: Duration = 60.0) -> Held:
        """Take a model out of the backend's memory. Raises RecordNotFound, WaitTimeout, Conflict."""
        return self._queue.call(self._asynchronous.unload(name, model, timeout=timeout))

    def enable(self, name: str) -> BackendInfo:
        """Undo `drain` and `disable`. Idempotent. Raises RecordNotFound."""
        return self._queue.call(self._asynchronous.enable(name))

    def disable(self, name: str, *, reason: str = "") -> BackendInfo:
        """No more tasks for it until it is enabled again; running ones go on. Idempotent. Raises RecordNotFound."""
        return self._queue.call(self._asynchronous.disable(name, reason=reason))

    def drain(self, name: str, *, reason: str = "", wait: bool = False, timeout: Duration | None = None) -> BackendInfo:
        """No more tasks for it until it is enabled again; with `wait` returns when the last running one has ended.

        Idempotent. Raises RecordNotFound, and WaitTimeout when that takes longer than `timeout`; it goes on draining then.
        """
        return self._queue.call(self._asynchronous.drain(name, reason=reason, wait=wait, timeout=timeout))
