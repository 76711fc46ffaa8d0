"""Follows an event stream of a server over lost connections and restarts: goes on after the last event that came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Final

from inferq.client.link import StreamedReply
from inferq.client.transport import Request, Transport
from inferq.errors import ConnectFailed, ConnectionLost, InferqError, ProtocolError, RequestTimeout
from inferq.wire.framing import EventReader, MalformedError, ServerEvent

_SILENCE: Final = 60.0
"""Seconds without a byte, heartbeats included, after which a connection is taken for dead: a server's machine may just vanish."""


class Patience:
    """How long whoever waits for a server bears its absence (seconds), with growing pauses between two tries."""

    def __init__(self, transport: Transport, patience: float) -> None:
        self._pauses = transport.backoff()
        self._patience = patience
        self._met = transport.met
        self._since: float | None = None

    def relieve(self) -> None:
        """The server answered."""
        self._met = True
        self._since = None

    def progress(self) -> None:
        """Something came: the next pause is short again."""
        self._pauses.reset()

    async def bear(self, error: InferqError | None) -> None:
        """Pause before another try, or raise the error: when it is not of a kind that passes, or patience is at its end."""
        if error is not None:
            passing = isinstance(error, ConnectFailed | ConnectionLost | RequestTimeout) or error.status in (429, 502, 503, 504)
            if not passing or not self._met:
                raise error
            now = asyncio.get_running_loop().time()
            self._since = now if self._since is None else self._since
            if now - self._since >= self._patience:
                raise error
        hint = getattr(error, "retry_after", None) or 0.0
        await asyncio.sleep(self._pauses.next() + min(hint, self._patience))


async def follow(
    transport: Transport, request: Callable[[str | None], Request], place: str | None, *, patience: float
) -> AsyncGenerator[ServerEvent]:
    """The events after a place (an event's id), without end; `request` makes the request that goes on after one.

    Raises what the server refuses with, and TransportError once it could not be reached for `patience` seconds.
    """
    bearing = Patience(transport, patience)
    while True:
        error: InferqError | None = None
        try:
            async with transport.stream(request(place)) as reply:
                _check_media(transport, reply)
                bearing.relieve()
                async with aclosing(_events(transport, reply)) as events:
                    async for event in events:
                        bearing.progress()
                        if event.id is not None:
                            place = event.id
                        yield event
        except InferqError as failure:
            error = failure
        await bearing.bear(error)


def _check_media(transport: Transport, reply: StreamedReply) -> None:
    media = reply.headers.get("content-type", "")
    if not media.startswith("text/event-stream"):
        raise ProtocolError(f"{transport.origin} answered with {media[:80] or 'no type'} where an event stream was expected")


async def _events(transport: Transport, reply: StreamedReply) -> AsyncGenerator[ServerEvent]:
    reader = EventReader()
    chunks: AsyncIterator[bytes] = reply.chunks()
    while True:
        try:
            async with asyncio.timeout(_SILENCE):
                piece = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise ConnectionLost(f"{transport.origin} said nothing for {_SILENCE:g} s, not even that it lives") from None
        try:
            found = reader.feed(piece)
        except MalformedError as error:
            raise ProtocolError(f"{transport.origin} sent an event stream with {error}") from error
        for event in found:
            yield event
