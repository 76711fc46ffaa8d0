"""The limits that inferq is measured against: SQLite alone, and the smallest group-commit front that answers coroutines."""

from __future__ import annotations

import asyncio
import json
import queue
import random
import sqlite3
import sys
import threading
import time
from typing import Any

_SCHEMA = """
CREATE TABLE task (
    id TEXT PRIMARY KEY, queue TEXT NOT NULL, priority INTEGER NOT NULL, status INTEGER NOT NULL,
    created REAL NOT NULL, started REAL, finished REAL, attempt INTEGER NOT NULL DEFAULT 0, payload TEXT NOT NULL, result TEXT
);
CREATE INDEX task_ready ON task (queue, priority DESC, id) WHERE status = 0;
CREATE INDEX task_status ON task (status, created);
"""
_INSERT = "INSERT INTO task (id, queue, priority, status, created, payload) VALUES (?, 'q', ?, 0, ?, ?)"
_PAYLOAD = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 940}], "temperature": 0.7})
SWITCH_SECONDS = 0.0001

Row = tuple[str, int, float, str]


def row() -> Row:
    """A task with 1 KB of payload and an id that rises with time, 32 characters long."""
    stamp = time.time()
    return f"{int(stamp * 1e6):016x}{random.getrandbits(64):016x}", random.randrange(5), stamp, _PAYLOAD


def opened(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA cache_size = -64000")
    db.executescript(_SCHEMA)
    return db


def inserts(path: str, count: int, group: int) -> dict[str, float]:
    """Rows straight into SQLite, `group` a commit; the rows are made beforehand."""
    db = opened(path)
    rows = [row() for _ in range(count)]
    begun = time.perf_counter()
    for first in range(0, count, group):
        db.execute("BEGIN IMMEDIATE")
        db.executemany(_INSERT, rows[first : first + group])
        db.execute("COMMIT")
    took = time.perf_counter() - begun
    db.close()
    return {"per_second": count / took}


class Front:
    """Coroutines await `add`; one thread inserts whatever has gathered and commits it at once; futures are answered afterwards."""

    def __init__(self, path: str, switch_seconds: float = SWITCH_SECONDS) -> None:
        sys.setswitchinterval(switch_seconds)
        self._db = opened(path)
        self._loop = asyncio.get_running_loop()
        self._gathered: list[tuple[Row, asyncio.Future[None]]] = []
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    async def add(self) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append((row(), future))
        await future

    def _hand_over(self) -> None:
        self._inbox.put(self._gathered)
        self._gathered = []

    def _write(self) -> None:
        while (batch := self._inbox.get()) is not None:
            try:
                while (more := self._inbox.get_nowait()) is not None:
                    batch += more
                self._inbox.put(None)
            except queue.Empty:
                pass
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(_INSERT, [item[0] for item in batch])
            self._db.execute("COMMIT")
            self._loop.call_soon_threadsafe(self._answer, batch)

    def _answer(self, batch: list[tuple[Row, asyncio.Future[None]]]) -> None:
        for _, future in batch:
            future.set_result(None)

    def close(self) -> None:
        self._inbox.put(None)
        self._thread.join()
        self._db.close()
