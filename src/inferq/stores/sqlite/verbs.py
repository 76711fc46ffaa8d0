"""A task's way, as transitions inside a write transaction: claim, append, finish. Each takes the calls of one group together."""

from __future__ import annotations

import heapq
import secrets
import sqlite3
from collections.abc import Sequence

import msgspec

from inferq.clock import Now
from inferq.errors import ClaimLost, InferqError
from inferq.events import TaskCancelled, TaskCompleted, TaskFailed, TaskReleased, TaskRetrying, TaskStaged, TaskStarted
from inferq.executor import Answer, Chunk
from inferq.policy import Want
from inferq.store import Grown
from inferq.stores.sqlite.limits import Room
from inferq.stores.sqlite.rows import (
    CANCELLED,
    COMPLETED,
    FAILED,
    NEVER,
    PENDING,
    RUNNING,
    SCHEDULED,
    Row,
    encode,
)
from inferq.stores.sqlite.statements import SQL, within, write_many
from inferq.stores.sqlite.transaction import Transaction
from inferq.task import Claim, FlowKey, Outcome, State, Submission, Task, TaskResult, Timing

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
    if "*" not in paused:
        for named in tier:
            flow = tx.peek(named)
            if flow is not None and flow.head is not None and flow.key.lane not in paused:
                heap.append((flow.head, flow.id))
    if room is not None:
        # Where none of these tenants has a limit, claiming costs what it always does.
        rooms = {number: room.left(tx.known_key(number).tenant) for _, number in heap}
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
    tenant = tx.known_key(heap[0][1]).tenant
    left = room.left(tenant)
    if left is not None and left <= 0:
        heapq.heappop(heap)
        return []
    taken = _pop_range(tx, heap, limit if left is None else min(limit, left), stamp)
    room.take(tenant, len(taken))
    return taken


def _end_unreadable(tx: Transaction, number: int, *, wall: int) -> None:
    """A task whose submission is damaged fails, so that it does not hold up those behind it."""
    seq = tx.flow(number).head
    id, attempt, size = tx.execute("SELECT id, attempt, bytes FROM task WHERE seq = ?", (seq,)).fetchone()
    error = "its submission cannot be read: the store is damaged, see `inferq db check`"
    tx.execute(SQL["end"], (FAILED, wall, "internal", error, 0, seq))
    tx.moved(PENDING, FAILED, size=size)
    tx.leave(number)
    tx.streams.append(Grown(id))
    tx.events.append(TaskFailed(0, wall, id, attempt, "internal", error, tx.flow(number).key.lane))


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


# ── finish ──────────────────────────────────────────────────────────────────────────────────────────────────────────

FinishCall = tuple[Sequence[tuple[Claim, Outcome]], Now]


def finish(tx: Transaction, calls: Sequence[FinishCall]) -> list[list[ClaimLost | None] | InferqError]:
    """One guarded transition an attempt; what completed is written in bulk, the rarer endings one by one."""
    replies: list[list[ClaimLost | None] | InferqError] = []
    done: list[Row] = []
    results: list[Row] = []
    ended: set[int] = set()
    before = after = 0
    for items, now in calls:
        errors: list[ClaimLost | None] = [None] * len(items)
        replies.append(errors)
        for place, (held, outcome) in enumerate(items):
            seq = held.task.seq
            error, size = standing(tx, held)
            if error is None and seq in ended:
                error = ClaimLost(f"attempt {held.attempt} of task {held.task.id} has already ended", reason="finished")
            if error is not None:
                errors[place] = error
                continue
            ended.add(seq)
            body, final = _kept(held, outcome, now) if outcome.kind == "completed" else (b"", outcome)
            if final.kind != "completed":
                _ended_otherwise(tx, held, final, size, now)
                continue
            done.append((seq, now.wall, len(body)))
            results.append((seq, body))
            before += size
            after += size + len(body)
            _completed(tx, held, outcome, now.wall)
    if done:
        write_many(tx.execute, "complete", done)
        write_many(tx.execute, "add_result", results)
        tx.moved(RUNNING, None, count=len(done), size=before)
        tx.moved(None, COMPLETED, count=len(done), size=after)
    tx.dropped.update(ended)
    return replies


def _kept(held: Claim, outcome: Outcome, now: Now) -> tuple[bytes, Outcome]:
    """The result as it will be stored; an answer that JSON cannot hold makes the attempt a failure instead."""
    try:
        return encode(_result_of(held, outcome, now)), outcome
    except (TypeError, ValueError, OverflowError, RecursionError) as wrong:
        return b"", Outcome.failed("internal", f"its answer cannot be kept as JSON: {wrong!r}", backend=outcome.backend)


