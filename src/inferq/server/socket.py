"""The WebSocket at /ws: topics, sequence numbers, resume. Nobody waits for a reader that does not read.

A client sends JSON texts told apart by `op`; `id` is its own name for a subscription:
    {"op": "subscribe", "id": "a", "topics": ["events", "stats"], "types": ["task.*"], "after": 120}
    {"op": "subscribe", "id": "b", "topics": ["stream"], "task": "0199…", "after": "1-4"}
    {"op": "unsubscribe", "id": "a"}
    {"op": "ping", "data": 1}
The server sends, each with a `seq` that counts 1, 2, 3… on the connection:
    hello {version, last_event} · subscribed {id, topics} · events {id, items, after} · behind {id} · stats {id, stats}
    chunks {id, items: [{place, kind, …}]} · end {id} · unsubscribed {id} · pong {data} · error {code, detail, id}
`after` of an `events` message is what to give to `subscribe` to go on there; `behind` says that the reader was too slow and that the
log is read again, so nothing is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

import inferq
from inferq.access import require, require_everything, require_visible
from inferq.errors import ApiError, InferqError, InvalidRequest
from inferq.server.body import invalid
from inferq.server.broadcast import Block, as_items, as_sign
from inferq.server.call import Call, Receive, Reply, Scope, Send
from inferq.server.guard import headers_of
from inferq.server.live import broadcast, chunk_json
from inferq.server.problems import problem_of
from inferq.server.route import Route
from inferq.server.standing import standing
from inferq.server.stats import stats_view
from inferq.server.stream import abort
from inferq.store import Position
from inferq.wire.native import position_from, position_text

if TYPE_CHECKING:
    from inferq.server.app import App

log: Final = logging.getLogger("inferq.server")

_MOST_SUBSCRIPTIONS: Final = 64
_MOST_MISTAKES: Final = 20
_STATS_EVERY: Final = 1.0
_CHUNKS_AT_ONCE: Final = 64
_PROTOCOL: Final = "inferq"
_KEY_PROTOCOL: Final = "inferq.key."

_encode: Final = msgspec.json.Encoder().encode
Topic = Literal["events", "stats", "stream"]
Name = Annotated[str, Meta(max_length=64)]


class Subscribe(msgspec.Struct, tag_field="op", tag="subscribe", forbid_unknown_fields=True):
    topics: Annotated[list[Topic], Meta(min_length=1, max_length=3)]
    id: Name = ""
    types: list[str] = []
    task: str | None = None
    after: Annotated[int, Meta(ge=0, lt=2**53)] | str | None = None


class Unsubscribe(msgspec.Struct, tag_field="op", tag="unsubscribe", forbid_unknown_fields=True):
    id: Name = ""


class Ping(msgspec.Struct, tag_field="op", tag="ping", forbid_unknown_fields=True):
    data: int | str | None = None


_decode: Final = msgspec.json.Decoder(Subscribe | Unsubscribe | Ping).decode


class _Dropped(Exception):
    """The reader is gone or too slow."""


async def _never(_: Call) -> Reply:
    """Never called: the route stands for the socket where a key is asked for."""
    return Reply()


ROUTE: Final = Route(_never, "GET", "/ws", role="read")


async def accept(app: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one WebSocket until it ends."""
    await receive()  # websocket.connect
    try:
        call = await _admitted(app, scope, receive)
    except Exception as error:  # noqa: BLE001 - it becomes the client's refusal
        await _refuse(error, scope, send)
        return
    protocol = _PROTOCOL if _PROTOCOL in scope.get("subprotocols", ()) else None
    await send({"type": "websocket.accept", "subprotocol": protocol})
    await _Connection(call, send).run()


async def _admitted(app: App, scope: Scope, receive: Receive) -> Call:
    raw = headers_of(scope["headers"])
    app.guard.check_host(raw.get(b"host"))
    app.guard.check_origin(raw, scope.get("scheme", "ws"))
    for offered in scope.get("subprotocols", ()):
        # A page cannot set headers of a WebSocket: it offers its key as a subprotocol.
        if offered.startswith(_KEY_PROTOCOL) and b"authorization" not in raw:
            raw[b"authorization"] = b"Bearer " + offered.removeprefix(_KEY_PROTOCOL).encode("latin-1", "replace")
    call = Call(app, ROUTE, scope, receive, {}, raw)
    call.principal = await app.authenticate(call)
    require(call.principal, "read")
    return call


async def _refuse(error: Exception, scope: Scope, send: Send) -> None:
    problem = problem_of(error, "")
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": problem.title})
        return
    headers = [(b"content-type", b"application/problem+json")]
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": _encode(problem)})


