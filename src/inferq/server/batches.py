"""Batches over HTTP: files that are read while they come, results that are sent while they are read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from inferq.access import authorise_again, check_priority, is_bounded, sees
from inferq.batch import Batch, BatchFailures, BatchItem, Form
from inferq.door.batches import LoadOptions
from inferq.errors import (
    AmbiguousId,
    BatchExists,
    BatchInvalid,
    BatchNotFound,
    DuplicateKey,
    InvalidTask,
    QueueFull,
    RateLimited,
    WaitTimeout,
    WrongState,
)
from inferq.given import checked_priority
from inferq.queue.batches import LocalBatches
from inferq.server.call import Call, Reply, Streamed
from inferq.server.route import Lines, Ndjson, Route, route
from inferq.task import State, Submission
from inferq.wire.batches import Added, BatchBody, BatchView, Counted, LoadQuery, LoadView, RetryBody, SealBody, batch_view
from inferq.wire.native import Listing, PriorityBody, ReasonBody

_FOUND: Final = (BatchNotFound, AmbiguousId)
_LOAD_ERRORS: Final = (InvalidTask, BatchInvalid, BatchExists, WrongState, QueueFull, RateLimited, DuplicateKey)
_NDJSON: Final = "application/x-ndjson"
_LINES_A_PIECE: Final = 64
After = Annotated[int, Meta(ge=0, lt=2**53, description="Only lines after this number.")]


class ListQuery(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None
    unfinished: bool = False
    tenant: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    after: Annotated[str, Meta(max_length=200, description="The `next` of the page before.")] | None = None


class WaitQuery(msgspec.Struct, forbid_unknown_fields=True):
    wait: Annotated[float, Meta(ge=0, le=300, description="Seconds to wait for its end, within `server.max_wait`.")] = 0.0


class AddQuery(msgspec.Struct, forbid_unknown_fields=True):
    first: Annotated[int, Meta(ge=1, lt=2**53, description="Number of the first line: sent again, lines are kept once.")] | None = None
    key: str | None = None


class ItemsQuery(msgspec.Struct, forbid_unknown_fields=True):
    after: After = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    state: list[State] = []
    results: bool = True


class ResultsQuery(msgspec.Struct, forbid_unknown_fields=True):
    after: After = 0
    follow: bool = False


def _batches(call: Call) -> LocalBatches:
    found = call.queue.batches
    assert isinstance(found, LocalBatches)  # noqa: S101 - narrows the type: a server's queue is local
    return found


async def _batch(call: Call) -> Batch:
    """The batch of the path, where it exists for this caller."""
    name = call.path["id"]
    found = await _batches(call).get(name, tenant=call.principal.tenant)
    if not sees(call.principal, found.tenant):
        raise BatchNotFound(f"expected the id or the name of a batch, got {name!r}: no batch has it (it may have been pruned)")
    return found


def _allow(call: Call) -> Callable[[Submission], Submission]:
    return call.authorise


@route("GET", "/api/batches", role="read", query=ListQuery, returns={200: Listing[BatchView]})
async def list_(call: Call) -> Reply:
    """List batches, newest first."""
    query: ListQuery = call.query
    tenant = query.tenant if call.principal.tenant is None else call.principal.tenant
    found = await _batches(call).list(name=query.name, unfinished=query.unfinished, tenant=tenant, after=query.after, limit=query.limit)
    following = found[-1].id if len(found) == query.limit else None
    return Reply(Listing([batch_view(one) for one in found], following))


@route(
    "POST",
    "/api/batches",
    role="submit",
    body=BatchBody,
    optional=True,
    returns={201: BatchView},
    errors=(InvalidTask, BatchExists),
    examples={"named": {"name": "nightly"}},
)
async def create(call: Call) -> Reply:
    """Create a batch that takes lines until it is sealed."""
    body: BatchBody = call.body
    made = await _batches(call).create_for(body.name, body.metadata, tenant=call.principal.tenant or "")
    return Reply(batch_view(made), 201, _location(call, made))


def _location(call: Call, made: Batch) -> dict[str, str]:
    return {"location": f"{call.root}/api/batches/{made.id}"}


@route("POST", "/api/batches/import", role="submit", body=Lines, query=LoadQuery, returns={201: LoadView}, errors=_LOAD_ERRORS)
async def load(call: Call) -> Reply:
    """Make a batch of a file: JSON lines (or a JSON array) of any size. It is checked to its end before anything is kept; wrong lines are
    listed in the problem's `errors`, as `/line/field`. With `resume` only lines that an earlier import does not have are added."""
    query: LoadQuery = call.query
    options = LoadOptions(
        name=query.name,
        source=query.source,
        resume=query.resume,
        skip_errors=query.skip_errors,
        max_errors=query.max_errors,
        seal=query.seal,
        metadata=query.own(),
        tenant=call.principal.tenant or "",
    )
    loaded = await _batches(call).load(call.body, query.form(), options, allow=_allow(call))
    made = LoadView(batch_view(loaded.batch), loaded.added, loaded.skipped, loaded.wrong, loaded.errors)
    return Reply(made, 201, _location(call, loaded.batch))


