"""Ends of attempts, as transitions inside a write transaction: what completed is written in bulk, the rarer endings one by one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from inferq.clock import Now
from inferq.errors import ClaimLost, InferqError
from inferq.events import TaskCancelled, TaskCompleted, TaskFailed, TaskReleased, TaskRetrying, TaskStaged
from inferq.executor import Answer
from inferq.store import Grown
from inferq.stores.sqlite.claims import standing
from inferq.stores.sqlite.rows import CANCELLED, COMPLETED, FAILED, NEVER, PENDING, RUNNING, SCHEDULED, Row, encode
from inferq.stores.sqlite.statements import SQL, write_many
from inferq.stores.sqlite.transaction import Transaction
from inferq.task import Claim, Outcome, TaskResult, Timing

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
        Timing(
            max(0, started - task.created) / 1000,
            max(0, now.wall - started) / 1000,
            None if outcome.first is None else max(0, outcome.first - started) / 1000,
        ),
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
    came = went = cached = thought = estimate = None
    if usage is not None:
        came, went, cached, thought = usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens
        estimate = task.estimate
    if task.spec.batch is not None and usage is not None:
        tokens = tx.tokens.setdefault(task.spec.batch, [0, 0])
        tokens[0] += came or 0
        tokens[1] += went or 0
    waited, ran = max(0, started - task.created), max(0, wall - started)
    first = None if outcome.first is None else max(0, outcome.first - started)
    told = (task.flow.lane, outcome.backend, came, went, cached, thought, first, estimate, task.flow.priority, task.spec.batch)
    tx.events.append(TaskCompleted(0, wall, task.id, held.attempt, waited, ran, *told))


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
    about = _about(held, outcome)
    tx.forgotten.append((task.seq, held.attempt))
    tx.execute(SQL["add_attempt"], _attempt_row(held, outcome, now))
    if outcome.tried and outcome.backend is not None:
        tx.execute(SQL["moved_backend"], (outcome.backend, outcome.remote, task.seq))
    if outcome.kind in ("retry", "released"):
        _waits_again(tx, held, outcome, size, now)
        return
    state = FAILED if outcome.kind == "failed" else CANCELLED
    tx.execute(SQL["end"], (state, now.wall, code, error, 0, task.seq))
    tx.moved(RUNNING, state, size=size)
    tx.streams.append(Grown(task.id))
    if state == FAILED:
        tx.events.append(TaskFailed(0, now.wall, task.id, held.attempt, code, outcome.error, *about))
    else:
        tx.events.append(TaskCancelled(0, now.wall, task.id, held.attempt, outcome.error, *about))


def _waits_again(tx: Transaction, held: Claim, outcome: Outcome, size: int, now: Now) -> None:
    task = held.task
    code, error = outcome.code, outcome.error[:2000] or None
    about = _about(held, outcome)
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
        tx.events.append(TaskRetrying(0, now.wall, task.id, held.attempt, code, outcome.error, outcome.at or now.wall, *about))
        if at is None:
            tx.events.append(TaskStaged(0, now.wall, task.id))
    else:
        due = None if at == NEVER else at
        tx.events.append(TaskReleased(0, now.wall, task.id, held.attempt, code, outcome.error, due, *about))


def _about(held: Claim, outcome: Outcome) -> tuple[str, str, str | None]:
    """What every event of an attempt's end tells: lane, backend, batch."""
    task = held.task
    return task.flow.lane, outcome.backend or task.backend or "", task.spec.batch
