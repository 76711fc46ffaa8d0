"""Keys, tenants and the audit log over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from inferq.access import AuditEntry, Key, MadeKey, Principal, require_everything
from inferq.clock import SystemClock
from inferq.errors import Conflict, InvalidRequest, InvalidTask, RecordNotFound
from inferq.server.call import Call, Reply
from inferq.server.route import Route, route
from inferq.wire.keys import KeyBody, LimitsBody, Tenant
from inferq.wire.native import Listing

_clock: Final = SystemClock()


@route("GET", "/api/me", role="read", returns={200: Principal}, tag="keys")
async def me(call: Call) -> Reply:
    """Say whose key this is and what it covers."""
    return Reply(call.principal)


@route(
    "POST",
    "/api/keys",
    role="admin",
    body=KeyBody,
    returns={201: MadeKey},
    errors=(InvalidTask, Conflict),
    examples={"team": {"name": "team-a", "role": "submit", "max_priority": "high", "models": ["qwen3*"], "expires_in": "90d"}},
)
async def create(call: Call) -> Reply:
    """Make a key. Its secret is in this answer and nowhere else."""
    body: KeyBody = call.body
    ends = body.ends(_clock.read().wall)
    made = await call.queue.keys.create(
        body.name,
        role=body.role,
        tenant=body.tenant,
        max_priority=body.max_priority,
        models=body.models,
        executors=body.executors,
        expires=None if ends is None else datetime.fromtimestamp(ends / 1000, UTC),
    )
    return Reply(made, 201, {"location": f"{call.root}/api/keys/{made.key.id}", "cache-control": "no-store"})


@route("GET", "/api/keys", role="admin", returns={200: Listing[Key]})
async def list_(call: Call) -> Reply:
    """List all keys, revoked ones too, oldest first."""
    return Reply(Listing(await call.queue.keys.list()))


@route("GET", "/api/keys/{id}", role="admin", returns={200: Key}, errors=(RecordNotFound,))
async def show(call: Call) -> Reply:
    """Show a key, by its id or name."""
    return Reply(await call.queue.keys.get(call.path["id"]))


class ForgetQuery(msgspec.Struct, forbid_unknown_fields=True):
    forget: Annotated[bool, Meta(description="Also remove it from the list.")] = False


@route("DELETE", "/api/keys/{id}", role="admin", query=ForgetQuery, returns={200: Key}, errors=(RecordNotFound,))
async def revoke(call: Call) -> Reply:
    """Revoke a key, by its id or name. It is dead in every process at once and stays listed unless it is to be forgotten."""
    return Reply(await call.queue.keys.revoke(call.path["id"], forget=call.query.forget))


@route("GET", "/api/tenants", role="operator", returns={200: Listing[Tenant]})
async def tenants(call: Call) -> Reply:
    """List the tenants that have limits; the one without a name is the default account."""
    require_everything(call.principal)
    limits = await call.queue.keys.limits()
    return Reply(Listing([Tenant.of(name, bounds) for name, bounds in limits.items()]))


@route(
    "PUT",
    "/api/tenants/{name}",
    role="admin",
    body=LimitsBody,
    returns={200: Tenant},
    errors=(InvalidTask,),
    examples={"both": {"concurrency": 4, "max_queued": 1000}},
)
async def limit(call: Call) -> Reply:
    """Say how many tasks of a tenant may run and how many may wait at a time, over all processes."""
    return await _limit(call, call.path["name"])


@route("PUT", "/api/tenants", role="admin", body=LimitsBody, returns={200: Tenant}, errors=(InvalidTask,))
async def limit_default(call: Call) -> Reply:
    """Say the same of the default account: of tasks without a tenant."""
    return await _limit(call, "")


async def _limit(call: Call, tenant: str) -> Reply:
    body: LimitsBody = call.body
    limits = await call.queue.keys.set_limits(tenant, concurrency=body.concurrency, max_queued=body.max_queued)
    return Reply(Tenant.of(tenant, limits))


class AuditQuery(msgspec.Struct, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    after: Annotated[str, Meta(description="The `next` of the page before.")] | None = None


@route("GET", "/api/audit", role="admin", query=AuditQuery, returns={200: Listing[AuditEntry]}, tag="keys")
async def audit(call: Call) -> Reply:
    """List state-changing calls, newest first: who, what, on which things, how it ended. Never payloads."""
    query: AuditQuery = call.query
    entries = await call.queue.keys.audit(before=_number(query.after), limit=query.limit)
    return Reply(Listing(entries, str(entries[-1].number) if len(entries) == query.limit else None))


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InvalidRequest("expected the `next` of a page", parameter="after")
    return int(text)


ROUTES: Final[list[Route]] = [me, create, list_, show, revoke, tenants, limit, limit_default, audit]
