"""The one HTTP client of inferq: a narrow interface over aiohttp, which nothing else imports.

Chosen by measurement among Python's clients (58 us of CPU a request and 6 us a streamed chunk; httpx needs 35 and 7
times that) and hidden here so that the choice can change. There is no limit on a call's total time: the engine owns the
clocks, only connecting has one here. Cancelling the calling coroutine closes the connection at once, so that the
backend sees the hang-up.

Every error is one of the executors' own words: `Unavailable` (with `sent=False` when the backend surely never saw the
request) or `Reject`. Their messages name scheme, host and port only, never a path, a query or a header: those may hold
secrets.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import urlsplit

import msgspec

from inferq.errors import ExecutorError, Reject, Unavailable

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.typedefs import LooseHeaders

Guard = Callable[[str], None]
"""Called with the IP address (text, no scope id) of every connection before it is made; raises to refuse it."""

MAX_BODY: Final = 256 * 1024 * 1024
"""Bytes of one answer's body that are accepted unless told otherwise."""
_REFUSED: Final = re.compile(r"\[Errno (\d+)\] Connect call failed")
KEEP_IDLE: Final = 4.0
"""Seconds an idle connection is kept: many servers close theirs after 5, and a POST that meets the closing is lost."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. `headers` has lower-case names; the values of a repeated header are joined by a comma."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ReplyStream:
    """An answer whose body is still arriving; valid inside `HttpClient.stream` only."""

    def __init__(self, response: aiohttp.ClientResponse, origin: str, limit: int) -> None:
        self._response = response
        self._limit = limit
        self._left = limit
        self._origin = origin
        self.status = response.status
        self.headers = _plain(response.headers)

    async def some(self) -> bytes:
        """What of the body has arrived since, decompressed, waiting for at least one byte; empty at the body's end.

        Raises Unavailable (`sent=True`) when the connection is cut before the body's end, Reject when the body is longer
        than `max_bytes`.
        """
        try:
            piece = await self._response.content.readany()
        except Exception as error:  # noqa: BLE001 - raised again in our words
            _raise_meaning(error, self._origin)
        self._left -= len(piece)
        if self._left < 0:
            raise Reject(f"{self._origin} answered with more than {self._limit} bytes, the limit set for one answer")
        return piece

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, in pieces of no particular size; `inferq.wire.framing` makes lines of them."""
        while piece := await self.some():
            yield piece

    async def beginning(self, limit: int) -> bytes:
        """At most `limit` bytes of the body: enough of a refusal to tell why."""
        text = b""
        while len(text) < limit and (piece := await self.some()):
            text += piece
        return text[:limit]

    async def read(self) -> bytes:
        """The whole body."""
        pieces: list[bytes] = []
        while piece := await self.some():
            pieces.append(piece)
        return b"".join(pieces)

    async def drain(self, within: float = 0.25) -> None:
        """Read what is left for at most `within` seconds, so that the connection can be used again."""
        try:
            async with asyncio.timeout(within):
                while await self.some():
                    pass
        except (TimeoutError, ExecutorError):
            self._response.close()


