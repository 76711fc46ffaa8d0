"""Questions about batches, answered from one short read each."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from inferq.batch import Batch, BatchFailures, BatchItem, BatchState
from inferq.store import BatchFilter
from inferq.stores.sqlite.rows import NUMBERS, STATES, Row, decode_result, marks
from inferq.stores.sqlite.statements import SQL, within
from inferq.task import State, lane_parts

_COLUMNS = SQL["batch_by_id"].partition("FROM batch WHERE")[0]


def batch_from(row: Row) -> Batch:
    """A batch from the columns of `batch_by_id.sql`."""
    id, name, tenant, source, digest, metadata, created, sealed, finished, held, reason, *counts = row
    return Batch(id, name, tenant, source, digest, msgspec.json.decode(metadata), created, sealed, finished, bool(held), reason, *counts)


def get(db: sqlite3.Connection, id: str) -> Batch | None:
    row = db.execute(f"{_COLUMNS} FROM batch WHERE id = ? AND aim IS NOT 'drop'", (id,)).fetchone()
    return batch_from(row) if row else None


def find(db: sqlite3.Connection, where: BatchFilter, after: str | None, limit: int) -> list[Batch]:
    """Newest first."""
    tests, values = ["aim IS NOT 'drop'"], list[Any]()
    for column, wanted in (("name", where.name), ("tenant", where.tenant), ("source", where.source)):
        if wanted is not None:
            tests.append(f"{column} = ?")
            values.append(wanted)
    if where.prefix is not None:
        tests.append("id >= ? AND id < ?")
        values += [where.prefix, where.prefix + "\x7f"]
    if where.unfinished:
        tests.append("finished IS NULL")
    if after is not None:
        tests.append("number < (SELECT number FROM batch WHERE id = ?)")
        values.append(after)
    rows = db.execute(f"{_COLUMNS} FROM batch WHERE {' AND '.join(tests)} ORDER BY number DESC LIMIT ?", (*values, limit))
    return [batch_from(row) for row in rows]


def counts(db: sqlite3.Connection) -> dict[BatchState, int]:
    """How many are in each state."""
    states = (BatchState.CANCELLED, BatchState.FINISHED, BatchState.PAUSED, BatchState.RUNNING, BatchState.OPEN)
    return dict(zip(states, db.execute(SQL["batch_counts"]).fetchone(), strict=True))


def items(db: sqlite3.Connection, id: str, after: int, limit: int, states: Sequence[State], results: bool) -> list[BatchItem]:
    """Lines after a number, in input order, with what became of them."""
    number = _number(db, id)
    if number is None:
        return []
    body = "r.body" if results else "NULL"
    join = "LEFT JOIN result AS r ON r.seq = t.seq AND t.state = 3" if results else ""
    test = f"AND t.state IN ({marks(len(states))})" if states else ""
    statement = (
        f"SELECT l.line, l.id, l.key, t.state, t.code, t.error, t.action, f.lane, {body} "  # noqa: S608 - our names, bound values
        f"FROM batch_line AS l LEFT JOIN task AS t ON t.seq = l.seq LEFT JOIN flow AS f ON f.id = t.flow {join} "
        f"WHERE l.batch = ? AND l.line > ? {test} ORDER BY l.line LIMIT ?"
    )
    rows = db.execute(statement, (number, after, *(NUMBERS[state] for state in states), limit))
    return [
        BatchItem(
            line,
            task_id,
            None if state is None else STATES[state],
            key,
            action or "",
            "" if lane is None else lane_parts(lane)[1],
            decode_result(body) if body is not None else None,
            code,
            error or "" if state is not None else "it was pruned",
        )
        for line, task_id, key, state, code, error, action, lane, body in rows
    ]


def tasks(db: sqlite3.Connection, id: str, state: State, codes: Sequence[str], after: int, limit: int) -> list[tuple[int, str]]:
    """(sequence number, id) of its tasks in a state, in the order of submission."""
    test = f"AND code IN ({marks(len(codes))})" if codes else ""
    rows = db.execute(
        f"SELECT seq, id FROM task WHERE batch = ? AND state = ? AND seq > ? {test} ORDER BY seq LIMIT ?",  # noqa: S608 - bound values
        (_number(db, id), NUMBERS[state], after, *codes, limit),
    )
    return rows.fetchall()


def failures(db: sqlite3.Connection, id: str) -> list[BatchFailures]:
    """Failed tasks by code, the most frequent first, each with an example."""
    rows = db.execute(SQL["batch_failures"], (_number(db, id),))
    return [BatchFailures(code or "internal", count, error or "", task_id) for code, count, error, task_id in rows]


def keys(db: sqlite3.Connection, id: str, wanted: Sequence[str]) -> set[str]:
    """Those of the keys that the batch has."""
    number = _number(db, id)
    found: set[str] = set()
    for start in range(0, len(wanted), 256):
        statement, values = within("known_batch_keys", wanted[start : start + 256])
        found.update(key for (key,) in db.execute(statement, [number, *values]))
    return found


def _number(db: sqlite3.Connection, id: str) -> int | None:
    row = db.execute("SELECT number FROM batch WHERE id = ? AND aim IS NOT 'drop'", (id,)).fetchone()
    return row[0] if row else None
