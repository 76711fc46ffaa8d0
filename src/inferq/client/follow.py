"""Follows an event stream of a server over lost connections and restarts: goes on after the last event that came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Final

from inferq.client.link import StreamedReply
from inferq.client.transport import Request, Transport
from inferq.errors import ConnectFailed, ConnectionLost, InferqError, ProtocolError, RequestTimeout, TransportError
from inferq.wire.framing import EventReader, MalformedError, ServerEvent

_SILENCE: Final = 60.0
"""Seconds without a byte, heartbeats included, after which a connection is taken for dead: a server's machine may just vanish."""


_NO_MORE: Final = 204
"""Status of a stream whose end was seen already (HTML standard, section 9.2.3: an EventSource does not ask again)."""


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
            lost = isinstance(error, ConnectFailed | ConnectionLost | RequestTimeout)
            passing = lost or (error.status in (429, 502, 503, 504) and not isinstance(error, TransportError))
            if not passing or not self._met:
                raise error
            now = asyncio.get_running_loop().time()
            self._since = now if self._since is None else self._since
            if now - self._since >= self._patience:
                raise error
        hint = getattr(error, "retry_after", None) or 0.0
        await asyncio.sleep(self._pauses.next() + min(hint, self._patience))


async def follow(
    transport: Transport,
    request: Callable[[str | None], Request],
    place: str | None,
    *,
    patience: float,
    opened: Callable[[], None] | None = None,
) -> AsyncGenerator[ServerEvent]:
    """The events after a place (an event's id), until the server says that there are no more; `request` asks for those after one.

    `opened` is called when the server is surely listening, so that nothing that happens from then on is missed. Raises what the server
    refuses with, and TransportError once it could not be reached for `patience` seconds.
    """
    bearing = Patience(transport, patience)
    while True:
        error: InferqError | None = None
        try:
            async with transport.stream(request(place)) as reply:
                bearing.relieve()
                if reply.status == _NO_MORE:
                    return
                transport.expect(reply, "text/event-stream", "an event stream")
                reader = EventReader()
                while piece := await _some(transport, reply):
                    found = _events(transport, reader, piece)
                    if reader.last_id is not None:
                        place = reader.last_id
                        if opened is not None:
                            opened()
                            opened = None
                    for event in found:
                        bearing.progress()
                        yield event
        except InferqError as failure:
            error = failure
        await bearing.bear(error)


async def _some(transport: Transport, reply: StreamedReply) -> bytes:
    try:
        async with asyncio.timeout(_SILENCE):
            return await reply.some()
    except TimeoutError:
        raise ConnectionLost(f"{transport.origin} said nothing for {_SILENCE:g} s, not even that it lives") from None


def _events(transport: Transport, reader: EventReader, piece: bytes) -> list[ServerEvent]:
    try:
        return reader.feed(piece)
    except MalformedError as error:
        raise ProtocolError(f"{transport.origin} sent an event stream with {error}") from error
