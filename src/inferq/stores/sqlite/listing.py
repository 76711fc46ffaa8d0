"""Pages of tasks that pass a search: candidates from an index, checked a bounded number at a time, so that no page walks the queue."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from inferq.errors import InvalidQuery
from inferq.query.matching import holds
from inferq.query.resolving import check_sort
from inferq.query.words import Search
from inferq.store import Cursor, Page
from inferq.stores.sqlite.conditions import Conditions, Flows, conditions
from inferq.stores.sqlite.rows import Row, task_from
from inferq.stores.sqlite.sources import Key, Order, Source, by_arrival, by_time, hull
from inferq.task import Task

BOUND: Final = 6000
"""Candidates that one page looks at where narrow columns decide; a page may then be short and still be followed by others."""
HINTED_BOUND: Final = 4000
"""The same where the text of submissions is looked at."""
DECODED_BOUND: Final = 1000
"""The same where submissions have to be decoded."""
_FIRST: Final = 200

_COLUMNS: Final = (
    "t.seq, t.id, t.state, f.lane, f.priority, f.size, f.tenant, t.estimate, t.attempt, t.failures, t.lost, i.name, "
    "t.due, t.created, t.started, t.finished, t.code, t.error, t.backend, t.remote, p.spec"
)
# CROSS JOIN keeps this order, and with it the candidates'.
_JOINED: Final = (
    "AS c CROSS JOIN task AS t ON t.seq = c.value CROSS JOIN payload AS p ON p.seq = t.seq CROSS JOIN flow AS f ON f.id = t.flow "
    "LEFT JOIN instance AS i ON i.number = t.worker"
)


def find(db: sqlite3.Connection, flows: Flows, asked: Search, after: Cursor | None, limit: int) -> Page:
    """One page. Where it ends before its limit and `after` is set, the next page goes on from there."""
    check_sort(asked)
    db.execute("BEGIN")
    try:
        flows.refresh(db)
        found = conditions(asked, flows)
        arrival = asked.sort in ("created", "-created")
        order = Order(asked.sort.startswith("-"), _key(after, arrival=arrival))
        if arrival:
            order = order._replace(**_bounds(db, asked))
            source = by_arrival(db, flows, asked, found, order)
        else:
            source = by_time(db, asked, order)
        tasks, reached = _gather(db, source, found, asked, limit)
    finally:
        db.execute("COMMIT")
    if len(tasks) > limit:
        tasks = tasks[:limit]
        reached = (tasks[-1].seq, tasks[-1].seq) if arrival else (_time_of(tasks[-1], asked), tasks[-1].seq)
    return Page(tasks, None if reached is None else reached[1] if arrival else f"{reached[0]}.{reached[1]}")


def _gather(db: sqlite3.Connection, source: Source, found: Conditions, asked: Search, limit: int) -> tuple[list[Task], Key | None]:
    """The first tasks that pass, one more than the limit if there are so many, and how far the candidates were looked at."""
    where, values = found.where()
    left = BOUND if not found.rest else HINTED_BOUND if found.hinted else DECODED_BOUND
    decoded = 0
    count = limit + 1 if found.is_everything else max(limit + 1, _FIRST)
    tasks: list[Task] = []
    while True:
        table, candidates = source.take(count)
        sql = f"SELECT {_COLUMNS} FROM {table} {_JOINED} WHERE {where}"  # noqa: S608 - our own names, bound values
        more = limit + 1 - len(tasks) if not found.rest else -1
        rows = db.execute(f"{sql} LIMIT ?", (*candidates, *values, more)).fetchall()
        tasks += _passing(rows, found, asked)
        if len(tasks) > limit:
            return tasks, None
        reached = source.reached()
        left -= count
        decoded += len(rows) if found.rest else 0
        if reached is None or left <= 0 or decoded >= DECODED_BOUND:
            return tasks, reached
        count = min(left, count * 4, DECODED_BOUND if found.rest else left)


def _passing(rows: list[Row], found: Conditions, asked: Search) -> list[Task]:
    tasks = [task_from(row) for row in rows]
    return [task for task in tasks if all(holds(task, test, asked.now) for test in found.rest)] if found.rest else tasks


def _time_of(task: Task, asked: Search) -> int:
    return (task.finished if asked.sort.endswith("finished") else task.due) or 0


def _key(after: Cursor | None, *, arrival: bool) -> Key | None:
    if after is None:
        return None
    parts = str(after).split(".")
    if all(part.isascii() and part.lstrip("-").isdecimal() and len(part) < 20 for part in parts) and len(parts) == (1 if arrival else 2):
        return (int(parts[0]), int(parts[-1]))
    raise InvalidQuery(f"expected the cursor that a page of this filter and order gave, got {after!r}; begin again without one")


def _bounds(db: sqlite3.Connection, asked: Search) -> dict[str, Any]:
    """The sequence numbers outside of which no task was created in the span that the tests leave."""
    first, last = hull(asked, "created")
    if first is None and last is None:
        return {}
    edges = db.execute("SELECT (SELECT min(seq) FROM task), (SELECT max(seq) FROM task)").fetchone()
    if edges[0] is None:
        return {}
    step: int = db.execute("SELECT value FROM meta WHERE name = 'step'").fetchone()[0]
    bounds: dict[str, Any] = {}
    if first is not None:
        bounds["low"] = _edge(db, *edges, before=first - step)
    if last is not None:
        bounds["high"] = _edge(db, *edges, after=last + step)
    return bounds


def _edge(db: sqlite3.Connection, low: int, high: int, *, before: int | None = None, after: int = 0) -> int:
    """By halving: a place before which all were created before an instant, or after which all were created after one.

    The clock may have gone back by `step` at most, and the instants leave that much room: nothing that counts is cut off.
    """
    while low <= high:
        middle = (low + high) // 2
        row = db.execute("SELECT seq, created FROM task WHERE seq >= ? ORDER BY seq LIMIT 1", (middle,)).fetchone()
        earlier = row[1] < before if before is not None else row[1] <= after
        if earlier:
            low = row[0] + 1
        else:
            high = middle - 1
    return low if before is not None else low - 1
