"""Between rows and words: the numbers that stand for states, and a task from its columns."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from inferq.events import Event
from inferq.executor import Chunk
from inferq.task import FlowKey, State, Submission, Task, TaskResult, Tried

SCHEDULED, PENDING, RUNNING, COMPLETED, FAILED, CANCELLED = range(6)
STATES: Final = (State.SCHEDULED, State.PENDING, State.RUNNING, State.COMPLETED, State.FAILED, State.CANCELLED)
NEVER: Final = 2**53 - 1
"""When a held task is due."""
NUMBERS: Final = {state: number for number, state in enumerate(STATES)}

decode_spec: Final = msgspec.json.Decoder(Submission).decode
decode_result: Final = msgspec.json.Decoder(TaskResult).decode
decode_events: Final = msgspec.json.Decoder(list[Event]).decode
decode_chunks: Final = msgspec.json.Decoder(list[Chunk]).decode
encode: Final = msgspec.json.Encoder().encode

_decode_tried: Final = msgspec.json.Decoder(tuple[Tried, ...]).decode


def decode_tried(text: str | None) -> tuple[Tried, ...]:
    """What an attempt tried before its backend; empty where nothing is kept."""
    return _decode_tried(text) if text else ()


log: Final = logging.getLogger("inferq.store")

Row = tuple[Any, ...]


def readable_events(body: bytes) -> list[Event]:
    """The events of a row of the log; one that cannot be read is passed over, so that it does not hide those after it."""
    try:
        return decode_events(body)
    except msgspec.DecodeError as error:
        log.warning("store.unreadable_events", extra={"error": str(error)})
        return []


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
        backend,
        remote,
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
        due=None if due == NEVER else due,
        created=created,
        started=started,
        finished=finished,
        code=code,
        error=error or "",
        backend=backend,
        remote=bool(remote),
    )


def marks(count: int) -> str:
    """`?,?,?`"""
    return ",".join("?" * count)


def slices(items: list[Any], size: int) -> Iterable[list[Any]]:
    """The list in pieces, under SQLite's bound on parameters."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