class _Connection:
    """One client: a reader of its wishes, one task a subscription, one writer at a time."""

    def __init__(self, call: Call, send: Send) -> None:
        self._call = call
        self._app = call.app
        self._send = send
        self._seq = 0
        self._writing = asyncio.Lock()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._mistakes = 0

    async def run(self) -> None:
        tasks: list[asyncio.Future[Any]] = []
        code, reason = 1000, ""
        self._app.sockets += 1
        try:
            await self._tell(b"hello", {"version": inferq.__version__, "last_event": await self._call.queue.store.last_event()})
            tasks += [
                asyncio.ensure_future(self._read()),
                asyncio.ensure_future(self._app.stopping.wait()),
                asyncio.ensure_future(standing(self._app).lost(self._call)),
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[1].done():
                code, reason = 1001, "the server stops"
            elif tasks[2].done():
                code, reason = 1008, "the key is not valid any more"
            elif tasks[0].exception() is not None:
                code, reason = 1008, "too slow or too many mistakes"
        except _Dropped:
            pass
        finally:
            self._app.sockets -= 1
            ending = [*tasks, *self._tasks.values()]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
        await self._close(code, reason)

    async def _close(self, code: int, reason: str) -> None:
        with suppress(Exception):
            async with asyncio.timeout(1.0):
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
                return
        abort(self._call.scope)

    # reading ---------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            message = await self._call.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            try:
                await self._obey(message.get("bytes") or b"" if text is None else text)
            except InferqError as error:
                self._mistakes += 1
                await self._tell(b"error", {"code": error.code, "detail": str(error)})
                if self._mistakes >= _MOST_MISTAKES:
                    raise

    async def _obey(self, text: str | bytes) -> None:
        try:
            wish = _decode(text)
        except msgspec.ValidationError as error:
            raise invalid(error, Subscribe) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"expected JSON, got: {error}") from None
        if isinstance(wish, Ping):
            await self._tell(b"pong", {"data": wish.data})
        elif isinstance(wish, Subscribe):
            await self._subscribe(wish)
        else:
            await self._forget(wish.id)
            await self._tell(b"unsubscribed", {"id": wish.id})

    async def _subscribe(self, wish: Subscribe) -> None:
        if len(self._tasks) >= _MOST_SUBSCRIPTIONS and wish.id not in self._tasks:
            raise ApiError(f"expected at most {_MOST_SUBSCRIPTIONS} subscriptions on a connection, got one more", code="too_many")
        sources = [await self._source(topic, wish) for topic in dict.fromkeys(wish.topics)]
        await self._forget(wish.id)
        await self._tell(b"subscribed", {"id": wish.id, "topics": wish.topics})
        self._tasks[wish.id] = asyncio.create_task(self._serve(wish.id, sources))

    async def _source(self, topic: Topic, wish: Subscribe) -> AsyncIterator[tuple[bytes, bytes]]:
        if topic == "stream":
            if wish.task is None:
                raise InvalidRequest("expected the id of a task for the topic stream, got none", field="task")
            task = await self._call.queue.get(wish.task)
            require_visible(self._call.principal, task.id, task.flow.tenant)
            return self._chunks(task.id, _place(wish.after))
        require_everything(self._call.principal)
        if topic == "stats":
            return self._stats()
        if isinstance(wish.after, str):
            raise InvalidRequest(f"expected the position of an event, got {wish.after!r}", field="after")
        return self._events(broadcast(self._app).filter_of(wish.types), wish.after)

    async def _forget(self, id: str) -> None:
        task = self._tasks.pop(id, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # writing ---------------------------------------------------------------------------------------------------------

    async def _serve(self, id: str, sources: list[AsyncIterator[tuple[bytes, bytes]]]) -> None:
        name = _encode(id)
        try:
            async with asyncio.TaskGroup() as group:
                for source in sources:
                    group.create_task(self._pass_on(name, source))
        except* _Dropped:
            self._tasks.pop(id, None)
            abort(self._call.scope)
        except* Exception as errors:  # noqa: BLE001 - the client must hear of it; it is logged as a problem
            self._tasks.pop(id, None)
            problem = problem_of(errors.exceptions[0], "")
            with suppress(_Dropped):
                await self._tell(b"error", {"id": id, "code": problem.code, "detail": problem.detail})
        else:
            self._tasks.pop(id, None)

    async def _pass_on(self, name: bytes, source: AsyncIterator[tuple[bytes, bytes]]) -> None:
        async with aclosing(source) as messages:  # type: ignore[type-var]
            async for op, members in messages:
                await self._put(op, b'"id":%b,%b' % (name, members) if members else b'"id":%b' % name)

    async def _tell(self, op: bytes, members: dict[str, Any]) -> None:
        await self._put(op, _encode(members)[1:-1])

    async def _put(self, op: bytes, members: bytes) -> None:
        """One message. Raises _Dropped when it cannot be written within the server's time."""
        try:
            await self._app.writing.wait(self._write(op, members))
        except TimeoutError:
            self._app.metrics.dropped.add()
            log.info("server.reader_dropped", extra={"route": "/ws"})
            abort(self._call.scope)
            raise _Dropped from None
        except Exception as error:
            raise _Dropped from error

    async def _write(self, op: bytes, members: bytes) -> None:
        async with self._writing:
            self._seq += 1
            text = b'{"op":"%b","seq":%d,%b}' % (op, self._seq, members)
            await self._send({"type": "websocket.send", "text": text.decode()})

    # what there is to say ----------------------------------------------------------------------------------------------

    async def _events(self, types: tuple[str, ...], after: int | None) -> AsyncIterator[tuple[bytes, bytes]]:
        async with aclosing(broadcast(self._app).listen(types, after, as_items)) as blocks:
            block: Block
            async for block in blocks:
                if block.behind:
                    yield b"behind", b""
                if block.content:
                    yield b"events", b'"after":%d,"items":[%b]' % (block.place, block.content)

    async def _chunks(self, id: str, after: Position) -> AsyncIterator[tuple[bytes, bytes]]:
        async with aclosing(self._call.queue.stream(id, after=after)) as logged:
            async for entry in logged:
                place = position_text(entry.position).encode()
                yield b"chunks", b'"items":[{"place":"%b",%b]' % (place, chunk_json(entry)[1:])
        yield b"end", b""

    async def _stats(self) -> AsyncIterator[tuple[bytes, bytes]]:
        async with aclosing(broadcast(self._app).listen((), None, as_sign)) as blocks:
            async for _ in blocks:
                yield b"stats", b'"stats":' + _encode(await stats_view(self._app))
                await asyncio.sleep(_STATS_EVERY)


def _place(after: int | str | None) -> Position:
    if after is None:
        return Position()
    try:
        return position_from(str(after))
    except ValueError as error:
        raise InvalidRequest(str(error), field="after") from None
