"""The methods of the SQLite store that carry all of it elsewhere, take it in, or give its space back."""

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from inferq.clock import Now
from inferq.errors import StoreDamaged
from inferq.store import Compacted
from inferq.stores.sqlite import compacting, files
from inferq.stores.sqlite.writer import Verb

if TYPE_CHECKING:
    from inferq.archive import Item

T = TypeVar("T")

_BITE: Final = 1 << 20
"""Bytes of an archive that are made at a time."""


class ArchiveVerbs(ABC):
    """What `inferq.store.Store` promises of archives and of compacting."""

    _path: str

    @abstractmethod
    def _call(self, verb: Verb | None, args: Any) -> asyncio.Future[Any]: ...

    @abstractmethod
    async def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T: ...

    async def export(self, *, keys: bool = False) -> AsyncGenerator[bytes]:
        from inferq.stores.sqlite import archive

        source = await self._ask(files.moment)
        try:
            made = archive.lines(source, keys=keys)
            while bite := await asyncio.to_thread(self._bite, made):
                yield bite
        finally:
            await asyncio.to_thread(source.close)

    def _bite(self, made: Iterator[bytes]) -> bytes:
        """Some lines together."""
        size, found = 0, list[bytes]()
        try:
            for line in made:
                found.append(line)
                size += len(line)
                if size >= _BITE:
                    break
        except sqlite3.Error as error:
            raise files.named(error, self._path) from error
        except msgspec.DecodeError as error:
            raise StoreDamaged(f"what {self._path} holds cannot be read ({error}); see `inferq db check`, or restore a backup") from error
        return b"".join(found)

    async def restore(self, items: Sequence[Item], now: Now, *, dry_run: bool = False) -> list[bool | str]:
        from inferq.stores.sqlite import archive

        taken: list[bool | str] = await self._call(archive.restore, (items, now, dry_run))
        return taken

    async def compact(self, *, dry_run: bool = False) -> Compacted:
        # By the writer, between two commits: nobody here can be in its way.
        found: Compacted = await self._call(None, partial(compacting.compact, path=self._path, dry_run=dry_run))
        return found
