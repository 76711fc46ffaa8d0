"""The file itself: opening with the right pragmas, migrations, sound or not, copies; every way it fails gets a name and a remedy."""

from __future__ import annotations

import errno
import os
import re
import secrets
import sqlite3
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

import msgspec

from inferq.errors import (
    ConfigError,
    InferqError,
    SchemaTooNew,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreRefused,
)
from inferq.stores.sqlite.rows import decode_events, decode_result
from inferq.stores.sqlite.statements import MIGRATIONS

Durability = Literal["full", "normal"]

APPLICATION_ID: Final = 0x696E6671  # "infq", so that no other program's database is taken for ours
MEMORY: Final = ":memory:"
_BUSY_MS: Final = 10_000
_ADDRESS: Final = re.compile(r"(?:localhost|[\w-]+(?:\.[\w-]+)+):\d{1,5}")
_CACHE_KIB: Final = 20_000


def path_of(url: str) -> str:
    """The file behind `sqlite:///relative.db`, `sqlite:////absolute.db`, `sqlite://:memory:` or a plain path.

    One file has one name here, whatever links lead to it and wherever the program goes later: its locks stand beside it.
    """
    given: object = url
    if not isinstance(given, str) or "\x00" in given:
        raise ConfigError(f"expected a store URL such as sqlite:///inferq.db or sqlite://:memory:, got {url!r}")
    if url in ("sqlite://", "sqlite://:memory:", "sqlite:///:memory:", MEMORY):
        return MEMORY
    scheme, mark, rest = url.partition("://")
    if not mark:
        return _no_address(os.path.realpath(url))
    if scheme != "sqlite" or not rest.startswith("/") or len(rest) < 2:
        raise ConfigError(f"expected a store URL such as sqlite:///inferq.db or sqlite://:memory:, got {url!r}")
    return _no_address(os.path.realpath(rest[1:]))


def _no_address(path: str) -> str:
    """A file is not made of what was meant as a server's address. Raises ConfigError."""
    name = os.path.basename(path)
    if _ADDRESS.fullmatch(name) and not os.path.exists(path):
        raise ConfigError(f"expected a store, got {name!r}, which looks like a server's address; write http://{name} for the server")
    return path


def open_file(path: str, durability: Durability) -> sqlite3.Connection:
    """The write connection, migrated; raises a StoreError with the remedy in one line."""
    if path != MEMORY:
        _check_place(Path(path))
    try:
        db = connect(path)
    except sqlite3.Error as error:
        raise named(error, path) from error
    try:
        refuse_foreign(db, path)
        # Payloads of a kilobyte or two are the rule: on 4 KB pages a quarter of each page would stay empty.
        db.execute("PRAGMA page_size = 8192")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {durability.upper()}")
        db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        db.execute("PRAGMA journal_size_limit = 67108864")
        db.execute("PRAGMA temp_store = MEMORY")
        migrate(db)
    except sqlite3.Error as error:
        db.close()
        raise named(error, path) from error
    except InferqError:
        db.close()
        raise
    return db


def open_reader(path: str) -> sqlite3.Connection:
    """A connection that cannot write; each thread has its own."""
    db = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000)
    db.execute("PRAGMA query_only = ON")
    db.execute("PRAGMA cache_size = -8000")
    return db


def connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000, cached_statements=256)


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise StoreError(f"expected a file for the store, but {path} is a directory; give a file in it, such as {path / 'inferq.db'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreReadOnly(
            f"expected to create {path.parent} for the store, got: {error.strerror}; choose a place you may write to"
        ) from error
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise StoreReadOnly(f"expected to write {path}, but it or its directory is read-only; change the rights or choose another place")


def refuse_foreign(db: sqlite3.Connection, path: str) -> None:
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION_ID:
        if version > len(MIGRATIONS):
            raise SchemaTooNew(
                f"{path} has schema {version}, this inferq knows up to {len(MIGRATIONS)}; upgrade inferq, or open a backup made before"
            )
        return
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application or tables:
        raise StoreDamaged(f"{path} is another program's database, not a store of inferq; choose another file")


def migrate(db: sqlite3.Connection, to: int = len(MIGRATIONS)) -> None:
    """Apply what is missing, each migration in a transaction of its own; two processes at once apply it once."""
    while True:
        db.execute("BEGIN IMMEDIATE")
        try:
            done = db.execute("PRAGMA user_version").fetchone()[0]
            if done >= to:
                db.execute("COMMIT")
                return
            for statement in _statements(MIGRATIONS[done][1]):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {done + 1}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _statements(script: str) -> list[str]:
    found: list[str] = []
    part = ""
    for line in script.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            found.append(part)
            part = ""
    return found


