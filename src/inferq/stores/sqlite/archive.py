"""The whole store as lines to be carried elsewhere, and lines of another store on their way in."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final

from msgspec import UNSET, Raw

from inferq.access import KEY, TENANT
from inferq.archive import (
    FORMAT,
    RECORDS,
    Closing,
    Item,
    KeptAttempt,
    KeptBatch,
    KeptLines,
    KeptPause,
    KeptRecord,
    KeptSeal,
    KeptTask,
    Opening,
    arriving,
    encoded,
    kept_pause,
    kept_record,
    spec_of,
)
from inferq.clock import Now
from inferq.errors import InferqError
from inferq.events import QueuePaused, RecordChanged
from inferq.stores.sqlite.rows import CANCELLED, COMPLETED, FAILED, NEVER, NUMBERS, PENDING, RUNNING, SCHEDULED, STATES, Row, decode_spec
from inferq.stores.sqlite.statements import SQL, within, write_many
from inferq.stores.sqlite.transaction import Transaction
from inferq.task import FlowKey, labels_of

_LINES: Final = 500
"""Lines of a batch in one line of the archive."""

# ── out ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def lines(db: sqlite3.Connection, *, keys: bool) -> Iterator[bytes]:
    """Line by line, from a connection that sees one moment of the store."""
    yield encoded(Opening(format=FORMAT))
    for (scope,) in db.execute("SELECT scope FROM pause ORDER BY scope"):
        if (pause := kept_pause(scope)) is not None:
            yield encoded(pause)
    for kind in (*RECORDS, *((KEY,) if keys else ())):
        for row in db.execute("SELECT kind, id, version, body, created, updated FROM record WHERE kind = ? ORDER BY id", (kind,)):
            yield encoded(kept_record(*row))
    # Few and small, and asked for again below.
    batches = db.execute(SQL["archive_batches"]).fetchall()
    for row in batches:
        yield encoded(_kept_batch(row))
    count = 0
    for row in db.execute(SQL["archive_tasks"]):
        yield encoded(_kept_task(row, db.execute(SQL["archive_attempts"], (row[0],)).fetchall()))
        count += 1
    for *_, number, _ in batches:
        yield from _lines_of(db, number)
    for row in batches:
        if row[-1] is not None and _kept_batch(row).sealed is None:
            yield encoded(KeptSeal(batch=row[0], at=row[-1]))
    yield encoded(Closing(tasks=count))


def _kept_batch(row: Row) -> KeptBatch:
    id, name, tenant, source, digest, metadata, created, finished, held, reason, last, *counts, living, _, sealed = row
    completed, failed, cancelled, came, went = counts
    if sealed is not None and finished is None and (reason is not None or not living):
        # Its last tasks end on the way into the archive.
        finished = sealed
    return KeptBatch(
        id=id,
        name=name,
        tenant=tenant,
        source=source,
        digest=digest,
        metadata=Raw(metadata),
        created=created,
        sealed=None if finished is None else sealed,
        finished=finished,
        held=bool(held),
        reason=reason,
        lines=last,
        pruned=(completed, failed, cancelled),
        input_tokens=came,
        output_tokens=went,
    )


def _kept_task(row: Row, attempts: Sequence[Row]) -> KeptTask:
    _, id, state, lane, priority, size, tenant, estimate, spec, digest, batch, attempt, failures, lost, *times = row
    created, due, delay, expires, started, finished, code, error, backend, remote, result, once, held, reason, sealed = times
    if state == RUNNING:
        # As after the death of its worker: it waits again, or, where it must not be made twice, has failed.
        state, lost = PENDING, lost + 1
        if once:
            state, finished, code, error = FAILED, started, "lost", "it ran when the archive was made"
    if state < RUNNING and batch is not None:
        # What its batch is on the way to is done here.
        if reason is not None:
            state, due, delay, finished, error = CANCELLED, None, None, sealed, reason or "its batch was cancelled"
        elif held:
            state, due, delay = SCHEDULED, NEVER, None
        elif due == NEVER:
            due = decode_spec(spec).scheduled_at
            state = PENDING if due is None else SCHEDULED
    return KeptTask(
        id=id,
        state=STATES[state],
        lane=lane,
        priority=priority,
        size=size,
        tenant=tenant,
        estimate=estimate,
        spec=Raw(spec),
        digest=None if digest is None else bytes(digest).hex(),
        batch=batch,
        attempt=attempt,
        failures=failures,
        lost=lost,
        created=created,
        due=None if due == NEVER else due,
        delay=delay,
        expires=expires,
        started=started,
        finished=finished,
        code=code,
        error=error,
        backend=backend,
        remote=bool(remote),
        result=UNSET if result is None else Raw(result),
        attempts=tuple(_kept_attempt(row) for row in attempts),
    )


def _kept_attempt(row: Row) -> KeptAttempt:
    number, outcome, worker, started, ended, backend, code, error, came, went, remote, tried = row
    return KeptAttempt(
        number=number,
        outcome=outcome,
        worker=worker,
        started=started,
        ended=ended,
        backend=backend,
        code=code,
        error=error,
        input_tokens=came,
        output_tokens=went,
        remote=bool(remote),
        tried=UNSET if tried is None else Raw(tried.encode()),
    )


def _lines_of(db: sqlite3.Connection, number: int) -> Iterator[bytes]:
    (id,) = db.execute("SELECT id FROM batch WHERE number = ?", (number,)).fetchone()
    cursor = db.execute("SELECT line, id, key FROM batch_line WHERE batch = ? ORDER BY line", (number,))
    while group := cursor.fetchmany(_LINES):
        yield encoded(KeptLines(batch=id, lines=tuple(group)))


# ── in ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

RestoreCall = tuple[Sequence[Item], Now, bool]
Taken = bool | str
"""Whether the line was new, or why it was refused."""


def restore(tx: Transaction, calls: Sequence[RestoreCall]) -> list[list[Taken] | InferqError]:
    """Each line is kept whole or not at all; what is there already stays as it is. With `dry` nothing is kept."""
    return [Restoring(tx, now.wall, dry=dry).take(items) for items, now, dry in calls]


class Restoring:
    """One bite of lines."""

    def __init__(self, tx: Transaction, wall: int, *, dry: bool) -> None:
        self._tx = tx
        self._wall = wall
        self._dry = dry
        self._tasks: list[Row] = []
        self._payloads: list[Row] = []
        self._results: list[Row] = []
        self._labels: list[Row] = []
        self._attempts: list[Row] = []
        self._lines: list[Row] = []
        self._seqs: dict[str, int] = {}
        """Sequence numbers by id of the tasks that are here."""
        self._numbers: dict[str, int | None] = {}

    def take(self, items: Sequence[Item]) -> list[Taken]:
        asked = [item.id for item in items if isinstance(item, KeptTask)]
        asked += [id for item in items if isinstance(item, KeptLines) for _, id, _ in item.lines]
        for start in range(0, len(asked), 256):
            self._seqs.update(self._tx.execute(*within("seqs_of", asked[start : start + 256])).fetchall())
        taken = [self._one(item) for item in items]
        if not self._dry:
            self._write()
        return taken

    def _one(self, item: Item) -> Taken:
        match item:
            case KeptTask():
                return self._task(item)
            case KeptLines():
                return self._batch_lines(item)
            case KeptRecord():
                return self._record(item)
            case KeptBatch():
                return self._batch(item)
            case KeptSeal():
                return self._seal(item)
            case KeptPause():
                return self._pause(item)

    # tasks -----------------------------------------------------------------------------------------------------------

    def _task(self, item: KeptTask) -> Taken:
        if item.id in self._seqs:
            return False
        tx, spec = self._tx, spec_of(item)
        number = None if item.batch is None else self._number(item.batch)
        if item.batch is not None and number is None and not self._dry:
            return f"its batch {item.batch} is not here"
        if spec.key is not None and item.digest is not None:
            known = tx.execute(SQL["known_key"], (item.tenant, spec.key)).fetchone()
            if known is not None:
                return f"its key {spec.key!r} is that of task {known[0]} here"
        seq = self._seqs[item.id] = tx.seq + 1
        if self._dry:
            return True
        tx.seq = seq
        state = NUMBERS[item.state]
        flow = tx.flow_id(FlowKey(item.lane, item.priority, item.size, item.tenant))
        result = bytes(item.result) if isinstance(item.result, Raw) else b""
        size = len(bytes(item.spec)) + len(result)
        due = item.due
        if state == SCHEDULED and due is None:
            due = NEVER
        tx.dated(item.created)
        tx.moved(None, state, size=size)
        if state == PENDING:
            tx.enter(flow, seq)
        once = int(spec.at_most_once)
        counts = (item.attempt, item.failures, item.lost)
        times = (due, item.delay, item.expires, item.created, item.started, item.finished)
        rest = (item.code, item.error, size, number, item.backend, int(item.remote))
        self._tasks.append((seq, item.id, flow, state, spec.action, item.estimate, once, *counts, *times, *rest))
        self._payloads.append((seq, bytes(item.spec)))
        if result:
            self._results.append((seq, result))
        self._labels += [(name, value, seq) for name, value in labels_of(spec)]
        self._attempts += [_attempt_row(seq, attempt) for attempt in item.attempts]
        if spec.key is not None and item.digest is not None:
            tx.execute(SQL["add_key"], (item.tenant, spec.key, bytes.fromhex(item.digest), seq, item.id))
        if number is not None:
            counted = (1, int(state < RUNNING), *(int(state == final) for final in (COMPLETED, FAILED, CANCELLED)))
            tx.execute(SQL["restore_counts"], (*counted, number))
        return True

    # batches ---------------------------------------------------------------------------------------------------------

    def _number(self, id: str) -> int | None:
        if id not in self._numbers:
            row = self._tx.execute("SELECT number FROM batch WHERE id = ? AND aim IS NOT 'drop'", (id,)).fetchone()
            self._numbers[id] = row[0] if row else None
        return self._numbers[id]

    def _batch(self, item: KeptBatch) -> Taken:
        tx = self._tx
        if self._number(item.id) is not None:
            return False
        named = "SELECT id FROM batch WHERE tenant = ? AND name = ?"
        if item.name is not None and (other := tx.execute(named, (item.tenant, item.name)).fetchone()):
            return f"its name {item.name!r} is that of batch {other[0]} here"
        if self._dry:
            return True
        if tx.execute("SELECT 1 FROM batch WHERE id = ?", (item.id,)).fetchone():
            return f"batch {item.id} is being removed here; try again when it is gone"
        gone = sum(item.pruned)
        first = (item.id, item.name, item.tenant, item.source, item.digest, bytes(item.metadata), item.created, item.finished)
        then = (int(item.held), item.reason, item.lines, gone, *item.pruned, gone, item.input_tokens, item.output_tokens, item.sealed)
        number = tx.execute(SQL["restore_batch"], (*first, *then)).lastrowid
        self._numbers[item.id] = number
        tx.meta["batches"] = tx.batches + 1
        if item.held and number is not None:
            tx.hold(item.id, number, held=True)
        return True

    def _batch_lines(self, item: KeptLines) -> Taken:
        number = self._number(item.batch)
        if number is None:
            return True if self._dry else f"batch {item.batch} is not here"
        first, last = item.lines[0][0], item.lines[-1][0]
        known = {line for (line,) in self._tx.execute(SQL["known_lines"], (number, first, last))}
        fresh = [(number, line, self._seqs.get(id, 0), id, key) for line, id, key in item.lines if line not in known]
        keys = [row[4] for row in fresh if row[4] is not None]
        for start in range(0, len(keys), 256):
            statement, values = within("known_batch_keys", keys[start : start + 256])
            taken = self._tx.execute(statement, [number, *values]).fetchone()
            if taken is not None:
                return f"batch {item.batch} has another line with the key {taken[0]!r} here"
        self._lines += fresh
        return bool(fresh)

    def _seal(self, item: KeptSeal) -> Taken:
        number = self._number(item.batch)
        if number is None:
            return True if self._dry else f"batch {item.batch} is not here"
        (sealed,) = self._tx.execute("SELECT sealed FROM batch WHERE number = ?", (number,)).fetchone()
        if sealed is not None:
            return False
        if not self._dry:
            self._tx.execute("UPDATE batch SET sealed = ? WHERE number = ?", (item.at, number))
            self._tx.ended = True
        return True

    # what changes rarely ---------------------------------------------------------------------------------------------

    def _record(self, item: KeptRecord) -> Taken:
        tx = self._tx
        if tx.execute(SQL["record"], (item.type, item.id)).fetchone():
            return False
        if not self._dry:
            item = arriving(item, tx.known.position)
            tx.execute(SQL["put_record"], (item.type, item.id, item.version, bytes(item.body), item.created, item.updated))
            tx.events.append(RecordChanged(0, self._wall, item.type, item.id, item.version))
            tx.relimited = tx.relimited or item.type == TENANT
        return True

    def _pause(self, item: KeptPause) -> Taken:
        tx = self._tx
        paused = tx.known.paused if tx.paused is None else tx.paused
        if item.scope in paused:
            return False
        if not self._dry:
            tx.execute("INSERT INTO pause (scope) VALUES (?)", (item.scope,))
            tx.paused = paused | {item.scope}
            tx.events.append(QueuePaused(0, self._wall, item.scope))
        return True

    # the end ---------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        rows: list[tuple[str, list[Any]]] = [
            ("restore_task", self._tasks),
            ("add_payload", self._payloads),
            ("add_result", self._results),
            ("add_label", self._labels),
            ("add_attempt", self._attempts),
            ("add_batch_line", self._lines),
        ]
        for statement, made in rows:
            if made:
                write_many(self._tx.execute, statement, made)


def _attempt_row(seq: int, attempt: KeptAttempt) -> Row:
    return (
        seq,
        attempt.number,
        attempt.outcome,
        attempt.worker,
        attempt.started,
        attempt.ended,
        attempt.backend,
        attempt.code,
        attempt.error,
        attempt.input_tokens,
        attempt.output_tokens,
        int(attempt.remote),
        bytes(attempt.tried).decode() if isinstance(attempt.tried, Raw) else None,
    )
