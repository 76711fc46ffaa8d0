"""The judge: a pure function over the recorded history and the store's contents; every broken promise is a line."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise

from faultkit.history import Contents, History, Run
from faultkit.replay import Life, Replay, disagreements
from inferq.task import State, Task


def complaints(history: History, contents: Contents) -> list[str]:
    """Everything that was promised and not kept; empty when all is well. The queue must have drained."""
    replay = Replay(contents.tasks).run(contents.events)
    return [
        *replay.complaints,
        *disagreements(contents.tasks, replay.lives),
        *_acknowledged(history, contents),
        *_results(contents),
        *_attempts(contents, replay.lives),
        *_runs(history, contents, replay.lives),
        *_rescues(history, contents),
        *_cancels(history, contents, replay.lives),
        *_streams(contents),
        *_counters(contents),
        *(f"check: {line}" for line in contents.complaints),
    ]


def _pid(worker: str) -> int:
    return int(worker.rsplit("-", 2)[1])


def _acknowledged(history: History, contents: Contents) -> list[str]:
    found = []
    ids: dict[str, str] = {}
    for ack in history.acks:
        if ids.setdefault(ack.key, ack.id) != ack.id:
            found.append(f"key {ack.key} led to two tasks, {ids[ack.key]} and {ack.id}")
        task = contents.tasks.get(ack.id)
        if task is None:
            found.append(f"task {ack.id} was acknowledged and is lost")
        elif task.spec.key != ack.key:
            found.append(f"task {ack.id} was acknowledged for key {ack.key} but holds {task.spec.key}")
    twice = [key for key, count in Counter(task.spec.key for task in contents.tasks.values() if task.spec.key).items() if count > 1]
    found += [f"key {key} is held by several tasks" for key in twice]
    found += [f"task {id} has not ended: it is {task.state}" for id, task in contents.tasks.items() if not task.state.is_final]
    return found


def _results(contents: Contents) -> list[str]:
    found = []
    for id, task in contents.tasks.items():
        result = contents.results.get(id)
        if (task.state is State.COMPLETED) != (result is not None):
            found.append(f"task {id} is {task.state} and has {'a' if result else 'no'} result")
        if result is None:
            continue
        if result.attempts != task.attempt or result.data["attempt"] != task.attempt:
            found.append(
                f"task {id}: a stale result, of attempt {result.data['attempt']} written as {result.attempts}, valid is {task.attempt}"
            )
        if result.data["n"] != task.spec.payload.get("n"):
            found.append(f"task {id}: the result of another task")
    return found


_LAST_OUTCOMES = {
    State.COMPLETED: {"completed"},
    State.FAILED: {"failed", "lost"},
    # A task that waited for its retry may have been cancelled.
    State.CANCELLED: {"cancelled", "retry", "released", "lost", "failed"},
}


def _attempts(contents: Contents, lives: Mapping[str, Life]) -> list[str]:
    found = []
    for id, task in contents.tasks.items():
        records, life = contents.attempts.get(id, []), lives.get(id, Life())
        if [record.number for record in records] != list(range(1, task.attempt + 1)):
            found.append(f"task {id}: {task.attempt} attempts, records of {[record.number for record in records]}")
        found += [
            f"task {id}: attempt {record.number} was claimed by {life.workers.get(record.number)}, ended by {record.worker}"
            for record in records
            if life.workers.get(record.number) != record.worker
        ]
        last = records[-1].outcome if records else "cancelled"
        if task.state in _LAST_OUTCOMES and last not in _LAST_OUTCOMES[task.state]:
            found.append(f"task {id} is {task.state} but its last attempt ended {last}")
        completed = sum(record.outcome == "completed" for record in records)
        if completed > 1:
            found.append(f"task {id} completed {completed} times")
    return found


def _runs(history: History, contents: Contents, lives: Mapping[str, Life]) -> list[str]:
    found = []
    runs: dict[tuple[str, int], dict[str, Run]] = defaultdict(dict)
    for run in history.runs:
        if run.what in runs[run.task, run.attempt]:
            found.append(f"task {run.task}: attempt {run.attempt} {run.what}ed twice")
        runs[run.task, run.attempt][run.what] = run
        worker = lives.get(run.task, Life()).workers.get(run.attempt)
        if worker is None or _pid(worker) != run.pid:
            found.append(f"task {run.task}: process {run.pid} ran attempt {run.attempt}, which was claimed by {worker}")
    for id, task in contents.tasks.items():
        mine = [runs[id, number] for number in range(1, task.attempt + 1) if "start" in runs.get((id, number), {})]
        found += _one_after_the_other(id, mine, history.killed)
        found += _ran_as_it_ended(task, runs.get((id, task.attempt), {}), contents)
        if task.spec.at_most_once and len(mine) > 1 + lives.get(id, Life()).retried + _unsent(contents, id):
            found.append(f"task {id}: started {len(mine)} times, at most once was asked for")
    return found


def _unsent(contents: Contents, id: str) -> int:
    """Attempts that the backend turned away, so that they do not count as made."""
    return sum(record.outcome == "released" and record.code is not None for record in contents.attempts.get(id, []))


def _one_after_the_other(id: str, runs: list[dict[str, Run]], gone: set[int]) -> list[str]:
    found = []
    for earlier, later in pairwise(runs):
        end = earlier.get("end")
        # An attempt that was cancelled may still be closing its call, and one that slept past its lease may wake up: both claims are void.
        if end is not None and end.how != "interrupted" and end.pid not in gone and end.mono > later["start"].mono:
            found.append(f"task {id}: attempt {later['start'].attempt} started before attempt {end.attempt} ended")
    return found


def _ran_as_it_ended(task: Task, run: Mapping[str, Run], contents: Contents) -> list[str]:
    if task.state is not State.COMPLETED:
        return []
    end, result = run.get("end"), contents.results.get(task.id)
    if "start" not in run or end is None or end.how != "done":
        return [f"task {task.id} completed in attempt {task.attempt}, but nobody ran that to its end"]
    if result is not None and result.data["pid"] != end.pid:
        return [f"task {task.id}: process {end.pid} ran attempt {task.attempt}, the result is of {result.data['pid']}"]
    return []


def _rescues(history: History, contents: Contents) -> list[str]:
    return [
        f"task {id}: attempt {record.number} was taken from {record.worker}, which nobody had killed"
        for id, records in contents.attempts.items()
        for record in records
        if record.outcome == "lost" and _pid(record.worker) not in history.killed
    ]


def _cancels(history: History, contents: Contents, lives: Mapping[str, Life]) -> list[str]:
    found = []
    ran = {run.task for run in history.runs}
    for change in history.changes:
        task = contents.tasks.get(change.id)
        if task is None:
            found.append(f"task {change.id}, changed by {change.verb}, is lost")
        elif change.verb == "cancel" and change.done and task.state is not State.CANCELLED and not lives[change.id].retried:
            found.append(f"task {change.id}: its cancel was acknowledged, but it is {task.state}")
    for id, task in contents.tasks.items():
        if task.state is State.CANCELLED and not task.attempt and id in ran:
            found.append(f"task {id} was cancelled before any claim and ran all the same")
    return found


def _streams(contents: Contents) -> list[str]:
    found = []
    for id, logged in contents.chunks.items():
        task = contents.tasks[id]
        by_attempt: dict[int, list[int]] = defaultdict(list)
        for entry in logged:
            by_attempt[entry.position.attempt].append(entry.position.index)
        ends = [entry for entry in logged if entry.chunk.kind == "end"]
        if task.state.is_final and (len(ends) != 1 or logged[-1] is not ends[0] or ends[0].chunk.text != str(task.state)):
            found.append(f"task {id}: its stream has {len(ends)} ends for a task that is {task.state}")
        for attempt, indexes in by_attempt.items():
            if indexes != list(range(indexes[0], indexes[0] + len(indexes))) or indexes[0] > 1:
                found.append(f"task {id}: the stream of attempt {attempt} has a gap: {indexes}")
        if task.state is State.COMPLETED:
            said = [entry.chunk.text for entry in logged if entry.position.attempt == task.attempt and entry.chunk.kind == "text"]
            asked = [f"{task.attempt}.{number} " for number in range(task.spec.payload.get("chunks", 0))]
            if said != asked:
                found.append(f"task {id}: its valid attempt streamed {said}, {asked} was produced")
    return found


def _counters(contents: Contents) -> list[str]:
    real = Counter(str(task.state) for task in contents.tasks.values())
    told = {state: count for state, count in contents.counts.items() if count}
    return [] if told == dict(real) else [f"the counters say {told}, the tasks {dict(real)}"]
