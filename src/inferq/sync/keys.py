"""`queue.keys` for programs without an event loop."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from datetime import datetime

from inferq.access import AuditEntry, Key, MadeKey, Role, TenantLimits
from inferq.door.keys import KeysDoor
from inferq.handle import Duration
from inferq.sync.group import Group


class Keys(Group[KeysDoor]):
    """Keys of a server, and limits of tenants. Names and ids are equally good where one key is meant."""

    def create(
        self,
        name: str,
        *,
        role: Role = "submit",
        tenant: str | None = None,
        max_priority: int | str | None = None,
        models: Sequence[str] = (),
        executors: Sequence[str] = (),
        expires: datetime | Duration | None = None,
    ) -> MadeKey:
        """Make a key; its secret is in the answer and nowhere else. Raises InvalidTask, Conflict when the name is taken."""
        made = self._asynchronous.create(
            name, role=role, tenant=tenant, max_priority=max_priority, models=models, executors=executors, expires=expires
        )
        return self._queue.call(made)

    def list(self) -> builtins.list[Key]:
        """All keys, revoked ones too, oldest first."""
        return self._queue.call(self._asynchronous.list())

    def get(self, key: str) -> Key:
        """Raises RecordNotFound."""
        return self._queue.call(self._asynchronous.get(key))

    def revoke(self, key: str, *, forget: bool = False) -> Key:
        """End a key at once, in every process. Idempotent. Raises RecordNotFound."""
        return self._queue.call(self._asynchronous.revoke(key, forget=forget))

    def limits(self) -> dict[str, TenantLimits]:
        """Limits of the tenants that have some."""
        return self._queue.call(self._asynchronous.limits())

    def set_limits(self, tenant: str, *, concurrency: int | None = None, max_queued: int | None = None) -> TenantLimits:
        """How many tasks of a tenant may run and how many wait at a time, over all processes, from now on. Raises InvalidTask."""
        return self._queue.call(self._asynchronous.set_limits(tenant, concurrency=concurrency, max_queued=max_queued))

    def audit(self, *, before: int | None = None, limit: int = 100) -> builtins.list[AuditEntry]:
        """State-changing calls of servers on this store, newest first; those before the entry of that number."""
        return self._queue.call(self._asynchronous.audit(before=before, limit=limit))
