"""The whole store as a file for another store, as a program meets it, wherever the queue is: `queue.archive`."""

from __future__ import annotations

import asyncio
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import IO

from inferq.archive import Imported
from inferq.door.batch_sources import pieces
from inferq.errors import StoreError

Told = Callable[[int], object]
"""Called with how many bytes have been written or read."""


class ArchiveDoor(ABC):
    """Export and import: JSON lines of tasks with payloads, results and attempts, batches, schedules, webhooks, limits, switches.

    Secrets are not in it: webhooks come without theirs and disabled, keys only as hashes and only when asked for. Streams, the event log
    and the audit log stay behind; what runs is written as waiting.
    """

    @abstractmethod
    def pieces(self, *, keys: bool = False) -> AsyncIterator[bytes]:
        """The archive of one moment of the store, some lines at a time, while work goes on. Raises StoreError."""

    @abstractmethod
    async def take(self, pieces: AsyncIterator[bytes], *, dry_run: bool = False) -> Imported:
        """Take an archive in, in transactions of some hundred lines. What is there already, by id, stays as it is: after an interruption
        the same archive goes on where it was. A line that is refused is told of and passed over. With `dry_run` nothing is kept.

        Raises InvalidTask for what is no archive of a format that this version knows, StoreError.
        """

    async def export(self, path: str | Path, *, keys: bool = False, told: Told | None = None) -> int:
        """Write the archive into a new file: whole, or not at all. How many bytes it has. Raises StoreError when the file exists."""
        file = Path(path)
        if await asyncio.to_thread(file.exists):
            raise StoreError(f"expected the path of a new file, got {file}, which exists")
        beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
        size = 0
        try:
            with beside.open("xb") as out:
                pieces = self.pieces(keys=keys)
                async with aclosing(pieces):  # type: ignore[type-var]  # it is a generator
                    async for piece in pieces:
                        await asyncio.to_thread(out.write, piece)
                        size += len(piece)
                        if told is not None:
                            told(size)
                await asyncio.to_thread(out.flush)
                await asyncio.to_thread(os.fsync, out.fileno())
            os.link(beside, file)  # unlike a rename, it does not replace a file that came meanwhile
        except FileExistsError:
            raise StoreError(f"expected the path of a new file, got {file}, which exists") from None
        except OSError as error:
            raise StoreError(f"cannot write {file}: {error.strerror or error}") from error
        finally:
            beside.unlink(missing_ok=True)
        return size

    async def load(self, path: str | Path, *, dry_run: bool = False, told: Told | None = None) -> Imported:
        """Take a file in; see `take`. Raises OSError, InvalidTask, StoreError."""
        return await self.take(read_pieces(Path(path), told), dry_run=dry_run)


async def read_pieces(source: Path | IO[bytes], told: Told | None = None) -> AsyncIterator[bytes]:
    """The bytes of a file or pipe, some at a time. Raises OSError."""
    size = 0
    async for piece in pieces(source):
        size += len(piece)
        yield piece
        if told is not None:
            told(size)
