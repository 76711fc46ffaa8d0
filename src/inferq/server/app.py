"""The ASGI application: one request's way from bytes to a route's handler and back. Bare ASGI, because hot routes pay for every layer."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import msgspec

from inferq.access import require
from inferq.config import ServerSettings
from inferq.errors import NoSuchRoute, NotAcceptable, StoreClosed, WrongMethod
from inferq.metrics import Metrics
from inferq.server import accesslog, audit, socket
from inferq.server import body as bodies
from inferq.server import guard as guards
from inferq.server.call import Call, Gone, Receive, Reply, Scope, Send, Streamed, Text
from inferq.server.patience import Patience
from inferq.server.problems import headers_of, problem_of
from inferq.server.route import MUTATING, Lines, Route, Table, produced
from inferq.server.stream import pump
from inferq.task import new_id

if TYPE_CHECKING:
    from inferq.queue import AsyncQueue
    from inferq.store import Change

log: Final = logging.getLogger("inferq.server")

_JSON: Final = (b"content-type", b"application/json")
_PROBLEM: Final = (b"content-type", b"application/problem+json")
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:+/=-]{1,100}")
_encode: Final = msgspec.json.Encoder().encode


def create_app(
    queue: AsyncQueue,
    *,
    settings: ServerSettings | None = None,
    authenticate: guards.Authenticate | None = None,
    routes: list[Route] | None = None,
) -> App:
    """The server as an ASGI application, to be served alone or mounted into another application under any prefix.

        app = FastAPI(lifespan=...)            # open the queue there: `async with queue: yield`
        app.mount("/inferq", create_app(queue))

    `settings` default to the queue's own; `routes` to all of them. A queue that is not open is opened and closed by the application's
    lifespan, where the outer server gives it one. `authenticate` replaces the keys of the configuration by the user's own way.
    """
    return App(queue, settings, authenticate or guards.by_key, routes)


class App:
    """An ASGI 3 application."""

    def __init__(
        self, queue: AsyncQueue, settings: ServerSettings | None, authenticate: guards.Authenticate, routes: list[Route] | None = None
    ) -> None:
        if routes is None:
            from inferq.server.routes import ROUTES

            routes = ROUTES
        self.queue = queue
        self._own = settings
        settings = self.settings
        self.authenticate = authenticate
        self.guard = guards.Guard((settings.host, *settings.allowed_hosts), settings.origins)
        self.table = Table(routes)
        self.reading = Patience(settings.read_timeout)
        self.writing = Patience(settings.write_timeout)
        self.draining = False
        """Not ready any more: a stop was asked for."""
        self.stopping = asyncio.Event()
        """Streams end: the server closes."""
        self.metrics = Metrics()
        self.began = time.monotonic()
        self.lag = 0.0
        """Seconds that the event loop came too late to its last second; 0 where another server runs the application."""
        self.sockets = 0
        """Open WebSockets."""
        self._listening = False
        self._name = new_id()[-12:]
        self._numbers = count(1)
        self.parts: dict[str, Any] = {}
        """What areas keep for the life of the application, by their own name."""

        self._entry: Callable[[Scope, Receive, Send], Awaitable[None]] = self._http
        if settings.origins:
            self._entry = _with_cors(self._http, settings.origins)

    @property
    def settings(self) -> ServerSettings:
        """Those given to the application, else the queue's as they are now: a reload changes what is read from here at each request."""
        return self._own or self.queue.settings.server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._entry(scope, receive, send)
        elif kind == "websocket":
            await self._socket(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if local_path(scope) == "/ws":
            self._listen()
            await socket.accept(self, scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": "no such path"})

    def _listen(self) -> None:
        """Count what happens from the first request on: the queue may be opened after the application is made."""
        if not self._listening and self._is_open():
            self._listening = True
            self.queue.subscribe(self.metrics.hear)
            self.queue.store.listen(self._hear)
            self.queue.operations.tend()

    def _hear(self, change: Change) -> None:
        if change.lost:
            self.metrics.lease_lost.add()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        opened = False
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    opened = not self._is_open()
                    await self.queue.start()
                except Exception as error:
                    log.exception("server.start_failed")
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                self._listen()
                await send({"type": "lifespan.startup.complete"})
            else:
                self.stopping.set()
                if opened:
                    await self.queue.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _is_open(self) -> bool:
        try:
            return self.queue.store is not None
        except StoreClosed:
            return False

    # one request -----------------------------------------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        if not self._listening:
            self._listen()
        raw: dict[bytes, bytes] = dict(scope["headers"])
        request_id = self._request_id(raw.get(b"x-request-id"))
        method: str = scope["method"]
        place, status = "", 500
        call: Call | None = None
        try:
            if len(raw) != len(scope["headers"]):
                guards.headers_of(scope["headers"])
            self.guard.check_host(raw.get(b"host"))
            found = self._match(scope)
            if found is None:
                raise NoSuchRoute(f"expected a path of this server (see /openapi.json), got {local_path(scope)[:200]!r}")
            routes, parameters = found
            place = next(iter(routes.values())).path
            if method == "OPTIONS":
                status = await self._options(routes, request_id, send)
                return
            route = routes.get("GET" if method == "HEAD" else method)
            if route is None:
                raise WrongMethod(f"expected {', '.join(_methods(routes))}, got {method}", allowed=_methods(routes))
            if method in MUTATING:
                self.guard.check_origin(raw, scope.get("scheme", "http"))
            call = Call(self, route, scope, receive, parameters, raw)
            call.request_id = request_id
            reply = await self._answer(call)
            status = reply.status
            await self._send(call, reply, send, head=method == "HEAD")
        except Gone:
            status = 499
        except Exception as error:  # noqa: BLE001 - it becomes the client's problem, and is logged there
            status = await self._refuse(error, request_id, send, head=method == "HEAD")
        finally:
            ran = time.perf_counter() - began
            self.metrics.request(method, place, status, ran)
            if self.settings.access_log:
                accesslog.note(method, place, status, ran, request_id, call)

    def _request_id(self, given: bytes | None) -> str:
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode()
        return f"{self._name}-{next(self._numbers):x}"

    def _match(self, scope: Scope) -> tuple[Mapping[str, Route], dict[str, str]] | None:
        path, raw = local_path(scope), scope.get("raw_path")
        if raw is None or b"%2" not in raw:
            return self.table.match(path)
        # An escaped slash is a character of its segment.
        root = len([part for part in scope.get("root_path", "").split("/") if part])
        segments = [unquote(part) for part in raw.partition(b"?")[0].decode("latin-1").split("/")][1:]
        inside = segments[root:] if scope["path"] != path else segments
        return self.table.match_segments([] if inside == [""] else inside)

    async def _answer(self, call: Call) -> Reply:
        route = call.route
        if not route.open:
            call.principal = await self.authenticate(call)
        if call.scope["method"] not in MUTATING:
            return await self._handle(call)
        try:
            reply = await self._handle(call)
        except Gone:
            raise
        except Exception as error:
            await audit.note(call, error)
            raise
        await audit.note(call, reply)
        return reply

    async def _handle(self, call: Call) -> Reply:
        route = call.route
        if not route.open:
            require(call.principal, route.role)
        _check_accept(call)
        call.query = bodies.parse_query(route.query, call.scope.get("query_string", b""))
        if route.body is None:
            if call.scope["method"] in MUTATING:
                await bodies.refuse_body(call)
        elif route.body is Lines:
            bodies.check_lines_media(call)
            call.body = bodies.read_pieces(call, route.largest or self.settings.max_import_bytes)
        else:
            call.body = await bodies.read_body(call, route.largest or self.settings.max_body_bytes)
        return await route.handler(call)

    async def _send(self, call: Call, reply: Reply, send: Send, *, head: bool) -> None:
        headers = [(b"x-request-id", call.request_id.encode())]
        if reply.headers:
            headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in reply.headers.items()]
        value = reply.value
        if isinstance(value, Streamed):
            await pump(self, call, reply, value, headers, send, head=head)
            return
        if isinstance(value, Text):
            content = value.content
            headers.append((b"content-type", value.media.encode()))
        elif value is None:
            content = b""
        else:
            content = _encode(value)
            headers.append(_JSON)
        if reply.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(content)))
        if content and not head:
            # Our own server sends head and body in one piece where it is told that both come at once.
            hold = call.scope.get("inferq.hold")
            if hold is not None:
                hold()
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if head else content})

    async def _refuse(self, error: Exception, request_id: str, send: Send, *, head: bool) -> int:
        problem = problem_of(error, request_id)
        content = _encode(problem)
        headers = [_PROBLEM, (b"x-request-id", request_id.encode()), (b"content-length", b"%d" % len(content))]
        headers += [(name.encode(), value.encode()) for name, value in headers_of(problem, error).items()]
        if problem.status in (408, 413):
            # What is left of the body is not read: the connection cannot be used again.
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if head else content})
        return problem.status

    async def _options(self, routes: Mapping[str, Route], request_id: str, send: Send) -> int:
        headers = [(b"allow", ", ".join(_methods(routes)).encode()), (b"x-request-id", request_id.encode())]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return 204


def _with_cors(app: Any, origins: tuple[str, ...]) -> Any:
    from starlette.middleware.cors import CORSMiddleware

    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-Id", "If-None-Match"],
        expose_headers=["ETag", "Location", "Retry-After", "X-Request-Id"],
    )


def local_path(scope: Scope) -> str:
    """The path below the prefix that the application is mounted under."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :] or "/"
    return path


def _methods(routes: Mapping[str, Route]) -> tuple[str, ...]:
    return (*routes, *(("HEAD",) if "GET" in routes else ()), "OPTIONS")


def _check_accept(call: Call) -> None:
    said = call.raw_headers.get(b"accept")
    if said is None or b"*/*" in said:
        return
    medias = produced(call.route)
    for part in said.decode("latin-1").lower().split(","):
        wanted, _, parameters = part.strip().partition(";")
        wanted = wanted.strip()
        if "q=0" in parameters.replace(" ", "").split(";") or not wanted:
            continue
        if wanted in medias or any(wanted == f"{media.split('/')[0]}/*" for media in medias):
            return
    raise NotAcceptable(f"expected Accept to admit {' or '.join(sorted(medias))}, got {said.decode('latin-1')[:200]!r}")
