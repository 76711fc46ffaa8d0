"""Changes from outside, as transitions inside a write transaction: cancel, reprioritize, retry, pause, resume."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from inferq.clock import Now
from inferq.errors import InferqError, TaskNotFound, WrongState
from inferq.events import PriorityChanged, QueuePaused, QueueResumed, TaskCancelled, TaskDeleted, TaskRetried, TaskStaged
from inferq.executor import Chunk
from inferq.store import Grown
from inferq.stores.sqlite.rows import CANCELLED, COMPLETED, FAILED, PENDING, RUNNING, SCHEDULED, STATES, Row, decode_spec, encode
from inferq.stores.sqlite.statements import SQL, within
from inferq.stores.sqlite.transaction import Transaction
from inferq.stores.sqlite.upkeep import remove

Reply = list[WrongState | None] | InferqError


def _each(tx: Transaction, ids: Sequence[str], change: Callable[[str, Row], WrongState | None]) -> Reply:
    rows: list[Row] = []
    for id in ids:
        row = tx.execute(SQL["find_task"], (id,)).fetchone()
        if row is None:
            return TaskNotFound.of(id)
        rows.append(row)
    return [change(id, row) for id, row in zip(ids, rows, strict=True)]


def _wrong(id: str, state: int, wanted: str) -> WrongState:
    return WrongState(f"expected task {id} to be {wanted}, but it is {STATES[state]}")


CancelCall = tuple[Sequence[str], Now, str]


def cancel(tx: Transaction, calls: Sequence[CancelCall]) -> list[Reply]:
    """Waiting or running tasks end now; a running one's claim is void from this commit on."""

    def run(ids: Sequence[str], now: Now, reason: str) -> Reply:
        cancelled: set[str] = set()

        def one(id: str, row: Row) -> WrongState | None:
            seq, flow, state, attempt, started, size, _, batch = row
            if state >= COMPLETED or id in cancelled:
                return None if id in cancelled else _wrong(id, state, "waiting or running")
            cancelled.add(id)
            place = None
            if state == RUNNING:
                worker, backend, remote = tx.execute(SQL["worker_of"], (seq,)).fetchone()
                ended = (started, now.wall, backend, None, reason or None, None, None, remote, None)
                record = (seq, attempt, "cancelled", worker or "", *ended)
                tx.execute(SQL["add_attempt"], record)
                place = backend or ""
                tx.dropped.add(seq)
                tx.forgotten.append((seq, attempt))
            tx.execute(SQL["end"], (CANCELLED, now.wall, None, reason[:2000] or None, 0, seq))
            if state == PENDING:
                tx.leave(flow)
            tx.moved(state, CANCELLED, size=size)
            tx.streams.append(Grown(id))
            tx.events.append(TaskCancelled(0, now.wall, id, attempt, reason, tx.lane(flow), place, tx.batch_id(batch)))
            return None

        return _each(tx, ids, one)

    return [run(*call) for call in calls]


MoveCall = tuple[Sequence[str], int, Now]


def reprioritize(tx: Transaction, calls: Sequence[MoveCall]) -> list[Reply]:
    """Waiting tasks move to the flow of that priority and keep their sequence numbers."""

    def run(ids: Sequence[str], priority: int, now: Now) -> Reply:
        def one(id: str, row: Row) -> WrongState | None:
            seq, _, state, *_ = row
            if state >= RUNNING:
                return _wrong(id, state, "waiting")
            # The row was read before an earlier id of this call may have moved the same task.
            current = tx.execute("SELECT flow FROM task WHERE seq = ?", (seq,)).fetchone()[0]
            key = tx.flow(current).key
            if key.priority != priority:
                target = tx.flow_id(msgspec.structs.replace(key, priority=priority))
                tx.execute(SQL["move"], (target, seq))
                if state == PENDING:
                    tx.leave(current)
                    tx.enter(target, seq)
                tx.events.append(PriorityChanged(0, now.wall, id, key.priority, priority))
            return None

        return _each(tx, ids, one)

    return [run(*call) for call in calls]


RetryCall = tuple[Sequence[str], Now, int | None, bool]