def _result_of(held: Claim, outcome: Outcome, now: Now) -> TaskResult:
    task = held.task
    answer = outcome.answer or Answer()
    started = task.started or now.wall
    return TaskResult(
        task.id,
        answer.text,
        answer.message,
        answer.embeddings,
        answer.data,
        answer.finish_reason,
        answer.model or task.spec.model or None,
        answer.usage,
        outcome.backend,
        held.worker,
        held.attempt,
        Timing(max(0, started - task.created) / 1000, max(0, now.wall - started) / 1000),
        answer.raw,
        outcome.remote,
        outcome.tried,
    )


def _completed(tx: Transaction, held: Claim, outcome: Outcome, wall: int) -> None:
    """What else a completion means. Its attempt record is derived from the result when somebody asks."""
    task = held.task
    started = task.started or wall
    if outcome.backend is not None:
        place = (outcome.backend, outcome.remote)
        tx.executed[place] = tx.executed.get(place, 0) + 1
        if outcome.tried:
            tx.execute(SQL["moved_backend"], (*place, task.seq))
    tx.forgotten.append((task.seq, held.attempt))
    tx.streams.append(Grown(task.id))
    usage = outcome.usage
    came, went = (usage.input_tokens, usage.output_tokens) if usage else (None, None)
    if task.spec.batch is not None and usage is not None:
        tokens = tx.tokens.setdefault(task.spec.batch, [0, 0])
        tokens[0] += came or 0
        tokens[1] += went or 0
    waited, ran = max(0, started - task.created), max(0, wall - started)
    tx.events.append(TaskCompleted(0, wall, task.id, held.attempt, waited, ran, task.flow.lane, outcome.backend, came, went))


def _attempt_row(held: Claim, outcome: Outcome, now: Now) -> Row:
    usage = outcome.usage
    return (
        held.task.seq,
        held.attempt,
        outcome.kind,
        held.worker,
        held.task.started,
        now.wall,
        outcome.backend,
        outcome.code,
        outcome.error or None,
        usage.input_tokens if usage else None,
        usage.output_tokens if usage else None,
        outcome.remote,
        encode(outcome.tried).decode() if outcome.tried else None,
    )


def _ended_otherwise(tx: Transaction, held: Claim, outcome: Outcome, size: int, now: Now) -> None:
    task = held.task
    code, error = outcome.code, outcome.error[:2000] or None
    tx.forgotten.append((task.seq, held.attempt))
    tx.execute(SQL["add_attempt"], _attempt_row(held, outcome, now))
    if outcome.tried and outcome.backend is not None:
        tx.execute(SQL["moved_backend"], (outcome.backend, outcome.remote, task.seq))
    if outcome.kind in ("failed", "cancelled"):
        state = FAILED if outcome.kind == "failed" else CANCELLED
        tx.execute(SQL["end"], (state, now.wall, code, error, 0, task.seq))
        tx.moved(RUNNING, state, size=size)
        tx.streams.append(Grown(task.id))
        if state == FAILED:
            tx.events.append(TaskFailed(0, now.wall, task.id, held.attempt, code, outcome.error, task.flow.lane))
        else:
            tx.events.append(TaskCancelled(0, now.wall, task.id, held.attempt, outcome.error, task.flow.lane))
        return
    at = outcome.at if outcome.delay is None else now.wall + outcome.delay
    at = at if at is not None and at > now.wall else None
    if tx.holds(task.spec.batch):
        at = NEVER
    burnt = 1 if outcome.kind == "retry" else 0
    flow = tx.flow_id(task.flow)
    if outcome.lane is not None and outcome.lane != task.flow.lane:
        flow = tx.flow_id(msgspec.structs.replace(task.flow, lane=outcome.lane))
        tx.execute(SQL["move"], (flow, task.seq))
    if at is None:
        tx.execute(SQL["wait"], (PENDING, None, None, burnt, 0, code, error, task.seq))
        tx.moved(RUNNING, PENDING, size=size)
        tx.enter(flow, task.seq)
    else:
        delay = None if at == NEVER else at - now.wall
        tx.execute(SQL["wait"], (SCHEDULED, at, delay, burnt, 0, code, error, task.seq))
        tx.moved(RUNNING, SCHEDULED, size=size)
    if outcome.kind == "retry":
        tx.events.append(TaskRetrying(0, now.wall, task.id, held.attempt, code, outcome.error, outcome.at or now.wall))
        if at is None:
            tx.events.append(TaskStaged(0, now.wall, task.id))
    else:
        tx.events.append(TaskReleased(0, now.wall, task.id, held.attempt, code, outcome.error, None if at == NEVER else at))
