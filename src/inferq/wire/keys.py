"""What the server and its clients say about keys, tenants and the audit log. Pure.

Shared as they are: `Key`, `MadeKey`, `Principal`, `AuditEntry` of `inferq.access`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from inferq.access import Role, TenantLimits
from inferq.errors import InvalidTask
from inferq.given import checked_instant, checked_seconds
from inferq.wire.native import Duration, Instant, Priority

Pattern = Annotated[str, Meta(min_length=1, max_length=200, description="A name, or the beginning of one with * at its end")]
Name = Annotated[str, Meta(min_length=1, max_length=100)]


class KeyBody(msgspec.Struct, forbid_unknown_fields=True):
    """A key to make. `expires_in` counts from now and excludes `expires`."""

    name: Name
    role: Role = "submit"
    tenant: Name | None = None
    max_priority: Priority | None = None
    models: list[Pattern] = []
    executors: list[Pattern] = []
    expires: Instant | None = None
    expires_in: Duration | None = None

    def ends(self, now: int) -> int | None:
        """When it expires, in Unix milliseconds. Raises InvalidTask."""
        if self.expires is not None and self.expires_in is not None:
            raise InvalidTask("expected expires or expires_in, got both", field="expires_in")
        if self.expires_in is not None:
            return now + round(checked_seconds(self.expires_in, "expires_in") * 1000)
        return checked_instant(self.expires, "expires")


class LimitsBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a tenant may have at a time; null (or left out) is any number."""

    concurrency: Annotated[int, Meta(ge=1, lt=2**53)] | None = None
    max_queued: Annotated[int, Meta(ge=0, lt=2**53)] | None = None


class Tenant(msgspec.Struct, omit_defaults=True):
    """A tenant that has limits."""

    tenant: str
    concurrency: int | None = None
    max_queued: int | None = None

    @classmethod
    def of(cls, name: str, limits: TenantLimits) -> Tenant:
        return cls(name, limits.concurrency, limits.max_queued)
