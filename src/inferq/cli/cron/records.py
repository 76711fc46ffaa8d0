"""Schedules as records and columns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from inferq.cli.output import Column, Record, field
from inferq.cli.records import ago, iso, level, span

if TYPE_CHECKING:
    from inferq.schedule import Schedule

SCHEDULE_FIELDS = (
    "id", "name", "tenant", "expression", "description", "tz", "enabled", "next_fire", "due", "last_fire", "fire_count", "last_task",
    "last_skip", "misfire", "window", "overlap", "jitter", "start_within", "end_within", "held", "mark", "metadata", "task", "created",
    "updated",
)  # fmt: skip
_SHORT = 8
"""Characters of an id that the forerunner's table shows."""


def schedule_record(schedule: Schedule) -> dict[str, Any]:
    """A schedule with every field of `SCHEDULE_FIELDS`."""
    made = schedule.to_dict()
    task = {"priority": 5, "model": "", **made["task"]}
    made["tenant"] = schedule.tenant
    return {name: made[name] for name in SCHEDULE_FIELDS} | {"task": task}


def _time(name: str, title: str, *, wide: bool = False) -> Column:
    return Column(title, lambda record: iso(record.get(name)), lambda record: ago(record.get(name)), wide)


def _skip(record: Record) -> str:
    skip = record.get("last_skip")
    if skip is None:
        return ""
    count = f"{skip['count']} fires, " if skip["count"] > 1 else ""
    return f"{count}{iso(skip['fire'])}: {skip['reason']}"


SCHEDULE_COLUMNS = (
    Column("ID", field("id"), lambda record: record["id"][:_SHORT]),
    Column("NAME", field("name")),
    Column("EXPRESSION", field("expression")),
    Column("ENABLED", field("enabled")),
    Column("RUN COUNT", field("fire_count")),
    _time("due", "NEXT RUN"),
    _time("last_fire", "LAST RUN"),
    Column("ZONE", field("tz")),
    Column("TENANT", field("tenant"), wide=True),
    Column("DESCRIPTION", field("description"), wide=True),
    Column("MISFIRE", field("misfire"), wide=True),
    Column("OVERLAP", field("overlap"), wide=True),
    Column("LAST SKIP", _skip, wide=True),
)


def page(schedule: Schedule, fires: list[datetime]) -> list[tuple[str, str]]:
    """Names and values of one schedule's page."""
    record = schedule_record(schedule)
    task = schedule.task

    def local(ms: int | None) -> str:
        if ms is None:
            return ""
        at = datetime.fromtimestamp(ms / 1000, UTC).astimezone(schedule.zone)
        return f"{at.isoformat(timespec='seconds')}  ({ago(ms)})"

    policies = f"misfire {schedule.misfire}" + ("" if schedule.misfire == "skip" else f" within {span(schedule.window)}")
    rows: list[tuple[str, str]] = [
        ("name", schedule.name),
        ("tenant", schedule.tenant),
        ("id", schedule.id),
        ("expression", f"{schedule.expression}  ({schedule.description})"),
        ("zone", schedule.tz),
        ("enabled", "yes" if schedule.enabled else "no"),
        ("policies", f"{policies}, overlap {schedule.overlap}"),
        ("jitter", f"up to {span(schedule.jitter)}, its own share {schedule.offset / 1000:g}s" if schedule.jitter else ""),
        ("start within", span(schedule.start_within) if schedule.start_within is not None else ""),
        ("end within", span(schedule.end_within) if schedule.end_within is not None else ""),
        ("task", f"{task.executor} {task.action} {task.model}".strip()),
        ("priority", level(record["task"])),
        ("made so far", str(schedule.fire_count)),
        ("last fire", local(schedule.last_fire)),
        ("last task", schedule.last_task or ""),
        ("last skip", _skip(record)),
        ("held", local(schedule.held)),
    ]
    return rows + [("next" if index == 0 else "", at.isoformat(timespec="seconds")) for index, at in enumerate(fires)]
