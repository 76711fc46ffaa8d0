"""`queue.archive` for programs without an event loop."""

from __future__ import annotations

import functools
from pathlib import Path

from inferq.archive import Imported
from inferq.door.archive import ArchiveDoor, Told
from inferq.sync.group import Group


class Archive(Group[ArchiveDoor]):
    """The whole store as a file for another store, and such a file on its way in."""

    def export(self, path: str | Path, *, keys: bool = False, told: Told | None = None) -> int:
        """Write the archive into a new file: whole, or not at all. How many bytes it has. Raises StoreError when the file exists."""
        heard = None if told is None else functools.partial(self._queue.tell, told)
        return self._queue.call(self._asynchronous.export(path, keys=keys, told=heard))

    def load(self, path: str | Path, *, dry_run: bool = False, told: Told | None = None) -> Imported:
        """Take a file in; see `ArchiveDoor.take`. Raises OSError, InvalidTask, StoreError."""
        heard = None if told is None else functools.partial(self._queue.tell, told)
        return self._queue.call(self._asynchronous.load(path, dry_run=dry_run, told=heard))
