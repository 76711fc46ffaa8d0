"""The OpenAPI 3.1 document, made from the route table and the types that decode and encode: it cannot say what the code does not do."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

import msgspec

import inferq
from inferq.errors import (
    BodyTimeout,
    BodyTooLarge,
    Forbidden,
    InferqError,
    InvalidRequest,
    NoSuchRoute,
    NotAcceptable,
    Rejected,
    StoreError,
    StoreFull,
    Unauthenticated,
    UnsupportedMedia,
)
from inferq.server.body import query_fields
from inferq.server.call import Call, Reply, Text
from inferq.server.problems import status_of
from inferq.server.route import MUTATING, Lines, Ndjson, Plain, Route, Sse, media_of, route
from inferq.wire.native import Problem

_REF: Final = "#/components/schemas/{name}"
_PROBLEM: Final = "application/problem+json"
_ABOUT: Final = """The durable queue in front of your LLMs.

Every refusal is an RFC 9457 problem with a stable `code`; `errors` point into the body (RFC 6901) or name a parameter. Instants in answers
are Unix milliseconds. Lists are `{"items": [...], "next": cursor or null}`. While no keys are configured, programs on the server's own
machine need none. The WebSocket at `/ws` is described in docs/server.md."""
_HEADERS: Final = {
    "RequestId": {"schema": {"type": "string"}, "description": "Names the request in the server's log."},
    "RetryAfter": {"schema": {"type": "integer"}, "description": "Seconds after which asking again makes sense."},
}
_EVERY_HEADERS: Final = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
_BUSY: Final = frozenset({429, 503})
_LIST: Final = re.compile(r"\bListing_(\w+)_(?=\")")
_HEADER_TEXTS: Final = {
    "Idempotency-Key": "The same key with the same body is the same task.",
    "Last-Event-ID": "The id of the last event that came: goes on after it.",
    "If-None-Match": "An ETag: 304 while it still fits.",
}


@route("GET", "/openapi.json", role="read", open=True, returns={200: Plain("application/json")}, tag="operators")
async def document(call: Call) -> Reply:
    """Give this document."""
    root = call.root or "/"
    return Reply(Text(_encoded(tuple(call.app.table.routes), root), "application/json"), 200, {"cache-control": "no-cache"})


@lru_cache(maxsize=8)
def _encoded(routes: tuple[Route, ...], root: str) -> bytes:
    return msgspec.json.encode(openapi(routes, root))


def _named(document: dict[str, Any]) -> dict[str, Any]:
    """Lists get a name that a person would give."""
    text = _LIST.sub(r"\1List", msgspec.json.encode(document).decode())
    made: dict[str, Any] = msgspec.json.decode(text)
    return made


def openapi(routes: Iterable[Route], root: str = "/") -> dict[str, Any]:
    """The document of these routes; `root` is the prefix that the application is mounted under."""
    routes = list(routes)
    kinds = list(dict.fromkeys([Problem, *(kind for entry in routes for kind in _kinds(entry))]))
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    schema_of = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    refusals: dict[str, Any] = {}
    for entry in routes:
        paths[entry.path][entry.method.lower()] = _operation(entry, schema_of, refusals)
    made = {
        "openapi": "3.1.0",
        "info": {"title": "inferq", "version": inferq.__version__, "description": _ABOUT, "license": {"name": "MIT", "identifier": "MIT"}},
        "servers": [{"url": root}],
        "security": [{"bearer": []}, {"header": []}, {}],
        "tags": [{"name": name} for name in sorted({entry.tag for entry in routes})],
        "paths": dict(paths),
        "components": {
            "schemas": components,
            "headers": _HEADERS,
            "responses": refusals,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key of this server, `iq_…`."},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }
    return _named(made)


def _kinds(entry: Route) -> Iterator[Any]:
    """Every type whose schema an operation shows. Query parameters are shown one by one."""
    if entry.body is not None and entry.body is not Lines:
        yield entry.body
    if entry.query is not None:
        yield from (field.type for field in msgspec.structs.fields(entry.query))
    for _, kind in _answers(entry):
        inner = kind.item if isinstance(kind, Sse | Ndjson) else kind
        if inner is not None and not isinstance(inner, Plain):
            yield inner


def _answers(entry: Route) -> Iterator[tuple[int, Any]]:
    for status, value in entry.returns.items():
        for kind in value if isinstance(value, tuple) else (value,):
            yield status, kind


def _operation(entry: Route, schema_of: Mapping[Any, Any], refusals: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"operationId": entry.name, "tags": [entry.tag], "summary": entry.summary.rstrip(".")}
    about = [entry.description] if entry.description else []
    if not entry.open:
        about.append(f"Needs a key of role `{entry.role}` or above, where keys are configured.")
    made["description"] = " ".join(about)
    parameters = list(_parameters(entry, schema_of))
    if parameters:
        made["parameters"] = parameters
    if entry.body is not None:
        made["requestBody"] = _body(entry, schema_of)
    made["responses"] = _responses(entry, schema_of, refusals)
    if entry.open:
        made["security"] = []
    return made


def _parameters(entry: Route, schema_of: Mapping[Any, Any]) -> Iterator[dict[str, Any]]:
    for segment in entry.segments:
        if segment.startswith("{"):
            yield {"name": segment[1:-1], "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    if entry.query is not None:
        several = query_fields(entry.query)
        for field in msgspec.structs.fields(entry.query):
            schema = dict(schema_of[field.type])
            made = {"name": field.encode_name, "in": "query", "required": field.required, "schema": _without_null(schema)}
            if text := schema.pop("description", ""):
                made["description"] = text
            if field.default not in (msgspec.NODEFAULT, None):
                schema["default"] = field.default
            if several[field.encode_name]:
                made |= {"style": "form", "explode": True}
            yield made
    for name in entry.headers:
        schema = {"type": "string", "minLength": 1, "maxLength": 512}
        yield {"name": name, "in": "header", "required": False, "description": _HEADER_TEXTS.get(name, ""), "schema": schema}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is there or not: null cannot be written in a query."""
    options = schema.get("anyOf")
    if options is None:
        return schema
    left = [option for option in options if option != {"type": "null"}]
    if len(left) == 1:
        del schema["anyOf"]
        schema.update({name: value for name, value in left[0].items() if name not in schema})
    else:
        schema["anyOf"] = left
    return schema


