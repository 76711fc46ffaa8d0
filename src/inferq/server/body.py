"""From bytes to checked values: bodies and query parameters, each fault with its place."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from functools import cache
from typing import Any, Final, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec

from inferq.errors import BodyTimeout, BodyTooLarge, InvalidRequest, UnsupportedMedia
from inferq.server.call import Call, Gone
from inferq.server.choices import choices

_PLACE: Final = re.compile(r"^(.*?) - at (?:`key` in )?`\$\.?(.*?)`$", re.DOTALL)
_NAMED: Final = re.compile(r"field `(.*?)`$")
_OTHER_WORD: Final = re.compile(r"invalid enum value (.*)$", re.DOTALL)
_MOST_PARAMETERS: Final = 100


def invalid(error: Exception, kind: Any = None, *, parameters: bool = False) -> InvalidRequest:
    """Our error for msgspec's, with its place; `kind` is the type that was read."""
    match = _PLACE.match(str(error))
    text, place = match.groups() if match else (str(error), "")
    named = _NAMED.search(text)
    if named:
        place = f"{place}.{named[1]}" if place else named[1]
    text = text[:1].lower() + text[1:]
    other = _OTHER_WORD.match(text)
    if other and (known := choices(kind, place)):
        text = f"expected {'one of ' if len(known) > 1 else ''}{', '.join(known)}, got {other[1]}"
    return InvalidRequest(text, parameter=place) if parameters else InvalidRequest(text, field=place)