class HttpClient:
    """Connections to one or many servers, made when first needed and kept for reuse; belongs to one event loop.

    `base_url` is put before every address that begins with a slash. `headers` go with every request. `connect_timeout`
    (seconds) bounds looking the name up, connecting and the TLS handshake; None: no bound. `guard` sees the address of
    every connection that is about to be made, whatever led to it: a name, a literal address or a redirect; what it
    raises reaches the caller. Redirects are followed up to `max_redirects`; with 0 they are given back as they are.
    """

    def __init__(
        self,
        base_url: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        connect_timeout: float | None = 10.0,
        guard: Guard | None = None,
        max_redirects: int = 0,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers = dict(headers or {})
        self._connect_timeout = connect_timeout
        self._guard = guard
        self._max_redirects = max_redirects
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: object = msgspec.UNSET,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = MAX_BODY,
    ) -> Reply:
        """Make a request and read the whole answer, whatever its status. Raises Unavailable or Reject."""
        async with self.stream(method, url, json=json, body=body, headers=headers, max_bytes=max_bytes) as reply:
            return Reply(reply.status, reply.headers, await reply.read())

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        json: object = msgspec.UNSET,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = MAX_BODY,
    ) -> AsyncIterator[ReplyStream]:
        """Make a request and give the answer once its headers came; leaving before its end closes the connection."""
        sent = dict(headers or {})
        if json is not msgspec.UNSET:
            body = encode_json(json)
            sent.setdefault("Content-Type", "application/json")
        address = self._address(url)
        origin = origin_of(address)
        session = self._open()
        try:
            response = await self._send(session, method, address, body=body, headers=sent)
        except _RefusedError as refused:
            raise refused.reason from None
        except Exception as error:  # noqa: BLE001 - raised again in our words
            _raise_meaning(error, origin)
        try:
            yield ReplyStream(response, origin, max_bytes)
        finally:
            if response.content.at_eof():
                response.release()
            else:
                response.close()

    async def close(self) -> None:
        """Close every connection. Safe when none was made; a later request opens anew."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            await asyncio.sleep(0)  # transports close in the loop's next turn; without it they are reported as leaked

    async def _send(
        self, session: aiohttp.ClientSession, method: str, address: str, *, body: bytes | None, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        # Two turns of the loop: the first reads, the second handles what servers did to their idle connections meanwhile.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return await session.request(
            method,
            address,
            # As a file: aiohttp writes bytes in one go, which holds up the event loop when they are megabytes.
            data=None if body is None else io.BytesIO(body),
            headers=headers,
            allow_redirects=self._max_redirects > 0,
            max_redirects=self._max_redirects + 1,
        )

    def _address(self, url: str) -> str:
        address = self.base_url + url if url.startswith("/") else url
        if not address.lower().startswith(("http://", "https://")):
            shown = address.partition(":")[0][:40]
            raise Reject(f"expected an address that begins with http:// or https://, got {shown!r}")
        return address

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            import aiohttp  # here, because `import inferq` must stay quick

            headers: LooseHeaders = {"User-Agent": "inferq", "Accept-Encoding": "identity", **self._headers}
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,  # slots are the engine's; a second, hidden queue would only mislead its clocks
                    keepalive_timeout=KEEP_IDLE,
                    socket_factory=self._guarded_socket if self._guard else None,
                    # One address after the other, so that a refusal ends the connecting instead of losing a race.
                    happy_eyeballs_delay=None if self._guard else 0.25,
                ),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout),
                cookie_jar=aiohttp.DummyCookieJar(),  # tasks must not inherit one another's sessions
                headers=headers,
            )
        return self._session

    def _guarded_socket(self, info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        if self._guard is not None:
            try:
                self._guard(str(address[0]).partition("%")[0])
            except Exception as refusal:
                # In a wrapper: an OSError from here would be taken for a failed connection and the next address tried.
                raise _RefusedError(refusal) from refusal
        return socket.socket(family, kind, protocol)


class _RefusedError(Exception):
    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def encode_json(value: object) -> bytes:
    """JSON text; raises Reject for what JSON cannot say (a lone surrogate, an object of no known kind)."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise Reject(f"the request cannot be written as JSON: {error}") from error


def origin_of(url: str) -> str:
    """Scheme, host and port of an address: all of it that may be shown to people."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the server"
    return f"{parts.scheme}://[{host}]{port}" if ":" in host else f"{parts.scheme}://{host}{port}"


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    plain: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        plain[lower] = f"{plain[lower]}, {value}" if lower in plain else value
    return plain


def _raise_meaning(error: Exception, origin: str) -> NoReturn:
    """Raises what an error of aiohttp means; any other error again."""
    meaning = _meaning(error, origin)
    if meaning is None:
        raise error
    raise meaning from error


def _meaning(error: Exception, origin: str) -> ExecutorError | None:
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.ServerFingerprintMismatch):
        return Unavailable(f"cannot connect to {origin}: {reason_of(error)}", failure="connect", sent=False)
    if isinstance(error, aiohttp.TooManyRedirects):
        return Reject(f"{origin} redirected more often than allowed")
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return Reject(f"{origin} or where it redirected is not a valid http address")
    if isinstance(error, aiohttp.ClientResponseError):
        return Unavailable(f"{origin} answered with something that is not HTTP", failure="server_error")
    if isinstance(error, aiohttp.ClientError | ConnectionError):
        # Closed before the whole request was written: it cannot have acted on it.
        unsent = isinstance(error, aiohttp.ClientConnectionResetError)
        return Unavailable(f"the connection to {origin} was cut: {reason_of(error)}", failure="connect", sent=not unsent)
    if isinstance(error, ValueError):
        # Not its text: it may quote a header's value.
        return Reject(f"the request to {origin} has an invalid address, method or header")
    return None


def reason_of(error: BaseException) -> str:
    """In the system's words, at most 200 characters; asyncio names the addresses that it tried instead."""
    cause = getattr(error, "os_error", None) or error.__cause__ or error
    if numbers := dict.fromkeys(_REFUSED.findall(str(cause))):
        return ", ".join(os.strerror(int(number)) for number in numbers).lower()
    text = getattr(cause, "strerror", None) or str(cause)
    return str(text)[:200] or type(error).__name__