def _body(entry: Route, schema_of: Mapping[Any, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"type": "string"} if entry.body is Lines else schema_of[entry.body]}
    if entry.examples:
        content["examples"] = {name: {"value": value} for name, value in entry.examples.items()}
    return {"required": not entry.optional, "content": {entry.media: content}}


def _responses(entry: Route, schema_of: Mapping[Any, Any], refusals: dict[str, Any]) -> dict[str, Any]:
    """Good answers in full; refusals by reference to `refusals`, because many routes share them."""
    made: dict[str, Any] = {}
    for status, kind in _answers(entry):
        answer = made.setdefault(str(status), {"description": HTTPStatus(status).phrase, "headers": dict(_EVERY_HEADERS)})
        if kind is not None:
            _add(answer.setdefault("content", {}), media_of(kind).partition(";")[0], _content(kind, schema_of))
    refused: dict[int, set[str]] = defaultdict(set)
    for error in (*entry.errors, *_always(entry)):
        refused[status_of(error)].add(error.code)
    for status, codes in sorted(refused.items()):
        text = f"{HTTPStatus(status).phrase}: {', '.join(sorted(codes))}"
        problem = {_PROBLEM: {"schema": schema_of[Problem]}}
        if str(status) in made:
            made[str(status)]["description"] += f", or {text}"
            made[str(status)].setdefault("content", {}).update(problem)
            continue
        name = "_".join([str(status), *sorted(codes)])
        headers = _EVERY_HEADERS | ({"Retry-After": {"$ref": "#/components/headers/RetryAfter"}} if status in _BUSY else {})
        refusals[name] = {"description": text, "headers": headers, "content": problem}
        made[str(status)] = {"$ref": f"#/components/responses/{name}"}
    return made


def _add(content: dict[str, Any], media: str, more: dict[str, Any]) -> None:
    """Of two types under one media type, either may come."""
    known = content.get(media)
    if known is None:
        content[media] = more
    else:
        known["schema"] = {"anyOf": [*known["schema"].get("anyOf", [known["schema"]]), more["schema"]]}


def _content(kind: Any, schema_of: Mapping[Any, Any]) -> dict[str, Any]:
    if isinstance(kind, Ndjson):
        # Of a stream the schema says what each item is: OpenAPI before 3.2 has no other word for it.
        return {"schema": schema_of[kind.item]}
    if isinstance(kind, Sse):
        data = {"type": "string", "contentMediaType": "application/json", "contentSchema": schema_of[kind.item]}
        return {"schema": {"type": "object", "required": ["data"], "properties": {"id": {"type": "string"}, "data": data}}}
    if isinstance(kind, Plain):
        return {"schema": {} if kind.media == "application/json" else {"type": "string"}}
    return {"schema": schema_of[kind]}


def _always(entry: Route) -> Iterator[type[InferqError]]:
    """What any request of this shape can meet."""
    yield from (InvalidRequest, Forbidden, NotAcceptable, InferqError, StoreError, Rejected)
    if not entry.open:
        yield Unauthenticated
    if any(segment.startswith("{") for segment in entry.segments):
        yield NoSuchRoute
    if entry.method in MUTATING:
        yield from (StoreFull, BodyTooLarge, BodyTimeout)
    if entry.body is not None:
        yield UnsupportedMedia


ROUTES: Final[list[Route]] = [document]
