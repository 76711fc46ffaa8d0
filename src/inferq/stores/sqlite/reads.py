"""Questions, answered from one short read transaction each; nothing is held open while anybody streams."""

from __future__ import annotations

import sqlite3
from collections import Counter

from inferq.events import Event
from inferq.executor import Chunk, Usage
from inferq.store import Ahead, Counts, Executed, LoggedChunk, Position, Record
from inferq.stores.sqlite.rows import STATES, decode_chunks, decode_result, decode_tried, readable_events, task_from
from inferq.stores.sqlite.statements import SQL
from inferq.task import AttemptRecord, Task, TaskResult


def get(db: sqlite3.Connection, id: str) -> Task | None:
    row = db.execute(SQL["task_by_id"], (id,)).fetchone()
    return task_from(row) if row else None


def result(db: sqlite3.Connection, id: str) -> TaskResult | None:
    row = db.execute(SQL["result_by_id"], (id,)).fetchone()
    return decode_result(row[0]) if row else None


def attempts(db: sqlite3.Connection, id: str) -> list[AttemptRecord]:
    """The attempt that completed has no row of its own: the task and its result say everything about it."""
    db.execute("BEGIN")
    try:
        rows = db.execute(SQL["attempts_by_id"], (id,)).fetchall()
        last = db.execute(SQL["completion_by_id"], (id,)).fetchone()
    finally:
        db.execute("COMMIT")
    found = [
        AttemptRecord(number, outcome, worker, started, ended, backend, code, error or "", came, went, bool(remote), decode_tried(tried))
        for number, outcome, worker, started, ended, backend, code, error, came, went, remote, tried in rows
    ]
    if last is not None:
        number, started, ended, body = last
        result = decode_result(body)
        usage = result.usage or Usage()
        worker = result.worker or ""
        found.append(
            AttemptRecord(
                number,
                "completed",
                worker,
                started,
                ended,
                result.backend,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                remote=result.remote,
                tried=result.tried,
            )
        )
    return found


def chunks(db: sqlite3.Connection, id: str, after: Position, limit: int) -> list[LoggedChunk]:
    """The log after a place. Its terminal record is derived from the task's own state, so that it is written with it or not at all."""
    db.execute("BEGIN")
    try:
        row = db.execute(SQL["stream_of"], (id,)).fetchone()
        if row is None:
            return []
        seq, state, attempt = row
        rows = db.execute(SQL["chunks_after"], (seq, after.attempt, after.index, limit)).fetchall()
        newest = db.execute(SQL["newest_chunk"], (seq,)).fetchone()
    finally:
        db.execute("COMMIT")
    found: list[LoggedChunk] = []
    for number, last, body in rows:
        pieces = decode_chunks(body)
        first = last - len(pieces) + 1
        for index, piece in enumerate(pieces, first):
            if (number, index) > (after.attempt, after.index):
                found.append(LoggedChunk(Position(number, index), piece))
    found = found[:limit]
    read_to = found[-1].position if found else after
    at_end = newest is None or (newest[0], newest[1]) <= (read_to.attempt, read_to.index)
    if STATES[state].is_final and at_end and len(found) < limit:
        end = Position(attempt, newest[1] + 1 if newest and newest[0] == attempt else 1)
        if end > after:
            found.append(LoggedChunk(end, Chunk("end", str(STATES[state]))))
    return found


def events(db: sqlite3.Connection, after: int, limit: int) -> list[Event]:
    found: list[Event] = []
    cursor = db.execute(SQL["events_after"], (after, limit))
    for _, body in cursor:
        found += [event for event in readable_events(body) if event.position > after]
        if len(found) >= limit:
            break
    cursor.close()
    return found[:limit]


def last_event(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT value FROM meta WHERE name = 'position'").fetchone()
    return int(row[0])


def record(db: sqlite3.Connection, kind: str, id: str) -> Record | None:
    row = db.execute(SQL["record"], (kind, id)).fetchone()
    return Record(*row) if row else None


def records(db: sqlite3.Connection, kind: str, after: str, limit: int) -> list[Record]:
    return [Record(*row) for row in db.execute(SQL["records"], (kind, after, limit))]


def executed(db: sqlite3.Connection) -> list[Executed]:
    running = Counter((backend or "", bool(remote)) for backend, remote in db.execute(SQL["running_on"]))
    done = {(backend, bool(remote)): tasks for backend, remote, tasks in db.execute("SELECT backend, remote, tasks FROM executed")}
    return [Executed(*place, done.get(place, 0), running[place]) for place in sorted(done.keys() | running.keys()) if place[0]]


_FLOWS_COUNTED = 1000
"""Flows of a task's own priority that are looked into before counting stops."""


def ahead(db: sqlite3.Connection, id: str, bound: int) -> Ahead | None:
    """Flows of higher priority by their lengths; those of the same priority by what stands in them before the task."""
    db.execute("BEGIN")
    try:
        place = db.execute(SQL["place_of"], (id,)).fetchone()
        if place is None:
            return None
        seq, own, _, priority = place
        lanes: dict[str, int] = {}
        equal: list[tuple[int, str]] = []
        for flow, lane, theirs, _, _, head, length in db.execute(SQL["waiting_flows"]):
            if theirs > priority:
                lanes[lane] = lanes.get(lane, 0) + length
            elif theirs == priority and head < seq and flow != own:
                equal.append((flow, lane))
        left = bound
        mine = db.execute(SQL["before_in_flow"], (own, seq, left)).fetchone()[0]
        more = mine >= bound
        lanes[place[2]] = lanes.get(place[2], 0) + mine
        left -= mine
        for flow, lane in equal[:_FLOWS_COUNTED]:
            if left <= 0:
                break
            count = db.execute(SQL["before_in_flow"], (flow, seq, left)).fetchone()[0]
            lanes[lane] = lanes.get(lane, 0) + count
            left -= count
    finally:
        db.execute("COMMIT")
    return Ahead(mine, {lane: count for lane, count in lanes.items() if count}, more or left <= 0 or len(equal) > _FLOWS_COUNTED)


def paused(db: sqlite3.Connection) -> frozenset[str]:
    return frozenset(scope for (scope,) in db.execute("SELECT scope FROM pause"))


def waiting_deliveries(db: sqlite3.Connection) -> int:
    return int(db.execute(SQL["waiting_deliveries"]).fetchone()[0])


def counts(db: sqlite3.Connection) -> Counts:
    states = {str(STATES[number]): tasks for number, tasks in db.execute("SELECT state, tasks FROM counter")}
    by_priority: dict[int, int] = {}
    by_lane: dict[str, int] = {}
    for lane, priority, length in db.execute("SELECT lane, priority, length FROM flow WHERE length > 0"):
        by_priority[priority] = by_priority.get(priority, 0) + length
        by_lane[lane] = by_lane.get(lane, 0) + length
    return Counts(states, by_priority, by_lane)
