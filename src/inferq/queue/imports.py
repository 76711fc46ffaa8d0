"""From lines to tasks in the store: check all of them first, keep them ready on disk, then add them in groups."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import tempfile
from array import array
from bisect import insort
from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Final

import msgspec

from inferq.batch import BatchLine, Form, Line, LineError, Reader
from inferq.errors import Forbidden, InvalidTask, StoreError, StoreFull
from inferq.task import NewTask

GROUP: Final = 500
"""Lines of one transaction: what a crash may leave to be done again, and what others may have to wait for."""

Admit = Callable[[dict[str, Any]], NewTask]
Known = Callable[[list[Line]], Any]


class Spool:
    """Checked lines on their way into the store, in a temporary file that nobody else sees. Raises StoreFull, StoreError."""

    def __init__(self) -> None:
        with _written():
            self._file: IO[bytes] = tempfile.TemporaryFile(prefix="inferq-batch-", buffering=0)  # noqa: SIM115 - closed with the spool
        self._group: list[BatchLine] = []
        self.count = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, line: BatchLine) -> None:
        self._group.append(line)
        self.count += 1
        if len(self._group) == GROUP:
            self._write()

    def _write(self) -> None:
        body = msgspec.msgpack.encode(self._group)
        piece = memoryview(len(body).to_bytes(8, "big") + body)
        with _written():
            while piece:
                piece = piece[self._file.write(piece) :]
        self._group = []

    def finish(self) -> None:
        """Everything is on the disk: what cannot be kept is known before the first line goes into the store."""
        if self._group:
            self._write()

    def groups(self) -> Iterator[list[BatchLine]]:
        """Everything that was put in, group by group, in order."""
        self._file.seek(0)
        while head := self._file.read(8):
            yield _decode(self._file.read(int.from_bytes(head, "big")))


@contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = f"{tempfile.tempdir or 'the temporary folder'}, where the checked lines of a batch wait"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreFull(f"no space is left in {place}; nothing was submitted: free some, or name another folder by TMPDIR") from error
        raise StoreError(f"expected to write to {place}; nothing was submitted: {error.strerror or error}") from error


_ALL: Final = 2**64 - 1
_decode: Final = msgspec.msgpack.Decoder(list[BatchLine]).decode


class Seen:
    """Whether a key came before, in some 20 bytes a key: fingerprints of 64 bits in an open table. That two of a million differing keys
    share one has a chance of 1 in 30 million."""

    def __init__(self) -> None:
        self._table = array("Q", bytes(8 * 1024))
        self._count = 0

    def add(self, key: str) -> bool:
        """False if it was there."""
        mark = (hash(key) & _ALL) or 1
        place = self._place(mark)
        if self._table[place]:
            return False
        self._table[place] = mark
        self._count += 1
        if 3 * self._count > 2 * len(self._table):
            before, self._table = self._table, array("Q", bytes(16 * len(self._table)))
            for known in before:
                if known:
                    self._table[self._place(known)] = known
        return True

    def _place(self, mark: int) -> int:
        """Where it stands, or would stand: 0 is an empty place."""
        table, last = self._table, len(self._table) - 1
        place = mark & last
        while table[place] and table[place] != mark:
            place = (place + 1) & last
        return place


class Check:
    """What a look at all lines found."""

    def __init__(self, *, max_errors: int) -> None:
        self.lines = self.wrong = self.skipped = self.passed = 0
        """Lines in all; wrong ones; those that are there already, and how many of these were known by their number only."""
        self.errors: list[LineError] = []
        self.digest = hashlib.blake2b(digest_size=16)
        self.max_errors = max_errors
        self._seen = Seen()

    @property
    def stopped(self) -> bool:
        """Whether it gave up for too many errors."""
        return self.wrong > self.max_errors

    def refuse(self, error: LineError) -> None:
        self.wrong += 1
        # What is wrong in itself is found before what is wrong for an executor: the first ones by number are kept.
        insort(self.errors, error, key=_number)
        del self.errors[self.max_errors :]

    async def run(
        self, pieces: AsyncIterable[bytes], form: Form, admit: Admit, spool: Spool, *, known: Known | None, max_line: int, after: int = 0
    ) -> None:
        """Read to the end, or until there are too many errors. `known(lines)` gives back those lines that are not there yet; lines up to
        number `after` are there for sure."""
        reader = Reader(form, max_line=max_line)
        async for piece in pieces:
            self.digest.update(piece)
            await self._take(reader.feed(piece), admit, spool, known, after)
            if self.stopped:
                return
            # Whoever else runs on this loop gets a turn.
            await asyncio.sleep(0)
        await self._take(reader.end(), admit, spool, known, after)
        spool.finish()

    async def _take(self, found: list[Line | LineError], admit: Admit, spool: Spool, known: Known | None, after: int) -> None:
        lines: list[Line] = []
        for line in found:
            self.lines += 1
            if isinstance(line, LineError):
                self.refuse(line)
            elif line.key is not None and not self._seen.add(line.key):
                self.refuse(LineError(line.number, f"expected a key of its own, but {line.key!r} came before", "key"))
            elif line.key is None and line.number <= after:
                self.skipped += 1
                self.passed += 1
            else:
                lines.append(line)
        if known is not None and lines:
            fresh = await known(lines)
            self.skipped += len(lines) - len(fresh)
            lines = fresh
        for line in lines:
            try:
                spool.put(BatchLine(line.number, line.key, admit(line.fields)))
            except Forbidden as error:
                error.args = (f"line {line.number}: {error}",)
                raise
            except InvalidTask as error:
                self.refuse(LineError(line.number, error.reason, error.field))


def _number(error: LineError) -> int:
    return error.number


def halfway(error: StoreError, batch: str, added: int, count: int) -> None:
    """Let the error's text say what became of the lines: those of earlier transactions are kept."""
    if added:
        kept = f"{added:,} of {count:,} lines are kept in batch {batch}"
        error.args = (f"{str(error).partition(';')[0]}; {kept}: mend that, then load the same again with resume",)
