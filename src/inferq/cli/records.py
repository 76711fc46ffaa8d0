"""The records that commands print: stable names of fields, the columns of tables, times and durations for people."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from inferq.cli.output import Column, Record, field, stdout_is_terminal

if TYPE_CHECKING:
    from inferq.task import AttemptRecord, Task

SHORT_ID = 18
"""Characters of an id that hold its whole time stamp: unique for what one process submits, and a valid prefix."""

TASK_FIELDS = (
    "id", "seq", "state", "executor", "action", "model", "priority", "backend", "lane", "size", "tenant", "tags", "metadata",
    "key", "created", "due", "started", "finished", "attempt", "failures", "lost", "worker", "executed_on", "code", "error", "estimate",
    "scheduled_at", "timeout", "idle_timeout", "start_deadline", "deadline", "max_retries", "at_most_once", "stream",
    "remote", "batch", "schedule",
    "options", "payload",
)  # fmt: skip


def task_record(task: Task, *, note: str = "") -> dict[str, Any]:
    """A task with every field of `TASK_FIELDS`, set or not, so that programs can rely on them. `note` says why it waits."""
    from inferq.task import Submission

    known = task.to_dict()
    record = {name: known.get(name, getattr(task.spec, name, None)) for name in TASK_FIELDS}
    record |= {name: value for name, value in known.items() if name not in record}
    assert set(Submission.__struct_fields__) <= set(record)  # noqa: S101 - a new field of the queue must not be lost silently
    return record | {"note": note or task.error}


def short_id(record: Record) -> str:
    """As much of an id as tells tasks apart."""
    return str(record.get("id") or record.get("task_id") or "")[:SHORT_ID]


def iso(ms: int | None) -> str:
    """Unix milliseconds as RFC 3339 in UTC."""
    if ms is None:
        return ""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ago(ms: int | None, *, now: float | None = None) -> str:
    """How long ago, or in how long, in one unit."""
    if ms is None:
        return ""
    gone = (time.time() if now is None else now) - ms / 1000
    return f"{span(gone)} ago" if gone >= 0 else f"in {span(-gone)}"


def span(seconds: float) -> str:
    """A duration in the unit that suits it."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 10:
        return f"{seconds:.1f}s"
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def level(record: Record) -> str:
    """A priority's name, else its number."""
    from inferq.task import priority_name

    return priority_name(record["priority"])


def _when(name: str) -> Column:
    return Column(name.upper(), lambda record: iso(record.get(name)), lambda record: ago(record.get(name)))


TASK_COLUMNS = (
    Column("ID", field("id"), short_id),
    Column("TYPE", field("action")),
    Column("PRIORITY", level),
    Column("STATUS", field("state")),
    Column("MODEL", field("model")),
    _when("created"),
    Column("COMPLETED", lambda record: iso(record.get("finished")), lambda record: ago(record.get("finished"))),
    Column("NOTE", field("note")),
    Column("EXECUTOR", field("executor"), wide=True),
    Column("BACKEND", field("backend"), wide=True),
    Column("EXECUTED ON", field("executed_on"), wide=True),
    Column("ATTEMPT", field("attempt"), wide=True),
    Column("CODE", field("code"), wide=True),
    Column("STARTED", lambda record: iso(record.get("started")), lambda record: ago(record.get("started")), wide=True),
    Column("DUE", lambda record: iso(record.get("due")), lambda record: ago(record.get("due")), wide=True),
    Column("WORKER", field("worker"), wide=True),
    Column("TAGS", lambda record: ",".join(record.get("tags") or ()), wide=True),
)

ENDED_COLUMNS = (
    Column("ID", field("id"), short_id),
    Column("STATUS", field("state")),
    Column("CODE", field("code")),
    Column("ATTEMPT", field("attempt"), wide=True),
    Column("ERROR", field("error")),
)


def attempt_record(attempt: AttemptRecord) -> dict[str, Any]:
    """An ended attempt; `tried` are the backends that refused it before its first chunk."""
    record = {name: getattr(attempt, name) for name in attempt.__struct_fields__}
    tried = [{"backend": one.backend, "code": one.code, "error": one.error} for one in attempt.tried]
    return record | {"executed_on": attempt.executed_on, "tried": tried}


def _after(record: Record) -> str:
    """The backends that an attempt was refused by, and its own error."""
    refused = ", ".join(f"{one['backend']} ({one['code']})" for one in record["tried"])
    return "; ".join(part for part in (f"after {refused}" if refused else "", record["error"]) if part)


ATTEMPT_COLUMNS = (
    Column("ATTEMPT", field("number")),
    Column("OUTCOME", field("outcome")),
    Column("STARTED", lambda record: iso(record["started"]), lambda record: ago(record["started"])),
    Column("RAN", lambda record: span((record["ended"] - record["started"]) / 1000)),
    Column("BACKEND", field("backend")),
    Column("IN", field("input_tokens")),
    Column("OUT", field("output_tokens")),
    Column("CODE", field("code")),
    Column("ERROR", _after),
    Column("WORKER", field("worker"), wide=True),
)


def moment(ms: int | None) -> str:
    """An instant for one task's page: exact, and on a terminal also how long ago."""
    if ms is None:
        return ""
    return f"{iso(ms)}  ({ago(ms)})" if stdout_is_terminal() else iso(ms)
