"""What keeps the store healthy, as bounded transitions inside a write transaction: stage, expire, rescue, renew, prune."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from inferq.clock import Now
from inferq.errors import InferqError
from inferq.events import TaskFailed, TaskRescued, TasksPruned, TaskStaged
from inferq.store import Grown, Retention
from inferq.stores.sqlite.rows import FAILED, NEVER, NUMBERS, PENDING, RUNNING, SCHEDULED, Row, marks, slices
from inferq.stores.sqlite.statements import SQL
from inferq.stores.sqlite.transaction import Transaction
from inferq.task import State

StageCall = tuple[Now, int, bool]


def stage(tx: Transaction, calls: Sequence[StageCall]) -> list[int | InferqError | None]:
    return [_stage(tx, *call) for call in calls]


def _stage(tx: Transaction, now: Now, limit: int, stepped: bool) -> int | None:
    if stepped:
        tx.execute(SQL["stage_stepped"], (now.wall, now.wall))
    rows = tx.execute(SQL["stage"], (now.wall, limit)).fetchall()
    tx.executemany(SQL["staged"], [(seq,) for seq, _, _ in rows])
    for seq, id, flow in rows:
        size = tx.execute("SELECT bytes FROM task WHERE seq = ?", (seq,)).fetchone()[0]
        tx.moved(SCHEDULED, PENDING, size=size)
        tx.enter(flow, seq)
        tx.events.append(TaskStaged(0, now.wall, id))
    row = tx.execute(SQL["next_due"]).fetchone()
    return row[0] if row else None


ExpireCall = tuple[Now, int]


def expire(tx: Transaction, calls: Sequence[ExpireCall]) -> list[int | InferqError]:
    return [_expire(tx, *call) for call in calls]


def _expire(tx: Transaction, now: Now, limit: int) -> int:
    rows = tx.execute(SQL["expired"], (now.wall, limit)).fetchall()
    error = "its deadline passed while it waited"
    for seq, id, flow, state, attempt, size, batch in rows:
        tx.execute(SQL["end"], (FAILED, now.wall, "expired", error, 0, seq))
        if state == PENDING:
            tx.leave(flow)
        tx.moved(state, FAILED, size=size)
        tx.streams.append(Grown(id))
        tx.events.append(TaskFailed(0, now.wall, id, attempt, "expired", error, tx.lane(flow), None, tx.batch_id(batch)))
    return len(rows)


RescueCall = tuple[Now, int, int, Callable[[str, str, int, Now], Literal["alive", "dead", "expired"]]]
"""(now, limit, lost_limit, judge): `judge(name, boot, lease, now)` tells how an instance fares; it looks at locks, not at rows."""


def rescue(tx: Transaction, calls: Sequence[RescueCall]) -> list[int | InferqError]:
    return [_rescue(tx, *call) for call in calls]


def _rescue(
    tx: Transaction, now: Now, limit: int, lost_limit: int, judge: Callable[[str, str, int, Now], Literal["alive", "dead", "expired"]]
) -> int:
    taken = 0
    for number, name, boot, lease in tx.execute(SQL["instances"]).fetchall():
        if number == tx.number or taken >= limit or judge(name, boot, lease, now) == "alive":
            continue
        rows = tx.execute(SQL["running_of"], (number, limit - taken)).fetchall()
        for row in rows:
            _take_back(tx, row, name, now, lost_limit)
        taken += len(rows)
        if taken < limit:
            tx.execute(SQL["drop_instance"], (number,))
            tx.after_commit.append(name)
    return taken


def _take_back(tx: Transaction, row: Row, worker: str, now: Now, lost_limit: int) -> None:
    seq, id, flow, attempt, lost, at_most_once, started, size, backend, remote, batch = row
    error = f"worker {worker} vanished"
    record = (seq, attempt, "lost", worker, started, now.wall, backend, "lost", error, None, None, remote, None)
    tx.execute(SQL["add_attempt"], record)
    if at_most_once or lost + 1 >= lost_limit:
        why = f"{error}; at_most_once forbids another attempt" if at_most_once else f"{error}; lost {lost + 1} times"
        tx.execute(SQL["end"], (FAILED, now.wall, "lost", why, 1, seq))
        tx.moved(RUNNING, FAILED, size=size)
        tx.streams.append(Grown(id))
        tx.events.append(TaskFailed(0, now.wall, id, attempt, "lost", why, tx.lane(flow), backend or "", tx.batch_id(batch)))
        return
    if tx.holds(batch):
        tx.execute(SQL["wait"], (SCHEDULED, NEVER, None, 0, 1, "lost", error, seq))
        tx.moved(RUNNING, SCHEDULED, size=size)
    else:
        tx.execute(SQL["wait"], (PENDING, None, None, 0, 1, "lost", error, seq))
        tx.moved(RUNNING, PENDING, size=size)
        tx.enter(flow, seq)
    tx.events.append(TaskRescued(0, now.wall, id, attempt, worker, tx.lane(flow), backend, tx.batch_id(batch)))


RenewCall = tuple[Now, int]


def renew(tx: Transaction, calls: Sequence[RenewCall]) -> list[InferqError | None]:
    """Extend this instance's lease. (If others took it for dead, the writer has noticed before and gone on under a new name.)"""
    now, lease = calls[-1]
    tx.execute(SQL["renew"], (now.mono + lease, tx.number))
    return [None] * len(calls)


