"""The store over HTTP, for operators: its numbers, its soundness, a copy of it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from inferq.access import may, require_everything
from inferq.server.call import Call, Reply, Streamed
from inferq.server.route import Plain, Route, route
from inferq.store import StoreStats
from inferq.wire.native import Listing

_MEDIA: Final = "application/vnd.sqlite3"
_PIECE: Final = 1024 * 1024


@route("GET", "/api/store", role="read", returns={200: StoreStats})
async def stats(call: Call) -> Reply:
    """Give the store's numbers. Its address is told to operators only."""
    require_everything(call.principal)
    found = await call.queue.store_stats()
    if not may(call.principal, "operator"):
        found = msgspec.structs.replace(found, url="")
    return Reply(found)


@route("POST", "/api/store/check", role="operator", returns={200: Listing[str]})
async def check(call: Call) -> Reply:
    """Look for damage. One line for each problem; none when it is sound."""
    require_everything(call.principal)
    return Reply(Listing(await call.queue.check()))


@route("GET", "/api/store/backup", role="admin", returns={200: Plain(_MEDIA)})
async def backup(call: Call) -> Reply:
    """Give a consistent copy of the whole store, while work goes on. An answer that is cut short is no copy."""
    require_everything(call.principal)
    return Reply(Streamed(_copy(call), _MEDIA))


async def _copy(call: Call) -> AsyncIterator[bytes]:
    directory = Path(tempfile.mkdtemp(prefix="inferq-backup-"))
    file = directory / "inferq.db"
    copying = asyncio.ensure_future(call.queue.backup(file))
    try:
        await asyncio.shield(copying)
        place = 0
        while piece := await asyncio.to_thread(_read, file, place):
            yield piece
            place += len(piece)
    finally:
        # In a task of its own: whoever leaves while this is under way must not cancel it.
        await asyncio.shield(asyncio.create_task(_remove(directory, copying)))


async def _remove(directory: Path, copying: asyncio.Future[None]) -> None:
    # A copy goes on in its thread when the reader has left: removed before its end, it would be written anew and stay.
    await asyncio.wait({copying})
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def _read(file: Path, place: int) -> bytes:
    """Opened for each piece: a reader that goes away in between leaves nothing open."""
    with file.open("rb") as copy:
        copy.seek(place)
        return copy.read(_PIECE)


ROUTES: Final[list[Route]] = [stats, check, backup]
