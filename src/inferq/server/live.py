"""What happens, while it happens: the event log and the streams of tasks as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from inferq.access import require_everything, require_visible
from inferq.errors import InvalidRequest, TaskNotFound
from inferq.events import Event
from inferq.server.broadcast import Broadcast, as_sse
from inferq.server.call import Call, Reply, Streamed
from inferq.server.route import Route, Sse, route
from inferq.server.stream import SSE
from inferq.store import LoggedChunk, Position
from inferq.wire.native import PLACE_PATTERN, ChunkView, EventPage, position_from, position_text

if TYPE_CHECKING:
    from inferq.server.app import App

_encode: Final = msgspec.json.Encoder().encode
_RETRY: Final = b"retry: 1000\n"


class EventsQuery(msgspec.Struct, forbid_unknown_fields=True):
    types: Annotated[list[str], Meta(description="Event types or patterns such as `task.*`; none: all.")] = []
    after: (
        Annotated[int, Meta(ge=0, lt=2**53, description="Position to go on after; none: from now on (a page: from the first).")] | None
    ) = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="Of a page: at most this many events are looked at.")] = 100


class StreamQuery(msgspec.Struct, forbid_unknown_fields=True):
    after: Annotated[str, Meta(pattern=PLACE_PATTERN, description="Place to go on after, `attempt-index`.")] | None = None


@route(
    "GET",
    "/api/events",
    role="read",
    query=EventsQuery,
    returns={200: (Sse(Event), EventPage)},
    headers=("Last-Event-ID",),
)
async def events(call: Call) -> Reply:
    """Follow what happens, as server-sent events. Each has its position in the log as id, so that a client goes on where it was
    (Last-Event-ID or `after`). Who accepts application/json but no event stream gets a page of the log instead."""
    require_everything(call.principal)
    query: EventsQuery = call.query
    types = broadcast(call.app).filter_of(query.types)
    if _wants_page(call):
        return Reply(await _page(call, query, types))
    after = query.after
    last = call.header_text("Last-Event-ID")
    if last:
        if not (last.isascii() and last.isdecimal() and len(last) < 19):
            raise InvalidRequest("expected the position of an event", parameter="Last-Event-ID")
        after = int(last)
    return Reply(Streamed(_events(call.app, types, after), SSE))


def _wants_page(call: Call) -> bool:
    said = call.raw_headers.get(b"accept", b"").lower()
    return b"application/json" in said and b"text/event-stream" not in said


async def _page(call: Call, query: EventsQuery, types: tuple[str, ...]) -> EventPage:
    page = await call.queue.store.events(after=query.after or 0, limit=query.limit)
    wanted = broadcast(call.app).test_of(types)
    more = str(page[-1].position) if len(page) == query.limit else None
    return EventPage([event for event in page if wanted(event.type)], more)


async def _events(app: App, types: tuple[str, ...], after: int | None) -> AsyncIterator[bytes]:
    async with aclosing(broadcast(app).listen(types, after, as_sse)) as blocks:
        first = await anext(blocks)
        # An id without data: whoever is cut before the first event still knows where to go on.
        yield b"%bid: %d\n\n" % (_RETRY, first.place)
        async for block in blocks:
            if block.behind:
                yield b": behind\n\n"
            if block.content:
                yield block.content


def broadcast(app: App) -> Broadcast:
    """The application's one follower of the event log."""
    found = app.parts.get("broadcast")
    if found is None:
        found = app.parts["broadcast"] = Broadcast(app.queue, missed=lambda count: app.metrics.missed.add(by=count))
    assert isinstance(found, Broadcast)  # noqa: S101 - narrows the type
    return found


@route(
    "GET",
    "/api/tasks/{id}/stream",
    role="read",
    query=StreamQuery,
    returns={200: Sse(ChunkView), 204: None},
    errors=(TaskNotFound,),
    headers=("Last-Event-ID",),
)
async def stream(call: Call) -> Reply:
    """Follow a task's answer as server-sent events: what is logged first, then what comes, up to and with the record `end`. The id of
    each is `attempt-index`; a client goes on where it was (Last-Event-ID or `after`). 204 when the end was seen already."""
    task = await call.queue.get(call.path["id"])
    require_visible(call.principal, task.id, task.flow.tenant)
    after = Position()
    last = call.header_text("Last-Event-ID")
    if last or call.query.after:
        try:
            after = position_from(last or call.query.after)
        except ValueError as error:
            raise InvalidRequest(str(error), parameter="Last-Event-ID" if last else "after") from None
        if task.state.is_final and not await call.queue.store.chunks(task.id, after=after, limit=1):
            return Reply(None, 204)
    return Reply(Streamed(_chunks(call, task.id, after), SSE))


async def _chunks(call: Call, id: str, after: Position) -> AsyncIterator[bytes]:
    async with aclosing(call.queue.stream(id, after=after)) as logged:
        yield b"%bid: %b\n\n" % (_RETRY, position_text(after).encode())
        async for entry in logged:
            yield chunk_sse(entry)


def chunk_sse(entry: LoggedChunk) -> bytes:
    """A record of a stream as one server-sent event."""
    place = entry.position
    return b"id: %d-%d\ndata: %b\n\n" % (place.attempt, place.index, chunk_json(entry))


def chunk_json(entry: LoggedChunk) -> bytes:
    """A record of a stream as JSON."""
    chunk = entry.chunk
    return _encode(ChunkView(chunk.kind, chunk.text, chunk.data))


ROUTES: Final[list[Route]] = [events, stream]
