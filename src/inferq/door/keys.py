"""`queue.keys`: who may use a server on this store, and what tenants may have at a time."""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime

from inferq.access import AuditEntry, Key, MadeKey, Role, TenantLimits
from inferq.handle import Duration


class KeysDoor(ABC):
    """Keys of a server, and limits of tenants. Names and ids are equally good where one key is meant."""

    @abstractmethod
    async def create(
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
        """Make a key; its secret is in the answer and nowhere else. Raises InvalidTask, Conflict when the name is taken.

        A `submit` key without a tenant gets its name as tenant. `models` and `executors` are names or beginnings such as `qwen3*`.
        """

    @abstractmethod
    async def list(self) -> list[Key]:
        """All keys, revoked ones too, oldest first."""

    @abstractmethod
    async def get(self, key: str) -> Key:
        """Raises RecordNotFound."""

    @abstractmethod
    async def revoke(self, key: str, *, forget: bool = False) -> Key:
        """End a key at once, in every process; it stays listed unless `forget`. Idempotent. Raises RecordNotFound.

        A server on the loopback interface that never had a key is open to this machine; with revoked keys only it stays shut.
        """

    @abstractmethod
    async def limits(self) -> dict[str, TenantLimits]:
        """Limits of the tenants that have some."""

    @abstractmethod
    async def set_limits(self, tenant: str, *, concurrency: int | None = None, max_queued: int | None = None) -> TenantLimits:
        """How many tasks of a tenant may run and how many wait at a time, over all processes, from now on; None: any number. The empty
        name is the default account: tasks without a tenant, but no messages of webhooks.

        Running tasks go on when the limit sinks below them. Raises InvalidTask.
        """

    @abstractmethod
    async def audit(self, *, before: int | None = None, limit: int = 100) -> builtins.list[AuditEntry]:
        """State-changing calls of servers on this store, newest first; those before the entry of that number."""