@route("GET", "/api/batches/{id}", role="read", query=WaitQuery, returns={200: BatchView}, errors=_FOUND)
async def show(call: Call) -> Reply:
    """Show a batch, by its id, the beginning of that, or its name; with `wait` when it is finished, or as it stands after that time."""
    found = await _batch(call)
    wait = min(call.query.wait, call.app.settings.max_wait)
    if wait and not found.ended:
        try:
            found = await call.until_gone(call.queue.batches.wait(found.id, timeout=wait))
        except WaitTimeout:
            found = await _batch(call)
    return Reply(batch_view(found))


@route("DELETE", "/api/batches/{id}", role="submit", returns={204: None}, errors=(*_FOUND, WrongState))
async def delete(call: Call) -> Reply:
    """Remove a batch with its tasks and results. Refused while some wait or run."""
    await call.queue.batches.delete((await _batch(call)).id)
    return Reply(None, 204)


@route(
    "POST",
    "/api/batches/{id}/tasks",
    role="submit",
    body=Lines,
    query=AddQuery,
    returns={200: Added},
    errors=(*_FOUND, InvalidTask, BatchInvalid, WrongState, QueueFull, RateLimited, DuplicateKey),
)
async def add(call: Call) -> Reply:
    """Add lines to an open batch. All lines of a request are checked first; with `first` it may be sent again without harm."""
    query: AddQuery = call.query
    found = await _batch(call)
    form = Form(key=query.key)
    added = await _batches(call).add_lines(found.id, call.body, form, first=query.first, allow=_allow(call), needed=True)
    return Reply(Added(added))


@route(
    "POST",
    "/api/batches/{id}/seal",
    role="submit",
    body=SealBody,
    optional=True,
    returns={200: BatchView},
    errors=(*_FOUND, WrongState),
)
async def seal(call: Call) -> Reply:
    """Say that a batch has all its lines; when they have ended it is finished."""
    return Reply(batch_view(await call.queue.batches.seal((await _batch(call)).id, sealed=call.body.sealed)))


@route("POST", "/api/batches/{id}/pause", role="submit", returns={200: BatchView}, errors=(*_FOUND, WrongState))
async def pause(call: Call) -> Reply:
    """Hold a batch's waiting tasks. Running ones go on, deadlines too."""
    return await _changed(call, call.queue.batches.pause)


@route("POST", "/api/batches/{id}/resume", role="submit", returns={200: BatchView}, errors=_FOUND)
async def resume(call: Call) -> Reply:
    """Let a batch's held tasks go on, each at its old place."""
    return await _changed(call, call.queue.batches.resume)


async def _changed(call: Call, change: Callable[[str], Awaitable[Batch]]) -> Reply:
    return Reply(batch_view(await change((await _batch(call)).id)))


