"""The checker can fail: a true history passes, and each way of breaking it is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from faultkit.checker import complaints
from faultkit.history import Ack, Changed, Contents, History, Run, read_contents, read_history
from faultkit.place import Place
from faultkit.recorder import Log
from msgspec.structs import replace as changed

from inferq.events import TaskCancelled, TaskCompleted, TaskStarted
from inferq.executor import Chunk
from inferq.store import LoggedChunk, Position
from inferq.task import AttemptRecord, State

pytestmark = pytest.mark.faults

Told = tuple[History, Contents]
Corrupt = Callable[[History, Contents], None]
PLAIN, RETRIED, STREAMED, REFUSED, CANCELLED, LATER = range(6)


@pytest.fixture
async def told(tmp_path: Path) -> Told:
    """A true history: plain, retried, streamed, refused and cancelled tasks of one flow, one after the other, and one more."""
    place = Place(str(tmp_path), slots=1)
    payloads = [{"n": 0}, {"n": 1, "fail": ["again"]}, {"n": 2, "chunks": 3}, {"n": 3, "fail": ["no"]}, {"n": 4}, {"n": 5}]
    acks, changes = Log(place.acks), Log(place.changes)
    async with place.queue(work=False) as queue:
        for number, payload in enumerate(payloads):
            handle = await queue.submit("record", "do", payload=payload, key=f"k{number}", stream="chunks" in payload)
            acks.write(key=f"k{number}", id=handle.id)
            if number == CANCELLED:
                await handle.cancel()
                changes.write(id=handle.id, verb="cancel", done=True)
    async with place.queue(work=True) as queue:
        for ack in read_history(place, set()).acks:
            await queue.wait(ack.id, timeout=20)
        contents = await read_contents(queue)
    return read_history(place, set()), contents


def test_a_true_history_passes(told: Told) -> None:
    assert complaints(*told) == []


async def test_a_queue_that_has_not_drained_is_named(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    async with place.queue(work=False) as queue:
        await queue.submit("record", "do", payload={"n": 0}, key="k")
        assert "has not ended: it is pending" in _said(History(), await read_contents(queue))


def _said(history: History, contents: Contents) -> str:
    return "\n".join(complaints(history, contents))


def _id(contents: Contents, number: int) -> str:
    return next(id for id, task in contents.tasks.items() if task.spec.key == f"k{number}")


def _events_of(contents: Contents, id: str, kind: type) -> Iterator[int]:
    return (at for at, event in enumerate(contents.events) if type(event) is kind and getattr(event, "task_id", "") == id)


# ── one corruption each ─────────────────────────────────────────────────────────────────────────────────────────────


def lose_a_task(history: History, contents: Contents) -> None:
    del contents.tasks[_id(contents, PLAIN)]


def give_a_key_two_tasks(history: History, contents: Contents) -> None:
    history.acks.append(Ack("k0", _id(contents, LATER)))


def hold_a_key_twice(history: History, contents: Contents) -> None:
    contents.tasks[_id(contents, LATER)].spec.key = "k0"


def drop_a_result(history: History, contents: Contents) -> None:
    del contents.results[_id(contents, PLAIN)]


def give_a_failed_task_a_result(history: History, contents: Contents) -> None:
    contents.results[_id(contents, REFUSED)] = contents.results[_id(contents, PLAIN)]


def write_a_stale_result(history: History, contents: Contents) -> None:
    id = _id(contents, RETRIED)
    result = contents.results[id]
    contents.results[id] = changed(result, data={**result.data, "attempt": 1})


def write_another_process_result(history: History, contents: Contents) -> None:
    id = _id(contents, PLAIN)
    result = contents.results[id]
    contents.results[id] = changed(result, data={**result.data, "pid": 1})


def swap_claims(history: History, contents: Contents) -> None:
    first = next(_events_of(contents, _id(contents, PLAIN), TaskStarted))
    later = next(_events_of(contents, _id(contents, LATER), TaskStarted))
    one, other = contents.events[first], contents.events[later]
    one.position, other.position = other.position, one.position
    contents.events[first], contents.events[later] = other, one


def drop_an_event(history: History, contents: Contents) -> None:
    del contents.events[2]


def claim_twice_at_once(history: History, contents: Contents) -> None:
    id = _id(contents, RETRIED)
    at = next(_events_of(contents, id, TaskStarted))
    again = deepcopy(contents.events[at])
    assert isinstance(again, TaskStarted)
    again.attempt = 2
    contents.events.insert(at + 1, again)
    _renumber(contents)


def end_twice(history: History, contents: Contents) -> None:
    at = next(_events_of(contents, _id(contents, PLAIN), TaskCompleted))
    contents.events.insert(at + 1, deepcopy(contents.events[at]))
    _renumber(contents)


def complete_a_stale_attempt(history: History, contents: Contents) -> None:
    event = contents.events[next(_events_of(contents, _id(contents, RETRIED), TaskCompleted))]
    assert isinstance(event, TaskCompleted)
    event.attempt = 1


def run_what_was_cancelled(history: History, contents: Contents) -> None:
    history.runs.append(Run("start", _id(contents, CANCELLED), 1, os.getpid(), 1))


def claim_what_was_cancelled(history: History, contents: Contents) -> None:
    id = _id(contents, CANCELLED)
    at = next(_events_of(contents, id, TaskCancelled))
    contents.events.insert(at + 1, TaskStarted(0, 0, id, 1, "host-1-x"))
    _renumber(contents)


def forget_a_cancel(history: History, contents: Contents) -> None:
    history.changes.append(Changed(_id(contents, PLAIN), "cancel", done=True))


def run_an_attempt_twice(history: History, contents: Contents) -> None:
    history.runs.append(next(run for run in history.runs if run.what == "start"))


def never_run_it(history: History, contents: Contents) -> None:
    id = _id(contents, PLAIN)
    history.runs[:] = [run for run in history.runs if run.task != id]


def run_two_attempts_at_once(history: History, contents: Contents) -> None:
    id = _id(contents, RETRIED)
    history.runs[:] = [
        replace(run, mono=run.mono + 10**12) if (run.task, run.what, run.attempt) == (id, "end", 1) else run for run in history.runs
    ]


def take_from_the_living(history: History, contents: Contents) -> None:
    id = _id(contents, RETRIED)
    contents.attempts[id][0] = changed(contents.attempts[id][0], outcome="lost")


def drop_an_attempt_record(history: History, contents: Contents) -> None:
    del contents.attempts[_id(contents, RETRIED)][0]


def complete_two_attempts(history: History, contents: Contents) -> None:
    records: list[AttemptRecord] = contents.attempts[_id(contents, RETRIED)]
    records[0] = changed(records[0], outcome="completed")


def tear_a_stream(history: History, contents: Contents) -> None:
    del contents.chunks[_id(contents, STREAMED)][1]


def end_a_stream_twice(history: History, contents: Contents) -> None:
    logged = contents.chunks[_id(contents, STREAMED)]
    last = logged[-1].position
    logged.append(LoggedChunk(Position(last.attempt, last.index + 1), Chunk("end", "completed")))


def swap_two_chunks(history: History, contents: Contents) -> None:
    logged = contents.chunks[_id(contents, STREAMED)]
    one, two = logged[0], logged[1]
    logged[0], logged[1] = LoggedChunk(one.position, two.chunk), LoggedChunk(two.position, one.chunk)


def miscount(history: History, contents: Contents) -> None:
    contents.counts["completed"] += 1


def misstate(history: History, contents: Contents) -> None:
    contents.tasks[_id(contents, REFUSED)].state = State.COMPLETED


def run_at_most_once_twice(history: History, contents: Contents) -> None:
    contents.tasks[_id(contents, RETRIED)].spec.at_most_once = True


def complain(history: History, contents: Contents) -> None:
    contents.complaints.append("flow length: 1 says 2, the tasks say 3")


def _renumber(contents: Contents) -> None:
    for position, event in enumerate(contents.events, 1):
        event.position = position


@pytest.mark.parametrize(
    ("corrupt", "named"),
    [
        (lose_a_task, "was acknowledged and is lost"),
        (give_a_key_two_tasks, "key k0 led to two tasks"),
        (hold_a_key_twice, "key k0 is held by several tasks"),
        (drop_a_result, "is completed and has no result"),
        (give_a_failed_task_a_result, "is failed and has a result"),
        (write_a_stale_result, "a stale result, of attempt 1"),
        (write_another_process_result, "the result is of 1"),
        (swap_claims, "of its flow"),
        (drop_an_event, "the log has a gap"),
        (claim_twice_at_once, "task.started of task"),
        (end_twice, "while it was completed"),
        (complete_a_stale_attempt, "tells of attempt 1, valid is 2"),
        (run_what_was_cancelled, "was cancelled before any claim and ran all the same"),
        (claim_what_was_cancelled, "while it was cancelled"),
        (forget_a_cancel, "its cancel was acknowledged, but it is completed"),
        (run_an_attempt_twice, "attempt 1 started twice"),
        (never_run_it, "nobody ran that to its end"),
        (run_two_attempts_at_once, "attempt 2 started before attempt 1 ended"),
        (take_from_the_living, "which nobody had killed"),
        (drop_an_attempt_record, "2 attempts, records of [2]"),
        (complete_two_attempts, "completed 2 times"),
        (tear_a_stream, "has a gap"),
        (end_a_stream_twice, "its stream has 2 ends"),
        (swap_two_chunks, "its valid attempt streamed"),
        (miscount, "the counters say"),
        (misstate, "the store holds"),
        (run_at_most_once_twice, "at most once was asked for"),
        (complain, "check: flow length"),
    ],
)
def test_a_corrupted_history_is_refused(told: Told, corrupt: Corrupt, named: str) -> None:
    corrupt(*told)
    assert named in _said(*told)