def parse_query(kind: type[msgspec.Struct] | None, text: bytes) -> Any:
    """The query as the route's type; parameters that the route does not know are refused. Raises InvalidRequest."""
    if not text:
        return None if kind is None else _plain(kind)
    try:
        pairs = parse_qsl(text.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        raise InvalidRequest(f"expected at most {_MOST_PARAMETERS} parameters such as limit=50, in UTF-8", parameter="query") from None
    fields = {} if kind is None else query_fields(kind)
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name not in fields:
            known = f"one of {', '.join(fields)}" if fields else "none"
            raise InvalidRequest(f"expected {known}, got the unknown parameter {name!r}", parameter=name)
        if fields[name]:
            found.setdefault(name, []).extend(part for part in value.split(",") if part)
        elif name in found:
            raise InvalidRequest("expected it once, got it twice", parameter=name)
        else:
            found[name] = value
    return None if kind is None else _convert(kind, found)


_known: dict[type, dict[str, bool]] = {}


def query_fields(kind: type[msgspec.Struct]) -> dict[str, bool]:
    """Names of the parameters, and whether each may be given several times."""
    if kind not in _known:
        _known[kind] = {field.encode_name: _is_list(field.type) for field in msgspec.structs.fields(kind)}
    return _known[kind]


def _is_list(kind: Any) -> bool:
    return get_origin(kind) in (list, tuple, set, frozenset) or any(_is_list(part) for part in get_args(kind))


@cache
def _plain(kind: type[msgspec.Struct]) -> Any:
    """The query of who gives none: the same object for all, which nobody changes."""
    return _convert(kind, {})


def _convert(kind: type[msgspec.Struct], found: dict[str, Any]) -> Any:
    try:
        made = msgspec.convert(found, kind, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(error, kind, parameters=True) from None
    for name, text in found.items():
        # The text "null" would pass for no value, however it is written.
        if isinstance(text, str) and text.lower() == "null" and getattr(made, _attribute(kind, name)) is None:
            raise InvalidRequest(f"expected a value, got {text}; leave it out for none", parameter=name)
    return made


def _attribute(kind: type[msgspec.Struct], name: str) -> str:
    return kind.__struct_fields__[kind.__struct_encode_fields__.index(name)]


async def read_body(call: Call, largest: int) -> Any:
    """The decoded body. Raises UnsupportedMedia, BodyTooLarge, BodyTimeout, InvalidRequest, or Gone when it never ends."""
    headers, route = call.raw_headers, call.route
    _check_length(headers, largest)
    message = await _next(call)
    data = message.get("body", b"")
    if message.get("more_body"):
        data = await _rest(call, data, largest)
    if len(data) > largest:
        raise _too_large(largest)
    if not data and route.optional:
        return route.body()
    _check_media(headers, route.media)
    assert route.decode is not None  # noqa: S101 - narrows the type
    try:
        return route.decode(data)
    except msgspec.ValidationError as error:
        raise invalid(error, route.body) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"expected JSON, got: {str(error) or type(error).__name__}") from None


async def refuse_body(call: Call) -> None:
    """A route that takes no body: what came must be empty (or an empty JSON object, as some clients always send one)."""
    if call.raw_headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in call.raw_headers:
        return
    _check_length(call.raw_headers, 1024)
    data = await _rest(call, b"", 1024)
    if data.strip() not in (b"", b"{}", b"null"):
        raise InvalidRequest(f"expected no body, got {len(data)} bytes")


async def read_pieces(call: Call, largest: int) -> AsyncIterator[bytes]:
    """The body as it comes; the server's read_timeout bounds the silence between two pieces, `largest` all of it: what is checked
    waits on this machine's disk. Raises BodyTooLarge."""
    size, more = 0, True
    said = call.raw_headers.get(b"content-length", b"0")
    if said.isdigit() and int(said[:20]) > largest:
        raise _import_too_large(largest)
    while more:
        message = await _next(call)
        more = message.get("more_body", False)
        if piece := message.get("body", b""):
            size += len(piece)
            if size > largest:
                raise _import_too_large(largest)
            yield piece


def check_lines_media(call: Call) -> None:
    """Raises UnsupportedMedia unless the body says that it is NDJSON (or JSON lines under another name, or an array of JSON)."""
    lines = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines", "application/json-lines", "application/json")
    _check_media(call.raw_headers, *lines)


async def _rest(call: Call, data: bytes, largest: int) -> bytes:
    parts, size = [data], len(data)
    patience = call.app.settings.read_timeout
    try:
        async with asyncio.timeout(patience):
            while True:
                message = await _message(call)
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                if size > largest:
                    raise _too_large(largest)
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise _too_slow(patience) from None


async def _next(call: Call) -> Any:
    try:
        return await call.app.reading.wait(_message(call))
    except TimeoutError:
        raise _too_slow(call.app.reading.seconds) from None


async def _message(call: Call) -> Any:
    message = await call.receive()
    if message["type"] == "http.disconnect":
        raise Gone
    return message


def _check_length(headers: dict[bytes, bytes], largest: int) -> None:
    said = headers.get(b"content-length")
    if said is not None and said.isdigit() and int(said[:20]) > largest:
        raise _too_large(largest)


def _check_media(headers: dict[bytes, bytes], *wanted: str) -> None:
    """A body must say that it is JSON: a form of another site cannot, without asking first."""
    said = headers.get(b"content-type", b"")
    media, _, parameters = said.decode("latin-1").lower().partition(";")
    if media.strip() not in wanted:
        raise UnsupportedMedia(f"expected content-type {wanted[0]}, got {said.decode('latin-1') or 'none'!r}")
    if "charset" in parameters and "utf-8" not in parameters.replace("utf8", "utf-8"):
        raise UnsupportedMedia(f"expected JSON in UTF-8, got {said.decode('latin-1')!r}")
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding not in (b"", b"identity"):
        raise UnsupportedMedia(f"expected a body without content-encoding, got {encoding.decode('latin-1')!r}")


def _too_large(largest: int) -> BodyTooLarge:
    return BodyTooLarge(f"expected a body of at most {largest:,} bytes (server.max_body_bytes)")


def _too_slow(patience: float) -> BodyTimeout:
    return BodyTimeout(f"expected the body to go on within {patience:g} s (server.read_timeout); nothing was changed")


def _import_too_large(largest: int) -> BodyTooLarge:
    return BodyTooLarge(f"expected at most {largest:,} bytes in one body of lines (server.max_import_bytes); split the file")
