"""Between rows and words: the numbers that stand for states, and a task from its columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from inferq.events import Event
from inferq.executor import Chunk
from inferq.task import FlowKey, State, Submission, Task, TaskResult

SCHEDULED, PENDING, RUNNING, COMPLETED, FAILED, CANCELLED = range(6)
STATES: Final = (State.SCHEDULED, State.PENDING, State.RUNNING, State.COMPLETED, State.FAILED, State.CANCELLED)
NUMBERS: Final = {state: number for number, state in enumerate(STATES)}

decode_spec: Final = msgspec.json.Decoder(Submission).decode
decode_result: Final = msgspec.json.Decoder(TaskResult).decode
decode_events: Final = msgspec.json.Decoder(list[Event]).decode
decode_chunks: Final = msgspec.json.Decoder(list[Chunk]).decode
encode: Final = msgspec.json.Encoder().encode

Row = tuple[Any, ...]


def task_from(row: Row) -> Task:
    """A task from the columns of `task_by_id.sql`."""
    (
        seq,
        id,
        state,
        lane,
        priority,
        size,
        tenant,
        estimate,
        attempt,
        failures,
        lost,
        worker,
        due,
        created,
        started,
        finished,
        code,
        error,
        spec,
    ) = row
    return Task(
        id=id,
        seq=seq,
        state=STATES[state],
        flow=FlowKey(lane, priority, size, tenant),
        spec=decode_spec(spec),
        estimate=estimate,
        attempt=attempt,
        failures=failures,
        lost=lost,
        worker=worker,
        due=due,
        created=created,
        started=started,
        finished=finished,
        code=code,
        error=error or "",
    )


def marks(count: int) -> str:
    """`?,?,?`"""
    return ",".join("?" * count)


def slices(items: list[Any], size: int) -> Iterable[list[Any]]:
    """The list in pieces, under SQLite's bound on parameters."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
