"""Claims, as transitions inside a write transaction: given out to attempts, looked at before each write, chunks appended under them."""

from __future__ import annotations

import heapq
import secrets
import sqlite3
from collections.abc import Sequence

import msgspec

from inferq.clock import Now
from inferq.errors import ClaimLost, InferqError
from inferq.events import TaskFailed, TaskStarted
from inferq.executor import Chunk
from inferq.policy import Want
from inferq.store import Grown
from inferq.stores.sqlite.limits import Room
from inferq.stores.sqlite.rows import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    Row,
    encode,
)
from inferq.stores.sqlite.statements import SQL, within, write_many
from inferq.stores.sqlite.transaction import Transaction
from inferq.task import Claim, FlowKey, State, Submission, Task, is_paused

_END = 2**63 - 1
_BOUND = 500

# ── claim ───────────────────────────────────────────────────────────────────────────────────────────────────────────

ClaimCall = tuple[Sequence[Want], Now]


def claim(tx: Transaction, calls: Sequence[ClaimCall]) -> list[list[list[Claim]] | InferqError]:
    room = Room(tx) if tx.known.limits else None
    return [[_claim_want(tx, want, now, room) for want in wants] for wants, now in calls]


Popped = tuple[int, str, int, int, int, int, int, int, Submission]
"""(seq, id, estimate, attempt before, failures, lost, created, bytes, submission)"""

_decode_popped = msgspec.json.Decoder(list[Popped]).decode
_decode_heads = msgspec.json.Decoder(list[tuple[int, str, int, int, int, int, int, int, Submission, int | None]]).decode
_MANY = 4
"""Flows in a tier from which on it may pay to take heads instead of ranges."""
_AT_ONCE = 256


def _claim_want(tx: Transaction, want: Want, now: Now, room: Room | None) -> list[Claim]:
    token = secrets.randbits(62) + 1
    paused = tx.known.paused if tx.paused is None else tx.paused
    left = want.limit
    claims: list[Claim] = []
    for tier in want.tiers:
        if left <= 0:
            break
        taken = _pop_tier(tx, tier, left, (token, tx.number, now.wall, want.pool, want.remote), paused, room)
        claims += [_claim_from(tx, flow, popped, token, now, want) for flow, popped in taken]
        left -= len(taken)
    return claims


def _pop_tier(
    tx: Transaction, tier: Sequence[int | FlowKey], limit: int, stamp: Row, paused: frozenset[str], room: Room | None
) -> list[tuple[FlowKey, Popped]]:
    """The first tasks over these flows by sequence number: a merge of flows by their heads."""
    heap: list[tuple[int, int]] = []
    for named in tier:
        flow = tx.peek(named)
        if flow is not None and flow.head is not None and not (paused and is_paused(flow.key.lane, paused)):
            heap.append((flow.head, flow.id))
    if room is not None:
        # Where none of these tenants has a limit, claiming costs what it always does.
        rooms = {number: room.left(tx.known_key(number)) for _, number in heap}
        heap = [entry for entry in heap if rooms[entry[1]] != 0]
        room = room if any(rooms[number] is not None for _, number in heap) else None
    heapq.heapify(heap)
    taken: list[tuple[FlowKey, Popped]] = []
    singly = len(heap) > _MANY
    while heap and len(taken) < limit:
        left = limit - len(taken)
        if room is not None:
            taken += _pop_limited(tx, heap, left, stamp, room)
            continue
        got = _pop_heads(tx, heap, left, stamp) if singly else _pop_range(tx, heap, left, stamp)
        taken += got
        # Many flows that take turns are served by their heads; where one flow runs ahead of the others, by a range of it.
        singly = len(heap) > _MANY and (len(got) * 4 >= min(left, len(heap)) if singly else len(got) == 1)
    return taken


def _pop_range(tx: Transaction, heap: list[tuple[int, int]], limit: int, stamp: Row) -> list[tuple[FlowKey, Popped]]:
    """The first flow's tasks that stand before the next flow's head."""
    _, number = heapq.heappop(heap)
    before = heap[0][0] if heap else _END
    tasks = _claimable(tx, number, before, limit)
    if tasks:
        tx.execute(SQL["claim"], (*stamp, number, tasks[-1][0]))
        tx.moved(PENDING, RUNNING, count=len(tasks), size=sum(task[7] for task in tasks))
        tx.leave(number, len(tasks))
    else:
        _end_unreadable(tx, number, wall=stamp[2])
    flow = tx.flow(number)
    if flow.head is not None:
        heapq.heappush(heap, (flow.head, number))
    return [(flow.key, task) for task in tasks]


def _pop_limited(tx: Transaction, heap: list[tuple[int, int]], limit: int, stamp: Row, room: Room) -> list[tuple[FlowKey, Popped]]:
    """As `_pop_range`, where tenants may have only so many running; the flow of one without room leaves the heap."""
    key = tx.known_key(heap[0][1])
    left = room.left(key)
    if left is not None and left <= 0:
        heapq.heappop(heap)
        return []
    taken = _pop_range(tx, heap, limit if left is None else min(limit, left), stamp)
    room.take(key, len(taken))
    return taken


def _end_unreadable(tx: Transaction, number: int, *, wall: int) -> None:
    """A task whose submission is damaged fails, so that it does not hold up those behind it."""
    seq = tx.flow(number).head
    id, attempt, size, batch = tx.execute("SELECT id, attempt, bytes, batch FROM task WHERE seq = ?", (seq,)).fetchone()
    error = "its submission cannot be read: the store is damaged, see `inferq db check`"
    tx.execute(SQL["end"], (FAILED, wall, "internal", error, 0, seq))
    tx.moved(PENDING, FAILED, size=size)
    tx.leave(number)
    tx.streams.append(Grown(id))
    tx.events.append(TaskFailed(0, wall, id, attempt, "internal", error, tx.flow(number).key.lane, None, tx.batch_id(batch)))


