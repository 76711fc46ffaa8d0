"""The store over HTTP, for operators: its numbers, its soundness, a copy of it, archives out and in."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from inferq.access import may, require_everything
from inferq.archive import Imported, Opening
from inferq.errors import Conflict, InvalidTask, StoreError
from inferq.server.call import Call, Reply, Streamed
from inferq.server.route import Lines, Ndjson, Plain, Route, route
from inferq.store import Compacted, StoreStats
from inferq.wire.native import Listing

_MEDIA: Final = "application/vnd.sqlite3"
_PIECE: Final = 1024 * 1024
_NAME: Final = "made"


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
    return await _sent(call, call.queue.backup, _MEDIA)


class CompactQuery(msgspec.Struct, forbid_unknown_fields=True):
    dry_run: Annotated[bool, Meta(description="Only say how much would come back.")] = False


@route("POST", "/api/store/compact", role="admin", query=CompactQuery, returns={200: Compacted}, errors=(Conflict,))
async def compact(call: Call) -> Reply:
    """Give space that removed tasks have left in the store back to the disk. Nobody can write meanwhile."""
    require_everything(call.principal)
    return Reply(await call.queue.compact(dry_run=call.query.dry_run))


class ExportQuery(msgspec.Struct, forbid_unknown_fields=True):
    keys: Annotated[bool, Meta(description="Also the keys, hashed.")] = False


class ImportQuery(msgspec.Struct, forbid_unknown_fields=True):
    dry_run: Annotated[bool, Meta(description="Only say what would come of it.")] = False


@route("GET", "/api/store/export", role="admin", query=ExportQuery, returns={200: Ndjson(Opening)})
async def export(call: Call) -> Reply:
    """Give the whole store as lines of JSON for another store. The last line says `end`: an answer without it is cut short."""
    require_everything(call.principal)
    return await _sent(call, partial(call.queue.archive.export, keys=call.query.keys), "application/x-ndjson")


@route("POST", "/api/store/import", role="admin", body=Lines, query=ImportQuery, returns={200: Imported}, errors=(InvalidTask,))
async def import_(call: Call) -> Reply:
    """Take an archive in. What is there already, by id, stays as it is, so the same archive may come again. Waiting tasks and schedules
    whose executor is not open to HTTP are refused, like other lines that cannot be kept: see `errors`."""
    require_everything(call.principal)
    archive = call.queue.archive.allowing(call.queue.check_over_http)
    return Reply(await archive.take(call.body, dry_run=call.query.dry_run))


Write = Callable[[Path], Coroutine[Any, Any, object]]


async def _sent(call: Call, write: Write, media: str) -> Reply:
    """What `write` puts into a file, sent from there: a reader that takes its time holds up nothing of the store."""
    copy = _Copy(write)
    if call.scope["method"] == "HEAD":
        return Reply(Streamed(copy, media))
    try:
        await call.until_gone(copy.make())
    except BaseException:
        await copy.aclose()
        raise
    return Reply(Streamed(copy, media))


class _Copy:
    """What is made of the store, in a temporary folder, read piece by piece. It is made before the answer begins: a disk that is too small
    is a refusal, not an answer cut short. No generator: one that was never begun would not clear up."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._directory: Path | None = None
        self._copying: asyncio.Future[object] | None = None
        self._place = 0

    async def make(self) -> None:
        """Raises StoreError."""
        try:
            self._directory = Path(tempfile.mkdtemp(prefix="inferq-backup-"))
        except OSError as error:
            raise StoreError(f"expected a temporary folder for the copy, got: {error.strerror or error}; name one by TMPDIR") from error
        self._copying = asyncio.ensure_future(self._write(self._directory / _NAME))
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


ROUTES: Final[list[Route]] = [stats, check, backup, compact, export, import_]
