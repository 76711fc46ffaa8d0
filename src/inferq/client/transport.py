"""Carries requests to a server: time limits, retries where they are safe, typed errors. What to ask is data (`Request`)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, get_origin
from urllib.parse import quote, urlencode

import msgspec

from inferq.client.link import Link, Reply, StreamedReply
from inferq.client.problems import error_of, retry_after_of
from inferq.config.secret import Secret
from inferq.errors import ConnectFailed, ConnectionLost, InferqError, ProtocolError, QueueFull, RequestTimeout, Unauthenticated

T = TypeVar("T")

_MOST_OF_A_REFUSAL: Final = 64 * 1024
Query = Mapping[str, str | int | float | bool | list[str] | None]


class Request(msgspec.Struct, frozen=True):
    """One call as data. `again`: it may be made twice without harm (it reads, it sets, or it carries an idempotency key)."""

    method: str
    path: str
    body: bytes | None = None
    again: bool = False
    headers: dict[str, str] = {}


def get(*path: str, query: Query | None = None) -> Request:
    """A question. Path segments are escaped."""
    return Request("GET", _address(path, query), again=True)


def post(*path: str, query: Query | None = None, json: object = msgspec.UNSET, again: bool = False) -> Request:
    return _with_body("POST", _address(path, query), json, again)


def put(*path: str, json: object = msgspec.UNSET, headers: dict[str, str] | None = None) -> Request:
    return _with_body("PUT", _address(path, None), json, True, headers)


def delete(*path: str, query: Query | None = None, headers: dict[str, str] | None = None) -> Request:
    return Request("DELETE", _address(path, query), again=True, headers=headers or {})


def _with_body(method: str, path: str, json: object, again: bool, headers: dict[str, str] | None = None) -> Request:
    if json is msgspec.UNSET:
        return Request(method, path, again=again, headers=headers or {})
    body = json if isinstance(json, bytes) else msgspec.json.encode(json)
    return Request(method, path, body, again, {"Content-Type": "application/json", **(headers or {})})


def _address(path: tuple[str, ...], query: Query | None) -> str:
    address = "/api/" + "/".join(quote(part, safe="") for part in path)
    pairs: list[tuple[str, str]] = []
    for name, value in (query or {}).items():
        if isinstance(value, bool):
            pairs.append((name, "true" if value else "false"))
        elif isinstance(value, list):
            pairs += [(name, item) for item in value]
        elif value is not None:
            pairs.append((name, str(value)))
    return f"{address}?{urlencode(pairs)}" if pairs else address


class Backoff:
    """Growing pauses with full jitter (seconds): between nothing and `first`, then twice that, up to `most`."""

    def __init__(self, first: float, most: float) -> None:
        self._first = first
        self._most = most
        self._tries = 0

    def reset(self) -> None:
        self._tries = 0

    def next(self) -> float:
        ceiling = min(self._most, self._first * 2**self._tries)
        self._tries += 1
        return random.uniform(0, ceiling)  # noqa: S311 - spreads load, hides nothing


class Transport:
    """One server and how to ask it.

    `timeout` (seconds) bounds a call with all its retries, `connect_timeout` each connecting. A call is made again at most
    `retries` times, and only when that is safe: the request surely never left, or it says `again`. A server that never answered is
    reported at once; one that did is waited for, as it may be restarting.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: Secret | None = None,
        timeout: float = 30.0,
        connect_timeout: float = 5.0,
        retries: int = 3,
        backoff: float = 0.2,
    ) -> None:
        headers = {"Accept": "*/*"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key.reveal()}"
        self._keyed = api_key is not None
        self._link = Link(url, connect_timeout=connect_timeout, headers=headers)
        self.timeout = timeout
        self._retries = retries
        self._first_pause = backoff
        self._met = False
        self._awaited: set[asyncio.Future[None]] = set()

    def __repr__(self) -> str:
        return f"Transport({self.url!r})"

    @property
    def url(self) -> str:
        return self._link.url

    @property
    def origin(self) -> str:
        return self._link.origin

    @property
    def met(self) -> bool:
        """Whether the server has ever answered."""
        return self._met

    async def close(self) -> None:
        await self._link.close()

    def backoff(self) -> Backoff:
        """Pauses for whoever keeps asking over a lost connection."""
        return Backoff(self._first_pause, 5.0)

    def hold_for(self, ready: asyncio.Future[None]) -> None:
        """Send nothing that is asked from now on before this is done."""
        self._awaited.add(ready)
        ready.add_done_callback(self._awaited.discard)

    async def send(self, request: Request, *, timeout: float | None = None) -> Reply:
        """The answer of a request that succeeded. Raises what the server refused it with, or TransportError."""
        limit = self.timeout if timeout is None else timeout
        if self._awaited:
            await asyncio.wait(tuple(self._awaited), timeout=limit)
        loop = asyncio.get_running_loop()
        until = loop.time() + limit
        pauses = self.backoff()
        tries = 0
        while True:
            try:
                return await self._once(request, until - loop.time())
            except RequestTimeout as error:
                raise RequestTimeout(f"{self.origin} did not answer within {limit:g} s") from error
            except InferqError as error:
                pause = pauses.next()
                hint = retry_after_of(error)
                if hint is not None:
                    pause += hint
                if tries >= self._retries or not self._may_repeat(request, error) or loop.time() + pause >= until:
                    raise
            tries += 1
            await asyncio.sleep(pause)

    async def _once(self, request: Request, left: float) -> Reply:
        reply = await self._link.send(request.method, request.path, body=request.body, headers=request.headers, timeout=max(left, 0.001))
        self._met = True
        if reply.status >= 300:
            raise self._refusal(reply.status, reply.headers, reply.body)
        return reply

    def _may_repeat(self, request: Request, error: InferqError) -> bool:
        if isinstance(error, ConnectFailed):
            return self._met
        if isinstance(error, ConnectionLost):
            return request.again
        if isinstance(error, QueueFull | ProtocolError):
            return False  # a full queue is an answer, and what to do about it is the caller's choice
        return request.again and error.status in (429, 502, 503, 504)

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> InferqError:
        if status < 400:
            where = headers.get("location", "elsewhere")
            return ProtocolError(f"{self.origin} redirects to {where[:200]}; give the server's own address")
        made = error_of(status, headers, body, self.origin)
        if isinstance(made, Unauthenticated) and not self._keyed:
            made.args = (f"{made}. No key was sent: give one with --api-key or api_key=, INFERQ_API_KEY, or a profile",)
        return made

    async def ask(self, request: Request, kind: type[T], *, timeout: float | None = None) -> T:
        """The decoded answer. Raises ProtocolError when it is not of that kind."""
        return self.decoded((await self.send(request, timeout=timeout)).body, kind)

    def decoded(self, body: bytes | str, kind: type[T]) -> T:
        """JSON as a value of a type. Raises ProtocolError."""
        try:
            made: T = _decoder(kind).decode(body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            name = getattr(kind, "__name__", None) or str(get_origin(kind) or kind)
            raise ProtocolError(
                f"{self.origin} answered with something other than a {name} ({error}); is it an inferq server of this version?"
            ) from error
        return made

    def expect(self, reply: StreamedReply, media: str, what: str) -> None:
        """Raises ProtocolError for an answer of another kind: whatever stands before a server, such as a page to log in, says 200 too."""
        came = reply.headers.get("content-type", "")
        if came.partition(";")[0].strip().lower() != media:
            raise ProtocolError(f"{self.origin} answered with {came[:80] or 'no type'} where {what} was expected")

    @asynccontextmanager
    async def stream(
        self, request: Request, *, body: AsyncIterator[bytes] | None = None, timeout: float | None = None
    ) -> AsyncIterator[StreamedReply]:
        """An answer that is read as it comes; it is asked for once. Raises what the server refused it with, or TransportError.

        `timeout` bounds the time until it begins, sending the body included.
        """
        limit = self.timeout if timeout is None else timeout
        sent = body if body is not None else request.body
        async with self._link.stream(request.method, request.path, body=sent, headers=request.headers, timeout=limit) as reply:
            self._met = True
            if reply.status >= 300:
                text = b""
                async for piece in reply.chunks():
                    text += piece
                    if len(text) >= _MOST_OF_A_REFUSAL:
                        break
                raise self._refusal(reply.status, reply.headers, text)
            yield reply


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    found = _decoders.get(kind)
    if found is None:
        found = _decoders[kind] = msgspec.json.Decoder(kind)
    return found