def named(error: sqlite3.Error, path: str) -> InferqError:
    """Our error for SQLite's, by its result code (https://sqlite.org/rescode.html), with what to do about it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_FULL:
            return StoreFull(f"the disk that holds {path} is full; nothing of this command was stored: free some space and try again")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StoreReadOnly(f"expected to write {path}, but it is read-only; change the rights or choose another place")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreLocked(f"another process held the write lock of {path} for more than {_BUSY_MS // 1000} s; try again, or end it")
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return StoreDamaged(f"{path} is not a sound database ({error}); restore a backup, or move it away to start anew")
        case sqlite3.SQLITE_CANTOPEN:
            return StoreError(f"expected to open {path}, got: {error}; check that the place exists and may be written")
        case sqlite3.SQLITE_IOERR:
            return StoreError(f"the disk that holds {path} answered with an error ({error}); nothing of this command was stored")
        case sqlite3.SQLITE_CONSTRAINT | sqlite3.SQLITE_TOOBIG | sqlite3.SQLITE_MISMATCH | sqlite3.SQLITE_RANGE:
            return StoreRefused(f"the store {path} cannot keep this: {error}")
        case _:
            return StoreError(f"the store {path} refused a command: {error}")


def moment(db: sqlite3.Connection) -> sqlite3.Connection:
    """A connection of its own that sees the store as it is now, whatever is committed while it is read; whoever asked closes it."""
    path = next((file for _, name, file in db.execute("PRAGMA database_list") if name == "main"), "")
    if not path:
        copy = sqlite3.connect(MEMORY, isolation_level=None, check_same_thread=False)
        db.backup(copy)
        return copy
    reader = open_reader(path)
    reader.execute("BEGIN")
    # SQLite takes the snapshot with the first read.
    reader.execute("SELECT 1 FROM meta LIMIT 1").fetchone()
    return reader


def copy_to(reader: sqlite3.Connection, path: Path) -> None:
    """A consistent copy by SQLite's online backup, written beside its place and renamed: never half a copy under that name."""
    if path.exists():
        raise StoreError(f"expected a new file for the backup, but {path} exists; choose another name or remove it")
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        target = sqlite3.connect(part)
        try:
            # In one step: a stepped backup begins anew whenever somebody writes. In WAL mode it holds nobody up.
            reader.backup(target, pages=-1)
            target.execute("PRAGMA journal_mode = DELETE")
        finally:
            target.close()
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.rename(path)
    except (sqlite3.Error, OSError) as error:
        for left in (part, part.with_name(f"{part.name}-journal")):
            left.unlink(missing_ok=True)
        raise _not_copied(error, path) from error


def _not_copied(error: sqlite3.Error | OSError, path: Path) -> InferqError:
    full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL or getattr(error, "errno", 0) == errno.ENOSPC
    if full:
        return StoreFull(f"the disk that holds {path} is full; no copy was made: free some space, or copy to another place")
    if isinstance(error, sqlite3.Error):
        return named(error, str(path))
    return StoreError(f"expected to write {path}, got: {error}")


_SOUND: Final = (
    (
        "counter",
        """SELECT c.state, c.tasks, (SELECT count(*) FROM task AS t WHERE t.state = c.state) AS real
        FROM counter AS c WHERE c.tasks <> real""",
    ),
    (
        "bytes",
        """SELECT c.state, c.bytes, (SELECT coalesce(sum(t.bytes), 0) FROM task AS t WHERE t.state = c.state) AS real
        FROM counter AS c WHERE c.bytes <> real""",
    ),
    (
        "flow length",
        """SELECT f.id, f.length, (SELECT count(*) FROM task AS t INDEXED BY task_ready WHERE t.flow = f.id AND t.state = 1) AS real
        FROM flow AS f WHERE f.length <> real""",
    ),
    (
        "flow head",
        """SELECT f.id, f.head, (SELECT min(seq) FROM task AS t INDEXED BY task_ready WHERE t.flow = f.id AND t.state = 1) AS real
        FROM flow AS f WHERE f.head IS NOT real""",
    ),
    (
        "batch",
        """SELECT b.id, b.waiting || ' waiting, ' || b.running || ' running, ' || (b.completed + b.failed + b.cancelled - b.pruned)
            || ' ended' AS said,
            (SELECT coalesce(sum(t.state < 2), 0) || ' waiting, ' || coalesce(sum(t.state = 2), 0) || ' running, '
            || coalesce(sum(t.state > 2), 0) || ' ended' FROM task AS t WHERE t.batch = b.number) AS real
        FROM batch AS b WHERE said <> real""",
    ),
    (
        "task without payload",
        "SELECT t.seq, t.id, 0 FROM task AS t LEFT JOIN payload AS p ON p.seq = t.seq WHERE p.seq IS NULL",
    ),
    (
        "submission that is not JSON",
        """SELECT t.seq, t.id, 'otherwise' FROM task AS t JOIN payload AS p ON p.seq = t.seq
        WHERE NOT json_valid(CAST(p.spec AS TEXT))""",
    ),
    (
        "completed task without result",
        "SELECT t.seq, t.id, 0 FROM task AS t LEFT JOIN result AS r ON r.seq = t.seq WHERE t.state = 3 AND r.seq IS NULL",
    ),
    (
        "running task without instance",
        "SELECT t.seq, t.id, t.worker FROM task AS t WHERE t.state = 2 AND t.worker NOT IN (SELECT number FROM instance)",
    ),
)

_READABLE: Final = (
    ("event log row", "SELECT position, body FROM event", decode_events),
    ("result of task", "SELECT t.id, r.body FROM result AS r JOIN task AS t ON t.seq = r.seq", decode_result),
)


def problems(db: sqlite3.Connection) -> list[str]:
    """SQLite's own check of the pages, then ours of what must agree; one line each."""
    lines = [line for (text,) in db.execute("PRAGMA quick_check(20)") for line in text.splitlines()]
    found = [f"pages: {line}" for line in lines if line != "ok"]
    if found:
        return found
    db.execute("BEGIN")
    try:
        for what, statement in _SOUND:
            rows = db.execute(statement).fetchmany(20)
            found += [f"{what}: {row[0]} says {row[1]}, the tasks say {row[2]}" for row in rows]
        for what, statement, decode in _READABLE:
            for place, body in db.execute(statement):
                try:
                    decode(body)
                except msgspec.DecodeError as error:
                    found.append(f"{what} {place} cannot be read: {error}")
    finally:
        db.execute("COMMIT")
    return found
