"""What the processes wrote down, and what the store holds in the end: the two sides that the checker compares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faultkit.place import Place
from inferq import AsyncQueue
from inferq.events import Event
from inferq.store import LoggedChunk
from inferq.task import AttemptRecord, Task, TaskResult


@dataclass(frozen=True)
class Ack:
    """A submit that returned."""

    key: str
    id: str


@dataclass(frozen=True)
class Run:
    """An executor's attempt started or ended (`how`: done, failed, interrupted); `mono` is nanoseconds."""

    what: str
    task: str
    attempt: int
    pid: int
    mono: int
    how: str = ""


@dataclass(frozen=True)
class Changed:
    """A change from outside that returned; `done` is False where the task's state forbade it."""

    id: str
    verb: str
    done: bool


@dataclass
class History:
    """What the processes say happened. `killed` are the pids of workers that lost their claims: killed, or stopped past the lease."""

    acks: list[Ack] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    changes: list[Changed] = field(default_factory=list)
    killed: set[int] = field(default_factory=set)


@dataclass
class Contents:
    """What the store holds, and what it says about itself."""

    tasks: dict[str, Task]
    results: dict[str, TaskResult]
    attempts: dict[str, list[AttemptRecord]]
    chunks: dict[str, list[LoggedChunk]]
    events: list[Event]
    counts: dict[str, int]
    complaints: list[str]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_bytes().splitlines(keepends=True):
            # A writer may have died in the middle of its last line.
            if line.endswith(b"\n"):
                yield json.loads(line)


def read_acks(path: Path) -> list[Ack]:
    return [Ack(**record) for record in _lines(path)]


def read_history(place: Place, killed: set[int]) -> History:
    runs = [Run(**record) for record in _lines(place.runs)]
    changes = [Changed(**record) for record in _lines(place.changes)]
    return History(read_acks(place.acks), runs, changes, set(killed))


async def read_contents(queue: AsyncQueue) -> Contents:
    """Everything, through the queue's own questions; nobody may be writing."""
    tasks = {task.id: task async for task in queue.iterate()}
    contents = Contents(tasks, {}, {}, {}, [], dict((await queue.stats()).states), await queue.check())
    for id, task in tasks.items():
        result = await queue.store.result(id)
        if result is not None:
            contents.results[id] = result
        contents.attempts[id] = await queue.attempts(id)
        if task.spec.stream:
            contents.chunks[id] = await queue.store.chunks(id)
    while page := await queue.store.events(after=contents.events[-1].position if contents.events else 0):
        contents.events += page
    return contents
