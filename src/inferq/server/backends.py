"""Backends over HTTP: how they stand, and the switches that every process obeys."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from inferq.access import check_model, require_everything
from inferq.backend import BackendInfo
from inferq.door.backends import Held, Tested
from inferq.errors import Conflict, InvalidTask, RecordNotFound, WaitTimeout
from inferq.server.call import Call, Reply
from inferq.server.route import Route, route
from inferq.wire.native import Listing, ReasonBody


@route("GET", "/api/backends", role="read", returns={200: Listing[BackendInfo]})
async def list_(call: Call) -> Reply:
    """List backends by name: state, slots, busy, breakers, models, and how much each has completed."""
    return Reply(Listing(await call.queue.backends.list()))


@route("GET", "/api/backends/{name}", role="read", returns={200: BackendInfo}, errors=(RecordNotFound,))
async def show(call: Call) -> Reply:
    """Show a backend."""
    return Reply(await call.queue.backends.get(call.path["name"]))


@route(
    "POST",
    "/api/backends/{name}/drain",
    role="operator",
    body=ReasonBody,
    optional=True,
    returns={200: BackendInfo},
    errors=(RecordNotFound, InvalidTask),
)
async def drain(call: Call) -> Reply:
    """Give a backend no more tasks. Running ones go on: it is drained when `busy` is 0."""
    require_everything(call.principal)
    return Reply(await call.queue.backends.drain(call.path["name"], reason=call.body.reason))


@route(
    "POST",
    "/api/backends/{name}/disable",
    role="operator",
    body=ReasonBody,
    optional=True,
    returns={200: BackendInfo},
    errors=(RecordNotFound, InvalidTask),
)
async def disable(call: Call) -> Reply:
    """Give a backend no more tasks until it is enabled."""
    require_everything(call.principal)
    return Reply(await call.queue.backends.disable(call.path["name"], reason=call.body.reason))


@route("POST", "/api/backends/{name}/enable", role="operator", returns={200: BackendInfo}, errors=(RecordNotFound,))
async def enable(call: Call) -> Reply:
    """Undo drain and disable."""
    require_everything(call.principal)
    return Reply(await call.queue.backends.enable(call.path["name"]))


@route("POST", "/api/backends/{name}/test", role="operator", returns={200: Tested}, errors=(RecordNotFound,))
async def test(call: Call) -> Reply:
    """Ask a backend now how it is. The answer says whether it works; the status is 200 either way."""
    require_everything(call.principal)
    return Reply(await call.queue.backends.test(call.path["name"]))


class HoldBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /api/backends/{name}/load and /unload. `keep`: seconds without a task after which it may go (Ollama only)."""

    model: Annotated[str, Meta(min_length=1, max_length=500)]
    keep: Annotated[float, Meta(ge=0, le=10**9)] | None = None
    timeout: Annotated[float, Meta(gt=0, le=3600)] = 600.0


_HELD: Final = (RecordNotFound, InvalidTask, Conflict, WaitTimeout)


@route("POST", "/api/backends/{name}/load", role="operator", body=HoldBody, returns={200: Held}, errors=_HELD)
async def load(call: Call) -> Reply:
    """Bring a model into a backend's memory, and answer when it is there. A backend that cannot is a conflict with the reason."""
    require_everything(call.principal)
    body: HoldBody = call.body
    check_model(call.principal, body.model)
    loading = call.queue.backends.load(call.path["name"], body.model, keep=body.keep, timeout=body.timeout)
    return Reply(await call.until_gone(loading))


@route("POST", "/api/backends/{name}/unload", role="operator", body=HoldBody, returns={200: Held}, errors=_HELD)
async def unload(call: Call) -> Reply:
    """Take a model out of a backend's memory."""
    require_everything(call.principal)
    body: HoldBody = call.body
    check_model(call.principal, body.model)
    return Reply(await call.until_gone(call.queue.backends.unload(call.path["name"], body.model, timeout=body.timeout)))


ROUTES: Final[list[Route]] = [list_, show, drain, disable, enable, test, load, unload]
