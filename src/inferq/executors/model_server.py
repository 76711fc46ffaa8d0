"""What the executors of HTTP model servers share: one client, JSON both ways, refusals and garbage turned into named errors."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

from inferq.errors import ExecutorError, Reject, Unavailable
from inferq.executor import Executor, Health
from inferq.net import HttpClient, Reply, ReplyStream, origin_of
from inferq.wire.failures import failure_in_stream, failure_of
from inferq.wire.framing import LineTooLongError, MalformedError, decode_json

T = TypeVar("T")

_REFUSAL_BYTES: Final = 65_536
_LEAST_SECRET: Final = 6
_FAILURE: Final = 500
"""From this HTTP status on an answer is the failure of a server."""


class ModelServer(Executor):
    """An executor that drives a model server over HTTP. Subclasses call `_reach` once, when they know where it is."""

    needs_model = True

    def _reach(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str],
        connect_timeout: float,
        max_answer_bytes: int,
        secrets: tuple[str, ...] = (),
    ) -> None:
        self.address = hidden_user(base_url)
        self.client = HttpClient(base_url, headers=headers, connect_timeout=connect_timeout)
        self._max_bytes = max_answer_bytes
        self._source = f"{self.name} ({origin_of(base_url)})"
        # Any header may be a credential; what a server echoes of one must not reach a stored error.
        words = [word for value in headers.values() for word in (value, *value.split())]
        self._secrets = sorted({s for s in (*secrets, *words) if len(s) >= _LEAST_SECRET}, key=len, reverse=True)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def _get(self, path: str, read: Callable[[Any], T]) -> T:
        """What `read` makes of the JSON at a path. Raises ExecutorError."""
        return self._understood(await self.client.request("GET", path, max_bytes=self._max_bytes), read)

    async def _post(self, path: str, body: object, read: Callable[[Any], T]) -> T:
        """What `read` makes of the JSON answer to a JSON body. Raises ExecutorError."""
        return self._understood(await self.client.request("POST", path, json=body, max_bytes=self._max_bytes), read)

    @asynccontextmanager
    async def _posted(self, path: str, body: object, *, accept: str) -> AsyncIterator[ReplyStream]:
        """A streamed answer under status 2xx. Raises ExecutorError, also for what goes wrong while it is read."""
        headers = {"Accept": accept}
        if self.client.base_url.startswith("http://"):
            # llama.cpp promises to keep the connection of a stream and closes it all the same: the next call would meet that.
            # A new connection without TLS costs next to nothing; the others are kept.
            headers["Connection"] = "close"
        async with self.client.stream("POST", path, json=body, headers=headers, max_bytes=self._max_bytes) as reply:
            if not 200 <= reply.status < 300:
                raise self._refused(Reply(reply.status, reply.headers, await reply.beginning(_REFUSAL_BYTES)))
            if content_type(reply) == "text/html":
                raise self._garbled("a page of HTML")
            try:
                yield reply
            except LineTooLongError as error:
                raise Reject(f"{self._source} answered with {error}") from error
            except MalformedError as error:
                raise self._garbled(str(error)) from error

    async def _asked(self, path: str, describe: Callable[[Any], str]) -> Health:
        """Health from one cheap question. Whatever it answers short of a server's failure, it is there."""
        answered = False
        try:
            reply = await self.client.request("GET", path, max_bytes=self._max_bytes)
            answered = reply.status < _FAILURE
            return Health(ok=True, detail=self._understood(reply, describe))
        except ExecutorError as error:
            return Health(ok=False, detail=str(error), answered=answered)

    def _understood(self, reply: Reply, read: Callable[[Any], T]) -> T:
        if not 200 <= reply.status < 300:
            raise self._refused(reply)
        try:
            return read(decode_json(reply.body))
        except MalformedError as error:
            raise self._garbled(str(error)) from error

    def _refused(self, reply: Reply) -> ExecutorError:
        error = failure_of(reply.status, reply.headers, reply.body, now=time.time(), source=self._source, secrets=self._secrets)
        hint = self._hint(reply, error)
        if hint:
            error.args = (f"{error}; {hint}",)
        return error

    def _hint(self, reply: Reply, error: ExecutorError) -> str:
        """What the reader of a refusal could do; empty when nothing is known."""
        if 300 <= reply.status < 400:
            return f"it redirects to {origin_of(reply.headers.get('location', ''))}: set base_url to the final address"
        return "is the path in base_url right?" if error.failure == "not_found" else ""

    def _broken_off(self, error: Any) -> ExecutorError:
        return failure_in_stream(error, source=self._source, secrets=self._secrets)

    def _garbled(self, what: str) -> Unavailable:
        return Unavailable(f"{self._source} did not answer as its API says: {what}", failure="server_error")

    def _cut(self, mark: str) -> Unavailable:
        return Unavailable(f"{self._source}: the stream ended without its end mark ({mark})", failure="connect")


def hidden_user(url: str) -> str:
    """The address without the user and password that it may carry."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def content_type(reply: ReplyStream) -> str:
    """The media type of an answer without its parameters, in lower case."""
    return reply.headers.get("content-type", "").partition(";")[0].strip().lower()
