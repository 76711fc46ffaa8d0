"""The HTTP library of the client, and the only file that knows it: pyreqwest, chosen by measurement (ARCHITECTURE.md).

It starts in a tenth of the engine's client's time, which a command line feels, and costs two thirds of its CPU a call. What it
raises becomes our own errors here, and they tell apart what matters to whoever may ask again: the request surely never left
(ConnectFailed), it left and the answer is missing (ConnectionLost, RequestTimeout), or what came is not HTTP (ProtocolError).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import urlsplit

from inferq.errors import ConfigError, ConnectFailed, ConnectionLost, ProtocolError, RequestTimeout, TransportError

if TYPE_CHECKING:
    from pyreqwest.client import Client
    from pyreqwest.exceptions import DetailedPyreqwestError
    from pyreqwest.request import RequestBuilder
    from pyreqwest.response import Response

KEEP_IDLE: Final = 4.0
"""Seconds an idle connection is kept: servers close theirs after 5, and a request that meets the closing is lost."""


class Reply:
    """A whole answer. `headers` has lower-case names."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class StreamedReply:
    """An answer whose body is still arriving; valid inside `Link.stream` only."""

    def __init__(self, response: Response, origin: str) -> None:
        self._reader = response.body_reader
        self._origin = origin
        self.status: int = response.status
        self.headers = dict(response.headers.items())

    async def some(self) -> bytes:
        """What of the body has come since, at least one byte; empty at its end. Raises ConnectionLost when it is cut."""
        try:
            piece = await self._reader.read_chunk()
        except Exception as error:  # noqa: BLE001 - raised again in our words
            _raise_meaning(error, self._origin)
        return b"" if piece is None else bytes(piece)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces of any size, each as soon as it has come."""
        while piece := await self.some():
            yield piece


class Link:
    """Connections to one server, made when first needed and kept for reuse; belongs to one event loop.

    `url` is http://host[:port][/prefix]. Redirects are not followed: they would carry the key elsewhere.
    """

    def __init__(self, url: str, *, connect_timeout: float, headers: Mapping[str, str]) -> None:
        self.url = checked_url(url)
        self.origin = origin_of(self.url)
        self._connect_timeout = connect_timeout
        self._headers = dict(headers)
        self._client: Client | None = None

    async def send(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str], timeout: float
    ) -> Reply:
        """Ask and read the whole answer, within `timeout` seconds. Raises TransportError in its kinds."""
        request = self._request(method, path, body, headers).timeout(timedelta(seconds=timeout)).build()
        try:
            response = await request.send()
            text = bytes(await response.bytes())
        except Exception as error:  # noqa: BLE001 - raised again in our words
            _raise_meaning(error, self.origin)
        return Reply(response.status, dict(response.headers.items()), text)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        body: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str],
        timeout: float,
    ) -> AsyncIterator[StreamedReply]:
        """Ask, and give the answer once its head came (within `timeout`); leaving before its end closes the connection."""
        # Without the limit of 0 the library holds back the beginning of a stream until 64 KB have come.
        request = self._request(method, path, body, headers).streamed_read_buffer_limit(0).build_streamed()
        try:
            async with asyncio.timeout(timeout):
                response = await request.__aenter__()
        except TimeoutError as error:
            raise RequestTimeout(f"{self.origin} did not begin to answer within {timeout:g} s") from error
        except Exception as error:  # noqa: BLE001 - raised again in our words
            _raise_meaning(error, self.origin)
        try:
            yield StreamedReply(response, self.origin)
        finally:
            await request.__aexit__(None, None, None)

    async def close(self) -> None:
        """Close every connection; a later request opens anew."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _request(
        self, method: str, path: str, body: bytes | AsyncIterator[bytes] | None, headers: Mapping[str, str]
    ) -> RequestBuilder:
        try:
            request = self._open().request(method, self.url + path)
            for name, value in (*self._headers.items(), *headers.items()):
                request = request.header(name, value, is_sensitive=name.lower() == "authorization")
        except ValueError as error:
            # Not its text: it may quote a header's value.
            raise ConfigError(f"the request to {self.origin} has an invalid address or header; a key is printable ASCII") from error
        if isinstance(body, bytes):
            return request.body_bytes(body)
        return request if body is None else request.body_stream(body)

    def _open(self) -> Client:
        if self._client is None:
            from pyreqwest.client import ClientBuilder  # here, because most commands' help needs none

            builder = (
                ClientBuilder()
                .connect_timeout(timedelta(seconds=self._connect_timeout))
                .pool_idle_timeout(timedelta(seconds=KEEP_IDLE))
                .follow_redirects(False)
                .user_agent("inferq")
            )
            if _is_loopback(self.url):
                # A proxy of the environment is for the outside; it would not find this machine's own server.
                builder = builder.no_proxy()
            self._client = builder.build()
        return self._client


def checked_url(url: str) -> str:
    """A server's address without its last slash. Raises ConfigError for what is none."""
    shown = url if "@" not in url else f"{url.partition(':')[0]}://***@{url.rpartition('@')[2]}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise ConfigError(f"expected a server's address such as http://127.0.0.1:7125, got {shown!r}")
    if parts.username or parts.password:
        raise ConfigError(f"expected a server's address without a name or password, got {shown!r}; give the key as api_key")
    return url.rstrip("/")


def origin_of(url: str) -> str:
    """Scheme, host and port of an address, as shown to people."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _raise_meaning(error: Exception, origin: str) -> NoReturn:
    """Raises what an error of the library means; any other error again."""
    from pyreqwest.exceptions import DetailedPyreqwestError

    if isinstance(error, DetailedPyreqwestError):
        raise _meaning(error, origin) from error
    raise error


def _meaning(error: DetailedPyreqwestError, origin: str) -> TransportError:
    from pyreqwest import exceptions as theirs

    causes = [cause["message"] for cause in error.details["causes"] or ()]
    why = (causes[-1] if causes else error.message)[:200]
    # The library also calls it a failed connect when only the answer is missing; its causes tell which it was.
    if "client error (Connect)" in causes:
        return ConnectFailed(f"No server at {origin} ({why}). Start one with `inferq serve` or set INFERQ_URL.")
    if isinstance(error, theirs.RequestTimeoutError):
        return RequestTimeout(f"{origin} did not answer in time")
    if isinstance(error, theirs.DecodeError) and not any("end of file" in cause for cause in causes):
        return ProtocolError(f"{origin} answered with something that is not HTTP ({why})")
    if isinstance(error, theirs.ClientClosedError):
        return ConnectionLost(f"the client was closed while it waited for {origin}")
    if isinstance(error, theirs.NetworkError | theirs.DecodeError):
        return ConnectionLost(f"the connection to {origin} was cut before the answer had come ({why})")
    return TransportError(f"the request to {origin} failed ({why})")