def _pop_heads(tx: Transaction, heap: list[tuple[int, int]], limit: int, stamp: Row) -> list[tuple[FlowKey, Popped]]:
    """The first flows' heads in one statement, as far as no flow's second task stands before another's first."""
    asked = [seq for seq, _ in heapq.nsmallest(min(limit, _AT_ONCE), heap)]
    try:
        text = tx.execute(*within("claimable_heads", asked)).fetchone()[0]
        found = {row[0]: row for row in _decode_heads(b"[%b]" % text)}
    except (sqlite3.DataError, msgspec.DecodeError):
        # Together longer than SQLite's longest text, or one of them cannot be read: flow by flow.
        return _pop_range(tx, heap, 1, stamp)
    taken: list[tuple[FlowKey, Popped]] = []
    while heap and heap[0][0] in found:
        seq, number = heapq.heappop(heap)
        row = found[seq]
        task: Popped = row[:9]
        following = row[9]
        flow = tx.flow(number)
        flow.head, flow.length = following, flow.length - 1
        if following is not None:
            heapq.heappush(heap, (following, number))
        taken.append((flow.key, task))
    statement, seqs = within("claim_heads", [task[0] for _, task in taken])
    tx.execute(statement, (*stamp, *seqs))
    tx.moved(PENDING, RUNNING, count=len(taken), size=sum(task[7] for _, task in taken))
    return taken


def _claimable(tx: Transaction, number: int, before: int, limit: int) -> list[Popped]:
    """The first tasks of a flow; empty if its head cannot be read."""
    try:
        text = tx.execute(SQL["claimable"], (number, before, limit)).fetchone()[0]
        tasks = _decode_popped(b"[%b]" % text)
    except (sqlite3.DataError, msgspec.DecodeError):
        # Together longer than SQLite's longest text (10^9 bytes), or one of them cannot be read: one by one.
        return _claimable(tx, number, before, 1) if limit > 1 else []
    tasks.sort(key=_seq)
    return tasks


def _seq(task: Popped) -> int:
    return task[0]


def _claim_from(tx: Transaction, key: FlowKey, popped: Popped, token: int, now: Now, want: Want) -> Claim:
    seq, id, estimate, before, failures, lost, created, size, spec = popped
    attempt = before + 1
    task = Task(id, seq, State.RUNNING, key, spec, estimate, attempt, failures, lost, tx.name, None, created, now.wall)
    task.backend, task.remote = want.pool, want.remote
    if before and tx.execute(SQL["last_chunk"], (seq,)).fetchone():
        last = tx.next_chunk(seq, attempt, 1)
        reset = Chunk("reset", data={"attempt": attempt, "reason": "a new attempt began"})
        tx.execute(SQL["add_chunk"], (seq, attempt, last, encode([reset])))
        tx.streams.append(Grown(id, attempt, last, [reset]))
    if spec.start_deadline is not None:
        # It has started: from now on only its deadline can end it while it waits for a retry.
        tx.execute("UPDATE task SET expires = ? WHERE seq = ?", (spec.deadline, seq))
    tx.held[seq] = (attempt, token, size)
    tx.events.append(TaskStarted(0, now.wall, id, attempt, tx.name, key.lane))
    return Claim(task, attempt, token, tx.name)


# ── append ──────────────────────────────────────────────────────────────────────────────────────────────────────────

AppendCall = tuple[Sequence[tuple[Claim, Sequence[Chunk]]], Now]


def append(tx: Transaction, calls: Sequence[AppendCall]) -> list[list[ClaimLost | None] | InferqError]:
    replies: list[list[ClaimLost | None] | InferqError] = []
    rows: list[Row] = []
    for items, _ in calls:
        errors: list[ClaimLost | None] = []
        for held, chunks in items:
            error, _ = standing(tx, held)
            errors.append(error)
            if error is None and chunks:
                seq = held.task.seq
                last = tx.next_chunk(seq, held.attempt, len(chunks))
                rows.append((seq, held.attempt, last, encode(chunks)))
                tx.streams.append(Grown(held.task.id, held.attempt, last - len(chunks) + 1, chunks))
        replies.append(errors)
    if rows:
        write_many(tx.execute, "add_chunk", rows)
    return replies


def standing(tx: Transaction, held: Claim) -> tuple[ClaimLost | None, int]:
    """While the claim is valid, None and the task's bytes; else the error that says by what it was superseded."""
    seq = held.task.seq
    sure = tx.held.get(seq) or tx.known.held.get(seq)
    if sure is not None and sure[0] == held.attempt and sure[1] == held.token and seq not in tx.dropped:
        return None, sure[2]
    row = tx.execute(SQL["standing"], (seq,)).fetchone()
    if row is None:
        return ClaimLost(f"task {held.task.id} is gone: it was pruned", reason="gone"), 0
    state, attempt, token, size = row
    if state == RUNNING and attempt == held.attempt and token == held.token:
        return None, size
    reason = "superseded"
    if attempt == held.attempt and state == CANCELLED:
        reason = "cancelled"
    elif attempt == held.attempt and state in (COMPLETED, FAILED):
        reason = "finished"
    return ClaimLost(f"the claim of attempt {held.attempt} of task {held.task.id} is no longer valid: {reason}", reason=reason), 0
