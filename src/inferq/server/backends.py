"""Backends over HTTP: how they stand, and the switches that every process obeys."""

from __future__ import annotations

from typing import Final

from inferq.access import require_everything
from inferq.backend import BackendInfo
from inferq.door.backends import Tested
from inferq.errors import InvalidTask, RecordNotFound
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


ROUTES: Final[list[Route]] = [list_, show, drain, disable, enable, test]
