"""Space that was freed inside the file goes back to the disk: VACUUM (https://sqlite.org/lang_vacuum.html), after a look at its needs."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Final

from inferq.errors import Conflict, StoreFull
from inferq.store import Compacted
from inferq.stores.sqlite.files import MEMORY
from inferq.stores.sqlite.rows import RUNNING

QUIET: Final = 256 * 1024 * 1024
"""Bytes from which on copying takes so long that leases of running tasks could end meanwhile: then nothing may run."""
_RESERVE: Final = 16 * 1024 * 1024


def compact(db: sqlite3.Connection, path: str, *, dry_run: bool) -> Compacted:
    """Outside of a transaction. Nobody writes while it copies; readers go on. Raises Conflict, StoreFull."""
    began = time.monotonic()
    size, free = _sizes(db)
    before = _on_disk(path, size)
    if not dry_run:
        _check_quiet(db, size - free)
        if path != MEMORY:
            _check_room(Path(path), size - free)
        # In memory, where its temporary tables are otherwise, the copy would be as large as the store.
        db.execute("PRAGMA temp_store = FILE")
        try:
            db.execute("VACUUM")
        finally:
            db.execute("PRAGMA temp_store = MEMORY")
        # It went through the log; what readers still hold of that goes with the next checkpoint.
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    after = _on_disk(path, _sizes(db)[0]) if not dry_run else before - free
    return Compacted(before, after, free, round(time.monotonic() - began, 3), dry_run)


def _sizes(db: sqlite3.Connection) -> tuple[int, int]:
    """Bytes of the file, and of the pages in it that nothing uses."""
    page: int = db.execute("PRAGMA page_size").fetchone()[0]
    count: int = db.execute("PRAGMA page_count").fetchone()[0]
    unused: int = db.execute("PRAGMA freelist_count").fetchone()[0]
    return count * page, unused * page


def _on_disk(path: str, size: int) -> int:
    if path == MEMORY:
        return size
    return sum(file.stat().st_size for file in (Path(path), Path(f"{path}-wal")) if file.exists())


def _check_quiet(db: sqlite3.Connection, used: int) -> None:
    (running,) = db.execute("SELECT tasks FROM counter WHERE state = ?", (RUNNING,)).fetchone()
    if running and used > QUIET:
        raise Conflict(
            f"expected nothing to run while {used / 1e6:,.0f} MB are copied, for nobody can write meanwhile, got {running} running tasks; "
            "`inferq drain --wait` first, `inferq resume` afterwards"
        )


def _check_room(path: Path, used: int) -> None:
    """The copy is made in a temporary file and then goes through the log beside the store."""
    needs: dict[int, tuple[Path, int]] = {}
    for place in (path.parent, _temporary()):
        device = place.stat().st_dev
        needs[device] = (place, needs.get(device, (place, 0))[1] + used + _RESERVE)
    for place, wanted in needs.values():
        free = shutil.disk_usage(place).free
        if free < wanted:
            raise StoreFull(
                f"expected {wanted / 1e6:,.0f} MB free at {place} to make the copy, got {free / 1e6:,.0f}; nothing was changed: free some "
                "space, or name a larger temporary folder by SQLITE_TMPDIR"
            )


def _temporary() -> Path:
    """Where SQLite puts temporary files (https://sqlite.org/tempfiles.html, section 5)."""
    named = [os.environ.get(name, "") for name in ("SQLITE_TMPDIR", "TMPDIR")]
    for place in (*named, "/var/tmp", "/usr/tmp", "/tmp"):  # noqa: S108 - as SQLite looks for them
        if place and Path(place).is_dir() and os.access(place, os.W_OK | os.X_OK):
            return Path(place)
    return Path()