@route("POST", "/api/batches/{id}/cancel", role="submit", body=ReasonBody, optional=True, returns={200: BatchView}, errors=_FOUND)
async def cancel(call: Call) -> Reply:
    """Cancel what has not ended; it takes no more lines."""
    return Reply(batch_view(await call.queue.batches.cancel((await _batch(call)).id, reason=call.body.reason)))


@route(
    "POST",
    "/api/batches/{id}/retry",
    role="submit",
    body=RetryBody,
    optional=True,
    returns={200: Counted},
    errors=_FOUND,
    examples={"timeouts": {"only": ["timeout"]}},
)
async def retry(call: Call) -> Reply:
    """Make a batch's failed tasks again."""
    body: RetryBody = call.body
    found = await _batch(call)
    if is_bounded(call.principal):
        await _check_again(call, f"batch:{found.id} state:failed{',cancelled' if body.cancelled else ''}")
    count = await call.queue.batches.retry_failed(found.id, only=body.only, cancelled=body.cancelled)
    return Reply(Counted(count))


async def _check_again(call: Call, q: str) -> None:
    """Raises Forbidden, before anything is changed, where one of these tasks is not covered by the caller's key."""
    after = None
    while True:
        page = await call.queue.list(q, limit=1000, after=after)
        for task in page.tasks:
            authorise_again(call.principal, task)
        after = page.after
        if after is None:
            return


@route(
    "POST", "/api/batches/{id}/priority", role="submit", body=PriorityBody, returns={200: Counted}, errors=(*_FOUND, InvalidTask),
    examples={"low": {"priority": "low"}},
)  # fmt: skip
async def set_priority(call: Call) -> Reply:
    """Move what waits to another priority."""
    number = checked_priority(call.body.priority)
    check_priority(call.principal, number)
    return Reply(Counted(await call.queue.batches.set_priority((await _batch(call)).id, number)))


@route("GET", "/api/batches/{id}/items", role="read", query=ItemsQuery, returns={200: Listing[BatchItem]}, errors=_FOUND)
async def items(call: Call) -> Reply:
    """A page of a batch's lines, in input order, with what became of them so far."""
    query: ItemsQuery = call.query
    found = await call.queue.batches.items(
        (await _batch(call)).id, after=query.after, limit=query.limit, states=query.state, results=query.results
    )
    return Reply(Listing([item.shown() for item in found], str(found[-1].line) if len(found) == query.limit else None))


@route("GET", "/api/batches/{id}/results", role="read", query=ResultsQuery, returns={200: Ndjson(BatchItem)}, errors=_FOUND)
async def results(call: Call) -> Reply:
    """Ended lines of a batch as JSON lines, in input order; with `follow` as they come, to the end of the batch."""
    query: ResultsQuery = call.query
    found = await _batch(call)
    return Reply(Streamed(_written(call, found.id, query), _NDJSON))


async def _written(call: Call, id: str, query: ResultsQuery) -> AsyncIterator[bytes]:
    lines: list[bytes] = []
    async for item in call.queue.batches.results(id, follow=query.follow, after=query.after):
        lines.append(item.to_json() + b"\n")
        # Who follows sees each at once; who collects gets some at a time.
        if query.follow or len(lines) == _LINES_A_PIECE:
            yield b"".join(lines)
            lines = []
    if lines:
        yield b"".join(lines)


@route("GET", "/api/batches/{id}/errors", role="read", returns={200: Listing[BatchFailures]}, errors=_FOUND)
async def errors(call: Call) -> Reply:
    """Failed tasks of a batch by code, the most frequent first, with an example of each."""
    return Reply(Listing(list(await call.queue.batches.failures((await _batch(call)).id))))


ROUTES: Final[list[Route]] = [
    list_, create, load, show, delete, add, seal, pause, resume, cancel, retry, set_priority, items, results, errors,
]  # fmt: skip
