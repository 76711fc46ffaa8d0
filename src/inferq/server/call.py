"""One request on its way to a handler, and what the handler answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from inferq.access import LOCAL, Principal, authorise
from inferq.errors import InvalidRequest, Rejected
from inferq.task import Submission

if TYPE_CHECKING:
    from inferq.queue import AsyncQueue
    from inferq.server.app import App
    from inferq.server.route import Route

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Gone(Exception):
    """The client went away: nobody reads an answer."""


class Call:
    """What a handler gets. `query` and `body` are of the types that the route names; `path` holds the path's parameters, decoded."""

    __slots__ = ("__dict__", "app", "body", "path", "principal", "query", "raw_headers", "receive", "request_id", "route", "scope")

    def __init__(self, app: App, route: Route, scope: Scope, receive: Receive, path: dict[str, str], raw: dict[bytes, bytes]) -> None:
        self.app = app
        self.route = route
        self.scope = scope
        self.receive = receive
        self.path = path
        self.raw_headers = raw
        self.principal: Principal = LOCAL
        self.query: Any = None
        self.body: Any = None
        self.request_id = ""

    @property
    def queue(self) -> AsyncQueue:
        return self.app.queue

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """Header values by lower-case name; of a repeated one the last."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.raw_headers.items()}

    @property
    def base(self) -> str:
        """The URL that this application is mounted under, such as `http://127.0.0.1:7125` or `https://example.org/inferq`."""
        host = self.raw_headers.get(b"host", b"127.0.0.1").decode("latin-1")
        return f"{self.scope.get('scheme', 'http')}://{host}{self.root}"

    @property
    def root(self) -> str:
        """The prefix that this application is mounted under, as addresses write it: escaped, without a slash at its end."""
        root: str = self.scope.get("root_path", "")
        return quote(root.rstrip("/"), safe="/-._~!$&'()*+,;=:@") if root else ""

    def authorise(self, submission: Submission) -> Submission:
        """The submission as this caller may make it over HTTP, with the tenant of its key. Raises Forbidden, InvalidTask."""
        return self.queue.check_over_http(authorise(self.principal, submission))

    async def until_gone(self, work: Awaitable[T]) -> T:
        """Await `work`, but cancel it when the client goes away (Gone) or the server stops (Rejected): for handlers that wait long."""
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(self._gone())
        stopping = asyncio.ensure_future(self.app.stopping.wait())
        try:
            await asyncio.wait({task, gone, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if stopping.done():
                raise Rejected("the server stops; ask again", retry_after=1.0)
            raise Gone
        finally:
            for waiting in (task, gone, stopping):
                waiting.cancel()
            await asyncio.gather(task, gone, stopping, return_exceptions=True)

    async def _gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    def header_text(self, name: str, *, longest: int = 512) -> str | None:
        """A header's printable text, None when it was not sent. Raises InvalidRequest."""
        raw = self.raw_headers.get(name.lower().encode())
        if raw is None:
            return None
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = ""
        if not text or len(text) > longest or not text.isprintable():
            raise InvalidRequest(f"expected 1 to {longest} printable characters, got {len(raw)} bytes", parameter=name)
        return text


class Streamed:
    """A body that is made while it is sent: `pieces` are whole events or lines. A comment is sent when it is silent for long (SSE)."""

    __slots__ = ("media", "pieces")

    def __init__(self, pieces: AsyncIterator[bytes], media: str) -> None:
        self.pieces = pieces
        self.media = media


class Text:
    """A body that is not JSON."""

    __slots__ = ("content", "media")

    def __init__(self, content: bytes, media: str) -> None:
        self.content = content
        self.media = media


class Reply:
    """What a handler answers: a value of the type that the route names for this status, `Streamed`, `Text`, or None for no body."""

    __slots__ = ("headers", "status", "value")

    def __init__(self, value: Any = None, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.value = value
        self.status = status
        self.headers = headers
