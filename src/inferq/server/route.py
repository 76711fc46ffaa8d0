"""Routes as data: what each takes, answers and refuses. Dispatch, checking and the OpenAPI document all read the same table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from inferq.access import Role
from inferq.errors import InferqError
from inferq.server.call import Call, Reply

Method = Literal["GET", "POST", "PUT", "DELETE"]
Handler = Callable[[Call], Awaitable[Reply]]


class Lines:
    """As `body=`: NDJSON that is read while it comes; `call.body` is then an async iterator of its bytes, in pieces of any size."""


class Sse(msgspec.Struct, frozen=True):
    """In `returns=`: a stream of server-sent events whose data are of this type."""

    item: Any


class Ndjson(msgspec.Struct, frozen=True):
    """In `returns=`: a stream of JSON lines of this type."""

    item: Any


class Plain(msgspec.Struct, frozen=True):
    """In `returns=`: a text of this media type."""

    media: str


class Route:
    """One method of one path.

    `body` and `query` are msgspec types; the query's is a Struct whose list fields may be repeated or separated by commas.
    `returns` gives a type for each good status (None: no body; several media types: a tuple), `errors` the errors of ours that the
    handler raises beyond those that any request can meet. `optional` says that the body may be missing (then it is its type's default);
    `largest` bounds it in bytes where the server's own bound is not meant.
    """

    __slots__ = (
        "body",
        "decode",
        "description",
        "errors",
        "examples",
        "handler",
        "headers",
        "largest",
        "media",
        "method",
        "open",
        "optional",
        "path",
        "query",
        "returns",
        "role",
        "segments",
        "summary",
        "tag",
    )

    def __init__(
        self,
        handler: Handler,
        method: Method,
        path: str,
        *,
        role: Role,
        body: Any = None,
        query: type[msgspec.Struct] | None = None,
        returns: Mapping[int, Any] | None = None,
        errors: tuple[type[InferqError], ...] = (),
        headers: tuple[str, ...] = (),
        optional: bool = False,
        largest: int | None = None,
        tag: str = "",
        open: bool = False,
        examples: Mapping[str, Any] | None = None,
    ) -> None:
        self.handler = handler
        self.method = method
        self.path = path
        self.segments = tuple(path.strip("/").split("/")) if path != "/" else ()
        self.role = role
        self.body = body
        self.decode = None if body is None or body is Lines else msgspec.json.Decoder(body).decode
        self.media = "application/x-ndjson" if body is Lines else "application/json"
        self.query = query
        self.returns = dict(returns or {200: None})
        self.errors = errors
        self.headers = headers
        self.optional = optional
        self.largest = largest
        self.open = open
        self.examples = dict(examples or {})
        text = " ".join((handler.__doc__ or "").split())
        self.summary, _, rest = text.partition(". ")
        self.description = rest
        self.tag = tag or (self.segments[1] if self.segments[:1] == ("api",) and len(self.segments) > 1 else "server")

    def __repr__(self) -> str:
        return f"Route({self.method} {self.path})"

    @property
    def name(self) -> str:
        """A name of its own, for OpenAPI's `operationId`."""
        words = [segment.strip("{}").replace(".", "_") for segment in self.segments] or ["home"]
        return "_".join([self.method.lower(), *words])


def route(method: Method, path: str, **told: Any) -> Callable[[Handler], Route]:
    """Make a Route of a handler:

        @route("GET", "/api/things/{name}", role="read", returns={200: Thing}, errors=(TaskNotFound,))
        async def show(call: Call) -> Reply:
            '''Show a thing. This first sentence is the summary, the rest the description.'''
            return Reply(await call.queue.thing(call.path["name"]))

        ROUTES = [show]

    `told` is everything that Route takes: role (required), body, query, returns, errors, headers, optional, largest, tag, open (needs no
    key), examples.
    """
    return lambda handler: Route(handler, method, path, **told)


class _Node:
    __slots__ = ("names", "next", "parameter", "routes")

    def __init__(self) -> None:
        self.next: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.routes: dict[str, Route] = {}
        self.names: tuple[tuple[int, str], ...] = ()


class Table:
    """All routes, found by path: fixed segments before parameters."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes: list[Route] = []
        self._root = _Node()
        self._fixed: dict[str, _Node] = {}
        for entry in routes:
            self.add(entry)

    def add(self, entry: Route) -> None:
        """Raises ValueError when method and path are taken."""
        node = self._root
        names = []
        for place, segment in enumerate(entry.segments):
            if segment.startswith("{"):
                names.append((place, segment[1:-1]))
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.next.setdefault(segment, _Node())
        if node.routes and node.names != tuple(names):
            raise ValueError(f"expected the same parameters in {entry.path} under every method")
        if entry.method in node.routes:
            raise ValueError(f"expected each route once, got {entry.method} {entry.path} twice")
        node.routes[entry.method] = entry
        node.names = tuple(names)
        if not names:
            self._fixed[entry.path] = node
        self.routes.append(entry)

    def match(self, path: str) -> tuple[Mapping[str, Route], dict[str, str]] | None:
        """The routes of a path by method and the path's parameters, or None."""
        node = self._fixed.get(path)
        if node is not None:
            return node.routes, {}
        if not path.startswith("/"):
            return None
        segments = path[1:].split("/")
        return self.match_segments(segments)

    def match_segments(self, segments: list[str]) -> tuple[Mapping[str, Route], dict[str, str]] | None:
        """The same for a path that is taken apart already, whose segments may hold a slash."""
        node = _walk(self._root, segments, 0)
        if node is None:
            return None
        return node.routes, {name: segments[place] for place, name in node.names}


def _walk(node: _Node, segments: list[str], place: int) -> _Node | None:
    if place == len(segments):
        return node if node.routes else None
    segment = segments[place]
    found = node.next.get(segment)
    if found is not None and (end := _walk(found, segments, place + 1)) is not None:
        return end
    if node.parameter is not None and segment:
        return _walk(node.parameter, segments, place + 1)
    return None


MUTATING: Final = frozenset({"POST", "PUT", "DELETE", "PATCH"})


def produced(entry: Route) -> set[str]:
    """The media types that a route answers with when all is well."""
    found = {"application/problem+json"}
    for value in entry.returns.values():
        for kind in value if isinstance(value, tuple) else (value,):
            found.add(media_of(kind))
    return found


def media_of(kind: Any) -> str:
    """The media type of a type in `returns`."""
    if isinstance(kind, Sse):
        return "text/event-stream"
    if isinstance(kind, Ndjson):
        return "application/x-ndjson"
    if isinstance(kind, Plain):
        return kind.media
    return "application/json"