PruneCall = tuple[dict[State, Retention], Now, float, float, int]


def prune(tx: Transaction, calls: Sequence[PruneCall]) -> list[int | InferqError]:
    return [_prune(tx, *call) for call in calls]


def _prune(tx: Transaction, keep: dict[State, Retention], now: Now, chunks: float, events: float, limit: int) -> int:
    removed = 0
    for state, retention in keep.items():
        if removed < limit:
            removed += _prune_state(tx, state, retention, now, limit - removed)
        _prune_chunks(tx, state, now.wall - round(chunks * 1000), limit)
    _prune_events(tx, now.wall - round(events * 1000), limit)
    for (number,) in tx.execute(SQL["batches_gone"], (now.wall - round(events * 1000), limit)).fetchall():
        tx.execute(SQL["drop_batch"], (now.wall, number))
    if removed:
        tx.events.append(TasksPruned(0, now.wall, removed))
    return removed


_OF_A_TASK = (
    ("task", "seq"),
    ("payload", "seq"),
    ("result", "seq"),
    ("attempt", "task"),
    ("chunk", "task"),
    ("idempotency", "seq"),
    ("label", "seq"),
)


def remove(tx: Transaction, tasks: Sequence[Row]) -> None:
    """Take tasks (sequence number, state, bytes) out of every table."""
    for _, state, size in tasks:
        tx.moved(state, None, size=size)
    for part in slices(list(tasks), 500):
        seqs = [seq for seq, _, _ in part]
        for table, column in _OF_A_TASK:
            tx.execute(f"DELETE FROM {table} WHERE {column} IN ({marks(len(seqs))})", seqs)  # noqa: S608 - our names, bound values


def _prune_state(tx: Transaction, state: State, retention: Retention, now: Now, limit: int) -> int:
    tasks, size = tx.execute("SELECT tasks, bytes FROM counter WHERE state = ?", (NUMBERS[state],)).fetchone()
    tasks += tx.tasks_delta[NUMBERS[state]]
    size += tx.bytes_delta[NUMBERS[state]]
    cutoff = None if retention.age is None else now.wall - round(retention.age * 1000)
    gone: list[Row] = []
    passed = tx.known.passed
    rows = tx.execute(SQL[f"oldest_{state}"], (*passed.pop(state, (-1, -1)), limit)).fetchall()
    for seq, finished, mine, batch, ended in rows:
        old = cutoff is not None and finished < cutoff
        many = retention.count is not None and tasks > retention.count
        big = retention.bytes is not None and size > retention.bytes
        if not (old or many or big):
            break
        # Nobody has been able to collect a batch before its end: its tasks stay until then, and age from then on.
        if batch is not None and (ended is None or not (many or big or (cutoff is not None and ended < cutoff))):
            continue
        gone.append((seq, NUMBERS[state], mine))
        tasks -= 1
        size -= mine
    else:
        if len(rows) == limit and len(gone) < limit:
            # All that were looked at are old, and some of them stay: the next pass goes on behind them.
            passed[state] = (rows[-1][1], rows[-1][0])
    remove(tx, gone)
    return len(gone)


def _prune_chunks(tx: Transaction, state: State, cutoff: int, limit: int) -> None:
    """Walks the ended tasks once, by the time of their end, so that no pass looks at what an earlier one has cleared."""
    name = f"chunks_{NUMBERS[state]}"
    since = tx.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()[0]
    rows = tx.execute(SQL[f"ended_{state}"], (since, cutoff, limit)).fetchall()
    if not rows:
        return
    last = rows[-1][1]
    full = len(rows) == limit
    # Where the limit cut through tasks of one millisecond, that millisecond is left to the next pass.
    if full and rows[0][1] < last:
        rows = [row for row in rows if row[1] < last]
        last = rows[-1][1]
    elif full:
        rows = tx.execute(SQL[f"ended_{state}"], (last - 1, last, -1)).fetchall()
    tx.executemany("DELETE FROM chunk WHERE task = ?", [(seq,) for seq, _ in rows])
    tx.meta[name] = last


def _prune_events(tx: Transaction, cutoff: int, limit: int) -> None:
    rows = tx.execute(SQL["oldest_events"], (limit,)).fetchall()
    last = None
    for position, at in rows:
        if at >= cutoff:
            break
        last = position
    if last is not None:
        tx.execute("DELETE FROM event WHERE position <= ?", (last,))
