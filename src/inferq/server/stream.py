"""Sends a body that is made while it is sent: watches for a client that goes away, keeps silence alive, waits for no dead reader."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from inferq.errors import InferqError
from inferq.server.call import Call, Gone, Reply, Send, Streamed
from inferq.server.patience import Patience
from inferq.server.standing import standing

if TYPE_CHECKING:
    from inferq.server.app import App

log: Final = logging.getLogger("inferq.server")

SSE: Final = "text/event-stream"
_COMMENT: Final = b":\n\n"


class TooSlow(Exception):
    """The reader took nothing for longer than the server waits."""


async def pump(app: App, call: Call, reply: Reply, body: Streamed, headers: list[tuple[bytes, bytes]], send: Send, *, head: bool) -> None:
    """Send the start and all pieces. Ends without an error when the client goes away, reads too slowly, or the server stops,
    and when its key becomes void. An event stream ends then as it may at any time; any other answer is cut: its end would say that it is
    whole."""
    headers += [(b"content-type", body.media.encode()), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if head:
        await send({"type": "http.response.body", "body": b""})
        await _close(body.pieces)
        return
    writer = _Writer(send, app.writing)
    tasks = [
        asyncio.ensure_future(_write(writer, body)),
        asyncio.ensure_future(_watch(call, writer, app.settings.heartbeat if body.media == SSE else None)),
        asyncio.ensure_future(app.stopping.wait()),
        asyncio.ensure_future(standing(app).lost(call)),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        written, watched, *_ = await asyncio.gather(*tasks, return_exceptions=True)
        await _close(body.pieces)
    if isinstance(watched, Gone):
        raise watched
    if isinstance(written, TooSlow):
        app.metrics.dropped.add()
        log.info("server.reader_dropped", extra={"route": call.route.path, "request_id": call.request_id})
        await _cut(call)
        return
    if isinstance(written, Exception):
        # Headers are gone: all that is left is to cut the answer short, so that the client sees that it is not whole.
        ours = isinstance(written, InferqError)
        log.log(
            logging.WARNING if ours else logging.ERROR,
            "server.stream_failed",
            exc_info=None if ours else written,
            extra={"request_id": call.request_id, "error": str(written) if ours else type(written).__name__},
        )
        await _cut(call)
        return
    if isinstance(written, asyncio.CancelledError) and body.media != SSE:
        await _cut(call)
        return
    with suppress(TooSlow):
        await writer.put(b"", more=False)


async def _cut(call: Call) -> None:
    """Cut the connection and see it end: an application that is done before counts as broken, and is logged so."""
    if abort(call.scope):
        while (await call.receive())["type"] != "http.disconnect":
            pass


def abort(scope: Any) -> bool:
    """Cut the connection now, where our server runs the application; other servers close it when they can."""
    cut = scope.get("inferq.abort")
    if cut is not None:
        cut()
    return cut is not None


class _Writer:
    def __init__(self, send: Send, patience: Patience) -> None:
        self._send = send
        self._patience = patience
        self.busy = False
        self.wrote = True

    async def put(self, piece: bytes, *, more: bool = True) -> None:
        """One piece, whole. Raises TooSlow."""
        self.busy = self.wrote = True
        try:
            await self._patience.wait(self._send({"type": "http.response.body", "body": piece, "more_body": more}))
        except TimeoutError:
            raise TooSlow from None
        finally:
            self.busy = False


async def _write(writer: _Writer, body: Streamed) -> None:
    async for piece in body.pieces:
        await writer.put(piece)


async def _watch(call: Call, writer: _Writer, heartbeat: float | None) -> None:
    """Raises Gone when the client goes away; until then, says something whenever nothing was said for a while."""
    receiving = asyncio.ensure_future(call.receive())
    try:
        while True:
            done, _ = await asyncio.wait({receiving}, timeout=heartbeat)
            if done:
                if receiving.result()["type"] == "http.disconnect":
                    raise Gone
                receiving = asyncio.ensure_future(call.receive())
            elif not writer.busy and not writer.wrote:
                with suppress(TooSlow):
                    await writer.put(_COMMENT)
            writer.wrote = False
    finally:
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)


async def _close(pieces: Any) -> None:
    closing = getattr(pieces, "aclose", None)
    if closing is not None:
        await closing()