def retry(tx: Transaction, calls: Sequence[RetryCall]) -> list[Reply]:
    """Failed or cancelled tasks wait again: same place, fresh retry budget, the deadlines that may have killed them gone. With a priority
    they move to it; with `due` those that wait for their time are due now."""

    def run(ids: Sequence[str], now: Now, priority: int | None, due: bool) -> Reply:
        again: set[str] = set()

        def one(id: str, row: Row) -> WrongState | None:
            seq, flow, state, attempt, _, size, _, batch = row
            if id in again:
                return None
            parked = due and state == SCHEDULED and not tx.holds(batch)
            if state not in (FAILED, CANCELLED) and not parked:
                return _wrong(id, state, "failed, cancelled or scheduled" if due else "failed or cancelled")
            again.add(id)
            flow = _at_priority(tx, seq, id, flow, priority, now)
            if parked:
                tx.execute(SQL["staged"], (seq,))
                tx.moved(SCHEDULED, PENDING, size=size)
                tx.enter(flow, seq)
                tx.events.append(TaskStaged(0, now.wall, id))
                return None
            grown = _without_deadlines(tx, seq)
            _reopen_stream(tx, seq, id, attempt)
            tx.execute(SQL["again"], (seq,))
            tx.moved(state, PENDING, size=size)
            if grown:
                tx.execute("UPDATE task SET bytes = bytes + ? WHERE seq = ?", (grown, seq))
                tx.bytes_delta[PENDING] += grown
            if batch is not None:
                # What is made again is wanted again.
                tx.execute("UPDATE batch SET reason = NULL WHERE number = ? AND aim IS NOT 'cancel'", (batch,))
            if tx.holds(batch):
                tx.execute(*within("hold_task", [seq]))
                tx.moved(PENDING, SCHEDULED, size=size + grown)
            else:
                tx.enter(flow, seq)
            tx.events.append(TaskRetried(0, now.wall, id))
            return None

        return _each(tx, ids, one)

    return [run(*call) for call in calls]


def _at_priority(tx: Transaction, seq: int, id: str, flow: int, priority: int | None, now: Now) -> int:
    """The flow of that priority, to which a task that stands in none is moved."""
    key = tx.known_key(flow)
    if priority is None or key.priority == priority:
        return flow
    target = tx.flow_id(msgspec.structs.replace(key, priority=priority))
    tx.execute(SQL["move"], (target, seq))
    tx.events.append(PriorityChanged(0, now.wall, id, key.priority, priority))
    return target


def _reopen_stream(tx: Transaction, seq: int, id: str, attempt: int) -> None:
    """A reset record takes the place of the `end` that was derived there, so that the next end has a place of its own."""
    row = tx.execute(SQL["newest_chunk"], (seq,)).fetchone()
    last = row[1] + 1 if row and row[0] == attempt else 1
    reset = Chunk("reset", data={"attempt": attempt + 1, "reason": "it was asked to be made again"})
    tx.execute(SQL["add_chunk"], (seq, attempt, last, encode([reset])))
    tx.streams.append(Grown(id))


def _without_deadlines(tx: Transaction, seq: int) -> int:
    stored = tx.execute("SELECT spec FROM payload WHERE seq = ?", (seq,)).fetchone()[0]
    spec = decode_spec(stored)
    if spec.deadline is None and spec.start_deadline is None:
        return 0
    spec.deadline = spec.start_deadline = None
    fresh = encode(spec)
    tx.execute("UPDATE payload SET spec = ? WHERE seq = ?", (fresh, seq))
    return len(fresh) - len(stored)


DeleteCall = tuple[Sequence[str], Now]


def delete(tx: Transaction, calls: Sequence[DeleteCall]) -> list[Reply]:
    """Ended tasks leave every table; there is no way back, so that those who wait or run are refused."""

    def run(ids: Sequence[str], now: Now) -> Reply:
        gone: dict[str, Row] = {}

        def one(id: str, row: Row) -> WrongState | None:
            seq, _, state, _, _, size, *_ = row
            if state < COMPLETED:
                return _wrong(id, state, "completed, failed or cancelled")
            if id not in gone:
                gone[id] = (seq, state, size)
                tx.events.append(TaskDeleted(0, now.wall, id))
            return None

        reply = _each(tx, ids, one)
        remove(tx, list(gone.values()))
        return reply

    return [run(*call) for call in calls]


PauseCall = tuple[str, Now]


def pause(tx: Transaction, calls: Sequence[PauseCall]) -> list[InferqError | None]:
    for scope, now in calls:
        paused = tx.known.paused if tx.paused is None else tx.paused
        if scope not in paused:
            tx.execute("INSERT INTO pause (scope) VALUES (?)", (scope,))
            tx.paused = paused | {scope}
            tx.events.append(QueuePaused(0, now.wall, scope))
    return [None] * len(calls)


def resume(tx: Transaction, calls: Sequence[PauseCall]) -> list[InferqError | None]:
    for scope, now in calls:
        paused = tx.known.paused if tx.paused is None else tx.paused
        if scope in paused:
            tx.execute("DELETE FROM pause WHERE scope = ?", (scope,))
            tx.paused = paused - {scope}
            tx.events.append(QueueResumed(0, now.wall, scope))
    return [None] * len(calls)
