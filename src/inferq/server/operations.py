"""Bulk operations over HTTP: begin one with a preview, see how far it is, stop it."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from inferq.access import Principal, check_priority, is_bounded, sees
from inferq.errors import Conflict, InvalidQuery, InvalidTask, RecordNotFound, WaitTimeout
from inferq.given import checked_priority
from inferq.operation import Operation
from inferq.query import Compare, Query, Term, Text, written
from inferq.server.call import Call, Reply
from inferq.server.route import Route, route
from inferq.wire.native import Listing
from inferq.wire.operations import OperationBody

_LATEST: Final = 200


class WaitQuery(msgspec.Struct, forbid_unknown_fields=True):
    wait: Annotated[float, Meta(ge=0, le=300, description="Seconds to wait for the end, within `server.max_wait`.")] = 0.0


class OperationsQuery(msgspec.Struct, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=_LATEST)] = 50


@route(
    "POST",
    "/api/operations",
    role="operator",
    body=OperationBody,
    returns={202: Operation, 200: Operation},
    errors=(InvalidQuery, InvalidTask, Conflict),
    examples={
        "look": {"verb": "cancel", "q": "tag:nightly", "dry_run": True},
        "do": {"verb": "priority", "q": "tag:nightly state:pending", "priority": "low"},
    },
)
async def create(call: Call) -> Reply:
    """Cancel, retry, move or delete all tasks that pass a filter. It goes on by itself, also when the caller leaves or the server is
    started again. With `dry_run` only count and show examples. A retry finds only tasks that the caller's key could submit."""
    body: OperationBody = call.body
    level = None if body.priority is None else checked_priority(body.priority)
    if level is not None:
        check_priority(call.principal, level)
    made = await call.queue.operations.start(
        body.verb,
        _covered(call.principal, body.q) if body.verb == "retry" else body.q,
        priority=level,
        reason=body.reason,
        dry_run=body.dry_run,
        expected=body.expected,
        bound=body.bound,
        who=call.principal.name,
        tenant=call.principal.tenant,
        by=call.principal if is_bounded(call.principal) else None,
    )
    if body.dry_run:
        return Reply(made)
    return Reply(made, 202, {"location": f"{call.root}/api/operations/{made.id}"})


def _covered(principal: Principal, q: str) -> str:
    """A filter that finds, of what `q` finds, only tasks of priorities, executors and models that the key covers."""
    terms = [
        Term(field, tuple(Text(name.removesuffix("*"), prefix=name.endswith("*")) for name in names))
        for field, names in (("executor", principal.executors), ("model", principal.models))
        if names
    ]
    if principal.max_priority is not None:
        terms.append(Term("priority", (Compare("<=", principal.max_priority),)))
    return f"{q} {written(Query(tuple(terms)))}" if terms else q


@route("GET", "/api/operations", role="read", query=OperationsQuery, returns={200: Listing[Operation]})
async def list_(call: Call) -> Reply:
    """List the latest operations, newest first."""
    found = [one for one in await call.queue.operations.list(limit=_LATEST) if _is_visible(call, one)]
    return Reply(Listing(found[: call.query.limit], None))


@route("GET", "/api/operations/{id}", role="read", query=WaitQuery, returns={200: Operation}, errors=(RecordNotFound,))
async def show(call: Call) -> Reply:
    """Show how far an operation is. With `wait`, answer when it is over or the time is, whichever is first."""
    found = await _operation(call)
    if call.query.wait and not found.is_over:
        try:
            limit = min(call.query.wait, call.app.settings.max_wait)
            found = await call.until_gone(call.queue.operations.wait(found.id, limit))
        except WaitTimeout:
            found = await _operation(call)
    return Reply(found)


@route("POST", "/api/operations/{id}/stop", role="operator", returns={200: Operation}, errors=(RecordNotFound, Conflict))
async def stop(call: Call) -> Reply:
    """Stop an operation after the tasks it is at. What was changed stays so. Idempotent."""
    return Reply(await call.queue.operations.stop((await _operation(call)).id))


async def _operation(call: Call) -> Operation:
    """The operation of the path, where it exists for this caller."""
    found = await call.queue.operations.get(call.path["id"])
    if not _is_visible(call, found):
        raise RecordNotFound(f"expected the id of an operation, got {found.id!r}: there is none")
    return found


def _is_visible(call: Call, operation: Operation) -> bool:
    return call.principal.tenant is None or (operation.tenant is not None and sees(call.principal, operation.tenant))


ROUTES: Final[list[Route]] = [create, list_, show, stop]
