"""Export and import of the store of a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import msgspec

from inferq.archive import Imported
from inferq.client.transport import Transport, get, post
from inferq.door.archive import ArchiveDoor
from inferq.errors import ProtocolError

_LONG: Final = 7 * 86_400.0
"""Seconds that sending an archive may take."""


class RemoteArchive(ArchiveDoor):
    """The server makes its archive on its own disk first, so that a slow reader holds up nobody."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def pieces(self, *, keys: bool = False) -> AsyncGenerator[bytes]:
        last = b""
        async with self._transport.stream(get("store", "export", query={"keys": keys}), timeout=_LONG) as reply:
            async for piece in reply.chunks():
                yield piece
                last = (last + piece)[-200:]
        if b'{"kind":"end"' not in last:
            raise ProtocolError(f"the archive from {self._transport.origin} is cut short; ask again")

    async def take(self, pieces: AsyncIterator[bytes], *, dry_run: bool = False) -> Imported:
        request = post("store", "import", query={"dry_run": dry_run})
        request = msgspec.structs.replace(request, headers={"Content-Type": "application/x-ndjson"})
        async with self._transport.stream(request, body=pieces, timeout=_LONG) as reply:
            body = b"".join([piece async for piece in reply.chunks()])
        return self._transport.decoded(body, Imported)
