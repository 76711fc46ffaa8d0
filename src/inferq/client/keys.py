"""Keys of a server, and limits of its tenants, asked over HTTP."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from datetime import datetime

from inferq.access import AuditEntry, Key, MadeKey, Role, TenantLimits
from inferq.client.transport import Transport, delete, get, post, put
from inferq.clock import Clock
from inferq.door.arguments import instant_of
from inferq.door.keys import KeysDoor
from inferq.handle import Duration
from inferq.wire.keys import Tenant
from inferq.wire.native import Listing

_PAGE = 1000


class RemoteKeys(KeysDoor):
    """Each method is a request. Making a key is never tried twice: its secret might be lost, and the name taken."""

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock

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
        body = {
            "name": name,
            "role": role,
            "tenant": tenant,
            "max_priority": max_priority,
            "models": list(models),
            "executors": list(executors),
            "expires": instant_of(expires, "expires", self._clock),
        }
        return await self._transport.ask(post("keys", json=body), MadeKey)

    async def list(self) -> builtins.list[Key]:
        return (await self._transport.ask(get("keys"), Listing[Key])).items

    async def get(self, key: str) -> Key:
        return await self._transport.ask(get("keys", key), Key)

    async def revoke(self, key: str, *, forget: bool = False) -> Key:
        return await self._transport.ask(delete("keys", key, query={"forget": forget}), Key)

    async def limits(self) -> dict[str, TenantLimits]:
        listing = await self._transport.ask(get("tenants"), Listing[Tenant])
        return {one.tenant: TenantLimits(one.concurrency, one.max_queued) for one in listing.items}

    async def set_limits(self, tenant: str, *, concurrency: int | None = None, max_queued: int | None = None) -> TenantLimits:
        # Without a name it is the default account.
        place = ("tenants", tenant) if tenant else ("tenants",)
        made = await self._transport.ask(put(*place, json={"concurrency": concurrency, "max_queued": max_queued}), Tenant)
        return TenantLimits(made.concurrency, made.max_queued)

    async def audit(self, *, before: int | None = None, limit: int = 100) -> builtins.list[AuditEntry]:
        found: builtins.list[AuditEntry] = []
        after = None if before is None else str(before)
        while len(found) < limit:
            query = {"limit": min(_PAGE, limit - len(found)), "after": after}
            page = await self._transport.ask(get("audit", query=query), Listing[AuditEntry])
            found += page.items
            after = page.next
            if after is None:
                break
        return found
