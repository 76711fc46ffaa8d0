"""Export and import of the store in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final

from inferq.archive import FORMAT, LONGEST_LINE, Closing, Imported, Item, Opening, Wrong, decoded, is_blank, submissions
from inferq.clock import Clock
from inferq.door.archive import ArchiveDoor
from inferq.errors import Forbidden, InvalidTask
from inferq.store import Store
from inferq.task import Submission

_BITE_LINES: Final = 500
_BITE_BYTES: Final = 4 * 1024 * 1024
"""Of one transaction: what a crash may leave to be done again, and what others may have to wait for."""
_MOST_ERRORS: Final = 1000

Allow = Callable[[Submission], object]
"""Raises Forbidden for what may not come this way."""


class LocalArchive(ArchiveDoor):
    """`allow` sees what tasks and schedules of an import would run."""

    def __init__(self, store: Store, clock: Clock, *, allow: Allow | None = None) -> None:
        self._store = store
        self._clock = clock
        self._allow = allow

    def allowing(self, allow: Allow) -> LocalArchive:
        """The same for whom not everything is allowed."""
        return LocalArchive(self._store, self._clock, allow=allow)

    def pieces(self, *, keys: bool = False) -> AsyncGenerator[bytes]:
        return self._store.export(keys=keys)

    async def take(self, pieces: AsyncIterator[bytes], *, dry_run: bool = False) -> Imported:
        taking = _Taking(self._store, self._clock, self._allow, dry_run=dry_run)
        async for line in _lines(pieces):
            await taking.line(line)
        return await taking.end()


class _Taking:
    """One import on its way."""

    def __init__(self, store: Store, clock: Clock, allow: Allow | None, *, dry_run: bool) -> None:
        self._store = store
        self._clock = clock
        self._allow = allow
        self._dry = dry_run
        self._number = 0
        self._begun = False
        self._bite: list[tuple[int, Item]] = []
        self._bytes = 0
        self._added: Counter[str] = Counter()
        self._present = 0
        self._wrong = 0
        self._errors: list[Wrong] = []
        self._tasks = 0
        self._closed = False

    async def line(self, line: bytes) -> None:
        """Raises InvalidTask when the archive does not begin as one."""
        self._number += 1
        if is_blank(line):
            return
        try:
            if len(line) > LONGEST_LINE:
                raise InvalidTask(f"expected a line of at most {LONGEST_LINE:,} bytes")
            found = decoded(line)
            if not self._begun:
                self._begin(found)
                return
            if self._closed:
                raise InvalidTask("expected nothing after the line that ends an archive")
            if isinstance(found, Opening):
                raise InvalidTask("expected one opening line, got another")
            if isinstance(found, Closing):
                self._close(found)
                return
            for submission in submissions(found) if self._allow is not None else ():
                self._allow(submission)  # type: ignore[misc]  # there is one
        except (InvalidTask, Forbidden) as error:
            if not self._begun:
                raise InvalidTask(f"line {self._number}: this is no archive of inferq: {error}") from None
            self._refuse(self._number, str(error))
            return
        self._tasks += found.__struct_config__.tag == "task"
        self._bite.append((self._number, found))
        self._bytes += len(line)
        if len(self._bite) >= _BITE_LINES or self._bytes >= _BITE_BYTES:
            await self._restore()

    def _begin(self, found: object) -> None:
        if not isinstance(found, Opening):
            raise InvalidTask('expected {"kind":"inferq","format":1} first')
        if found.format != FORMAT:
            raise InvalidTask(f"expected format {FORMAT}, got {found.format}; a newer inferq wrote it: upgrade this one")
        self._begun = True

    def _close(self, found: Closing) -> None:
        self._closed = True
        # Those that were refused before they were counted are told of already.
        if found.tasks != self._tasks and not self._wrong:
            self._refuse(self._number, f"expected {found.tasks} tasks before the end, got {self._tasks}: lines are missing")

    def _refuse(self, number: int, reason: str) -> None:
        self._wrong += 1
        if len(self._errors) < _MOST_ERRORS:
            self._errors.append(Wrong(number, reason))

    async def _restore(self) -> None:
        bite, self._bite, self._bytes = self._bite, [], 0
        taken = await self._store.restore([item for _, item in bite], self._clock.read(), dry_run=self._dry)
        for (number, item), reply in zip(bite, taken, strict=True):
            if reply is True:
                self._added[str(item.__struct_config__.tag)] += 1
            elif reply is False:
                self._present += 1
            else:
                self._refuse(number, reply)

    async def end(self) -> Imported:
        if not self._begun:
            raise InvalidTask("this is no archive of inferq: it is empty")
        if self._bite:
            await self._restore()
        if not self._closed:
            self._refuse(self._number, "the archive is cut short: expected its last line, got its end; what came is kept")
        return Imported(
            added=dict(sorted(self._added.items())),
            present=self._present,
            wrong=self._wrong,
            errors=sorted(self._errors, key=lambda one: one.line),
            whole=self._closed,
            dry_run=self._dry,
        )


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Line by line. One that is longer than any may be comes in part."""
    parts: list[bytes] = []
    size = 0
    async for piece in pieces:
        first, *others = piece.split(b"\n")
        if size <= LONGEST_LINE:
            parts.append(first)
        size += len(first)
        for part in others:
            yield b"".join(parts)
            parts, size = [part], len(part)
    if any(parts):
        yield b"".join(parts)
