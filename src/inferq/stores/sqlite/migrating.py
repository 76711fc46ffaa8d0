"""Which schema a file has, and its way to a newer one as a step of its own, with a copy made before."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import msgspec

from inferq.errors import InvalidTask, SchemaTooNew, StoreError, StoreLocked
from inferq.stores.sqlite import files
from inferq.stores.sqlite.instances import taken
from inferq.stores.sqlite.statements import MIGRATIONS


class Schema(msgspec.Struct, frozen=True):
    """What a file has and what this program knows; names of migrations in their order. `backup` is the copy that was made."""

    path: str
    schema: int
    known: int
    applied: tuple[str, ...]
    pending: tuple[str, ...]
    backup: str | None = None


def look(url: str) -> Schema:
    """What opening the store would do; changes nothing. Raises SchemaTooNew, StoreError."""
    path = _path(url)
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)) as db:
            files.refuse_foreign(db, path)
            version: int = db.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise files.named(error, path) from error
    names = [name for name, _ in MIGRATIONS]
    return Schema(path, version, len(names), tuple(names[:version]), tuple(names[version:]))


def migrate(url: str, *, to: int | None = None, backup: bool = True) -> Schema:
    """Bring a file that nobody has open to schema `to` (default: the newest), each migration in a transaction of its own.

    Before that a copy is made beside it. Raises InvalidTask for a schema that it cannot be brought to, StoreLocked, StoreError.
    """
    found = look(url)
    aim = found.known if to is None else to
    if aim > found.known:
        raise SchemaTooNew(f"this inferq knows schemas up to {found.known}, got {aim}; upgrade inferq")
    if aim < found.schema:
        raise InvalidTask(f"expected {found.schema} or more, got {aim}: a store never goes back; restore a backup made before", field="to")
    if aim == found.schema:
        return found
    if users := taken(Path(f"{found.path}-instances")):
        raise StoreLocked(f"{found.path} is open in {', '.join(users)}, which know its old schema only: stop them first")
    copy = Path(f"{found.path}.schema-{found.schema}.bak")
    if backup:
        with closing(files.open_reader(found.path)) as reader:
            files.copy_to(reader, copy)
    try:
        with closing(files.connect(found.path)) as db:
            files.migrate(db, aim)
    except sqlite3.Error as error:
        raise files.named(error, found.path) from error
    return msgspec.structs.replace(look(url), backup=str(copy) if backup else None)


def _path(url: str) -> str:
    path = files.path_of(url)
    if path == files.MEMORY:
        raise StoreError("a store in memory begins with the newest schema")
    if not Path(path).is_file():
        raise StoreError(f"expected a store's file, but there is none at {path}; whoever opens it first makes it")
    return path
