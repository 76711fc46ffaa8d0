"""Batches inside a write transaction: create, add lines, seal; hold, let go, cancel and drop, a bite at a time.

What must become of a batch as a whole is written down first (`aim`), and done in bites by `settle`: whoever dies in between leaves
nothing half done for long, since every process's upkeep goes on with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from inferq.batch import Batch, BatchLine, NewBatch
from inferq.clock import Now
from inferq.errors import BatchExists, BatchNotFound, InferqError, WrongState
from inferq.events import BatchCancelled, BatchCreated, BatchDropped, BatchPaused, BatchResumed, BatchSealed, TaskStaged
from inferq.stores.sqlite.arrivals import Arrivals
from inferq.stores.sqlite.batch_reads import batch_from
from inferq.stores.sqlite.changes import cancel as cancel_tasks
from inferq.stores.sqlite.rows import CANCELLED, COMPLETED, NEVER, PENDING, SCHEDULED, Row, encode
from inferq.stores.sqlite.statements import SQL, within, write_many
from inferq.stores.sqlite.transaction import Transaction
from inferq.stores.sqlite.upkeep import remove

_LINES_AT_ONCE: Final = 10
"""Lines of a dropped batch go this many times faster than tasks: they are small."""

Reply = TypeVar("Reply")


def _each(calls: Iterable[tuple[Any, ...]], change: Callable[..., Reply]) -> list[Reply | InferqError]:
    """What became of each call of a group; one that is refused has changed nothing and is answered by its own error."""
    replies: list[Reply | InferqError] = []
    for call in calls:
        try:
            replies.append(change(*call))
        except InferqError as error:
            replies.append(error)
    return replies


# ── create, add, seal ───────────────────────────────────────────────────────────────────────────────────────────────

CreateCall = tuple[NewBatch, Now]


def create(tx: Transaction, calls: Sequence[CreateCall]) -> list[Batch | InferqError]:
    replies: list[Batch | InferqError] = []
    for new, now in calls:
        row = (new.id, new.name, new.tenant, new.source, new.digest, encode(new.metadata), now.wall)
        try:
            tx.execute(SQL["add_batch"], row)
        except sqlite3.IntegrityError:
            replies.append(BatchExists(f"expected a new name, but there is a batch called {new.name!r}; resume it, or choose another"))
            continue
        tx.meta["batches"] = tx.batches + 1
        tx.events.append(BatchCreated(0, now.wall, new.id, new.name))
        replies.append(_batch(tx, new.id))
    return replies


AddCall = tuple[str, Sequence[BatchLine], Now, int | None]


def add_lines(tx: Transaction, calls: Sequence[AddCall]) -> list[int | InferqError]:
    """Each call is kept whole or not at all; lines whose number or key the batch has are passed over. Replies how many were new."""
    replies: list[int | InferqError] = []
    for id, lines, now, limit in calls:
        arrivals = Arrivals(tx)
        try:
            number, sealed, held, reason, _, _, last, _, _ = _find(tx, id)
            if reason is not None or sealed is not None:
                raise WrongState(f"expected batch {id} to be open, but it was {'sealed' if reason is None else 'cancelled'}")
            fresh = _unknown(tx, number, lines, last)
            arrivals.admitted([line.task for line in fresh], limit)
        except InferqError as error:
            replies.append(error)
            continue
        rows: list[Row] = []
        for line in fresh:
            task_id = arrivals.take(line.task, {}, now.wall, batch=(number, id), held=bool(held))
            rows.append((number, line.line, tx.seq, task_id, line.key))
        arrivals.write()
        if rows:
            write_many(tx.execute, "add_batch_line", rows)
            tx.execute(SQL["grow_batch"], (len(rows), len(rows), max(row[1] for row in rows), number))
        replies.append(len(rows))
    return replies


def _unknown(tx: Transaction, number: int, lines: Sequence[BatchLine], last: int) -> list[BatchLine]:
    """The lines whose number and key are not taken; of several with one key the first."""
    keys = [line.key for line in lines if line.key is not None]
    taken: set[str] = set()
    for start in range(0, len(keys), 256):
        statement, values = within("known_batch_keys", keys[start : start + 256])
        taken.update(key for (key,) in tx.execute(statement, [number, *values]))
    first, final = min((line.line for line in lines), default=0), max((line.line for line in lines), default=0)
    numbers = {line for (line,) in tx.execute(SQL["known_lines"], (number, first, final))} if first <= last else set()
    fresh: list[BatchLine] = []
    for line in lines:
        if line.line in numbers or line.key in taken:
            continue
        numbers.add(line.line)
        if line.key is not None:
            taken.add(line.key)
        fresh.append(line)
    return fresh


SealCall = tuple[str, Now, bool]


def seal(tx: Transaction, calls: Sequence[SealCall]) -> list[Batch | InferqError]:
    """No more lines (or again more of them); idempotent. A sealed batch with nothing left to do is finished by this very commit."""

    def one(id: str, now: Now, sealed: bool) -> Batch:
        row = _find(tx, id)
        if not sealed and row[3] is not None:
            raise WrongState(f"expected batch {id} not to be cancelled, but it was")
        if (row[1] is not None) != sealed:
            tx.execute("UPDATE batch SET sealed = ?, finished = NULL WHERE number = ?", (now.wall if sealed else None, row[0]))
            tx.ended = True
            if sealed:
                tx.events.append(BatchSealed(0, now.wall, id, _batch(tx, id).total))
        return _batch(tx, id)

    return _each(calls, one)


# ── aims ────────────────────────────────────────────────────────────────────────────────────────────────────────────

HoldCall = tuple[str, Now, bool]


def hold(tx: Transaction, calls: Sequence[HoldCall]) -> list[Batch | InferqError]:
    """Hold waiting tasks, those to come and those that come back, or let them go on; idempotent."""

    def one(id: str, now: Now, held: bool) -> Batch:
        number, _, before, reason, *_ = _find(tx, id)
        if held and reason is not None:
            raise WrongState(f"expected batch {id} not to be cancelled, but it was")
        if bool(before) != held:
            tx.execute("UPDATE batch SET held = ?, aim = ?, place = 0 WHERE number = ?", (int(held), "hold" if held else "let", number))
            tx.hold(id, number, held=held)
            tx.events.append(BatchPaused(0, now.wall, id) if held else BatchResumed(0, now.wall, id))
        return _batch(tx, id)

    return _each(calls, one)


CancelCall = tuple[str, Now, str]


def cancel(tx: Transaction, calls: Sequence[CancelCall]) -> list[Batch | InferqError]:
    """It takes no more lines, and all its tasks that have not ended will be cancelled; idempotent. A finished one stays as it is."""

    def one(id: str, now: Now, reason: str) -> Batch:
        number, sealed, _, before, _, _, _, waiting, running = _find(tx, id)
        if before is None and (sealed is None or waiting or running):
            tx.execute(SQL["cancel_batch"], (now.wall, reason[:2000], number))
            tx.hold(id, number, held=False)
            tx.events.append(BatchCancelled(0, now.wall, id, reason))
            tx.ended = True
        return _batch(tx, id)

    return _each(calls, one)


DropCall = tuple[str, Now]


def drop(tx: Transaction, calls: Sequence[DropCall]) -> list[InferqError | None]:
    """It and its tasks will be removed. Refused while some wait or run."""

    def one(id: str, now: Now) -> None:
        number, _, _, _, aim, _, _, waiting, running = _find(tx, id)
        if waiting or running:
            raise WrongState(f"expected batch {id} to have ended, but {waiting + running} of its tasks wait or run; cancel it first")
        if aim != "drop":
            tx.execute(SQL["drop_batch"], (now.wall, number))
            tx.events.append(BatchDropped(0, now.wall, id))

    return _each(calls, one)


# ── bites ───────────────────────────────────────────────────────────────────────────────────────────────────────────

SettleCall = tuple[Now, int]


def settle(tx: Transaction, calls: Sequence[SettleCall]) -> list[bool | InferqError]:
    """One bite of what batches still have to become; whether there is more."""
    return [_settle(tx, *call) for call in calls]


def _settle(tx: Transaction, now: Now, limit: int) -> bool:
    left = limit
    for number, id, aim, place, reason in tx.execute(SQL["batches_to_settle"], (limit,)).fetchall():
        moved, done = _BITES[aim](tx, (number, id, place, reason), now, left)
        left -= moved
        if done and aim != "drop":
            tx.execute("UPDATE batch SET aim = NULL, place = 0 WHERE number = ?", (number,))
        if left <= 0 or not done:
            break
    return tx.execute("SELECT 1 FROM batch WHERE aim IS NOT NULL LIMIT 1").fetchone() is not None


Bite = tuple[int, bool]
"""(tasks moved, whether nothing is left to do)"""


def _hold(tx: Transaction, batch: Row, now: Now, limit: int) -> Bite:  # noqa: ARG001 - bites share one signature
    """Out of their flows, then those that wait for their time."""
    number, _, place, _ = batch
    rows = tx.execute(SQL["batch_pending"], (number, limit)).fetchall()
    flows: dict[int, int] = {}
    for _, flow, _ in rows:
        flows[flow] = flows.get(flow, 0) + 1
    _set_never(tx, [seq for seq, _, _ in rows])
    tx.moved(PENDING, SCHEDULED, count=len(rows), size=sum(size for _, _, size in rows))
    for flow, count in flows.items():
        tx.leave(flow, count)
    if len(rows) == limit:
        return len(rows), False
    later = tx.execute(SQL["batch_scheduled"], (number, place, limit - len(rows))).fetchall()
    _set_never(tx, [seq for seq, _, _, _, due, _ in later if due != NEVER])
    if later:
        tx.execute("UPDATE batch SET place = ? WHERE number = ?", (later[-1][0], number))
    return len(rows) + len(later), len(later) < limit - len(rows)


def _set_never(tx: Transaction, seqs: list[int]) -> None:
    for start in range(0, len(seqs), 256):
        tx.execute(*within("hold_task", seqs[start : start + 256]))


def _let(tx: Transaction, batch: Row, now: Now, limit: int) -> Bite:
    """Back into their flows, each at its old place; those that were submitted for later wait for their time again."""
    number, _, place, _ = batch
    rows = tx.execute(SQL["batch_scheduled"], (number, place, limit)).fetchall()
    for seq, flow, size, id, due, at in rows:
        if due != NEVER:
            continue
        if at is not None and at > now.wall:
            tx.execute("UPDATE task SET due = ? WHERE seq = ?", (at, seq))
            continue
        tx.execute(SQL["staged"], (seq,))
        tx.moved(SCHEDULED, PENDING, size=size)
        tx.enter(flow, seq)
        tx.events.append(TaskStaged(0, now.wall, id))
    if rows:
        tx.execute("UPDATE batch SET place = ? WHERE number = ?", (rows[-1][0], number))
    return len(rows), len(rows) < limit


def _cancel(tx: Transaction, batch: Row, now: Now, limit: int) -> Bite:
    number, _, _, reason = batch
    ids: list[str] = []
    for state in (PENDING, SCHEDULED, 2):
        ids += [id for (id,) in tx.execute(SQL["batch_living"], (number, state, limit - len(ids)))]
    if ids:
        cancel_tasks(tx, [(ids, now, reason or "its batch was cancelled")])
    return len(ids), len(ids) < limit


def _drop(tx: Transaction, batch: Row, now: Now, limit: int) -> Bite:
    number, *_ = batch
    rows = tx.execute(SQL["batch_tasks"], (number, limit)).fetchall()
    living = [id for _, state, _, id in rows if state < COMPLETED]
    if living:
        # Somebody has made them again since.
        cancel_tasks(tx, [(living, now, "its batch was removed")])
    remove(tx, [(seq, CANCELLED if state < COMPLETED else state, size) for seq, state, size, _ in rows])
    if len(rows) == limit:
        return len(rows), False
    many = limit * _LINES_AT_ONCE
    if tx.execute(SQL["drop_batch_lines"], (number, number, many)).rowcount == many:
        return limit, False
    tx.execute("DELETE FROM batch WHERE number = ?", (number,))
    tx.meta["batches"] = tx.batches - 1
    return len(rows), True


_BITES: Final[dict[str, Callable[[Transaction, Row, Now, int], Bite]]] = {"hold": _hold, "let": _let, "cancel": _cancel, "drop": _drop}

# ── small things ────────────────────────────────────────────────────────────────────────────────────────────────────


def _find(tx: Transaction, id: str) -> Row:
    row: Row | None = tx.execute(SQL["find_batch"], (id,)).fetchone()
    if row is None or row[4] == "drop":
        raise BatchNotFound(f"expected the id of a batch, got {id!r}: no batch has it (it may have been pruned)")
    return row


def _batch(tx: Transaction, id: str) -> Batch:
    return batch_from(tx.execute(SQL["batch_by_id"], (id,)).fetchone())
