"""The store over HTTP, for operators: its numbers, its soundness, a copy of it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from inferq.access import may, require_everything
from inferq.errors import StoreError
from inferq.server.call import Call, Reply, Streamed
from inferq.server.route import Plain, Route, route
from inferq.store import StoreStats
from inferq.wire.native import Listing

_MEDIA: Final = "application/vnd.sqlite3"
_PIECE: Final = 1024 * 1024
_NAME: Final = "inferq.db"


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
    copy = _Copy(call)
    if call.scope["method"] == "HEAD":
        return Reply(Streamed(copy, _MEDIA))
    try:
        await call.until_gone(copy.make())
    except BaseException:
        await copy.aclose()
        raise
    return Reply(Streamed(copy, _MEDIA))


class _Copy:
    """A copy of the store in a temporary folder, read piece by piece. It is made before the answer begins: a disk that is too small is a
    refusal, not an answer cut short. No generator: one that was never begun would not clear up."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._directory: Path | None = None
        self._copying: asyncio.Future[None] | None = None
        self._place = 0

    async def make(self) -> None:
        """Raises StoreError."""
        try:
            self._directory = Path(tempfile.mkdtemp(prefix="inferq-backup-"))
        except OSError as error:
            raise StoreError(f"expected a temporary folder for the copy, got: {error.strerror or error}; name one by TMPDIR") from error
        self._copying = asyncio.ensure_future(self._call.queue.backup(self._directory / _NAME))
        await asyncio.shield(self._copying)

    def __aiter__(self) -> _Copy:
        return self

    async def __anext__(self) -> bytes:
        if self._directory is None:
            raise StopAsyncIteration
        piece = await asyncio.to_thread(_read, self._directory / _NAME, self._place)
        if not piece:
            raise StopAsyncIteration
        self._place += len(piece)
        return piece

    async def aclose(self) -> None:
        """In a task of its own: whoever leaves while this is under way must not cancel it."""
        directory, self._directory = self._directory, None
        if directory is not None:
            await asyncio.shield(asyncio.create_task(self._remove(directory)))

    async def _remove(self, directory: Path) -> None:
        # A copy goes on in its thread when the reader has left: removed before its end, it would be written anew and stay.
        if self._copying is not None:
            await asyncio.wait({self._copying})
            if not self._copying.cancelled():
                self._copying.exception()
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def _read(file: Path, place: int) -> bytes:
    """Opened for each piece: a reader that goes away in between leaves nothing open."""
    with file.open("rb") as copy:
        copy.seek(place)
        return copy.read(_PIECE)


ROUTES: Final[list[Route]] = [stats, check, backup]
