"""Schedules as a program meets them, wherever the queue is: `queue.schedules`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

import msgspec

from inferq.clock import SystemClock
from inferq.cron import CronError, fires, parse, zone
from inferq.errors import InvalidTask
from inferq.given import checked_instant, checked_seconds
from inferq.handle import AsyncHandle
from inferq.intake import submission_from
from inferq.schedule import LONGEST_JITTER, LONGEST_WINDOW, MISFIRES, OVERLAPS, Misfire, Overlap
from inferq.schedule import Schedule as Schedule
from inferq.task import Submission, Task

Duration = float | str | timedelta
MOST_FIRES: Final = 1000
"""How many fires one preview may ask for."""
LONGEST_NAME: Final = 200
_TAKEN: Final = ("preview", ".", "..")
"""Names that have another meaning in the server's addresses."""


class ScheduleFields(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a user may say about a schedule. Durations are seconds, or texts such as `10m`.

    `task` is the template of its tasks, as in a submission; `start_within` and `end_within` bound each task from when it is made.
    `misfire` (with `window`) and `overlap` are the policies of docs/schedules.md. `enabled` None leaves a switch as it is.
    """

    name: str
    expression: str
    task: dict[str, Any]
    tz: str = "UTC"
    enabled: bool | None = None
    misfire: Misfire = "once"
    window: float | str = 3600.0
    overlap: Overlap = "skip"
    jitter: float | str = 0.0
    start_within: float | str | None = None
    end_within: float | str | None = None
    metadata: dict[str, Any] = {}


FIELDS: Final = tuple(name for name in ScheduleFields.__struct_fields__ if name != "name")
"""What `update` may change."""


class SchedulesDoor(ABC):
    """Create, change and watch schedules. Their tasks are made by any process that works on the queue."""

    async def put(
        self,
        name: str,
        expression: str,
        *,
        task: Submission | Mapping[str, Any],
        tz: str = "UTC",
        enabled: bool | None = None,
        misfire: Misfire = "once",
        window: Duration = 3600.0,
        overlap: Overlap = "skip",
        jitter: Duration = 0.0,
        start_within: Duration | None = None,
        end_within: Duration | None = None,
        metadata: Mapping[str, Any] | None = None,
        replace: bool = True,
    ) -> Schedule:
        """Create a schedule, or make the one of that name so. Idempotent: what is so already is left alone, its counters and missed fires
        too; so is its switch where `enabled` is None (a new one is enabled). A new one, a new time and enabling count from now on. With
        `replace=False` an existing one is a Conflict.

        `task` is the template of its tasks, checked like a submission. Raises InvalidTask naming the field.
        """
        body = ScheduleFields(
            name=name,
            expression=expression,
            task=template_fields(task),
            tz=tz,
            enabled=enabled,
            misfire=misfire,
            window=checked_seconds(window, "window"),
            overlap=overlap,
            jitter=checked_seconds(jitter, "jitter"),
            start_within=checked_seconds(start_within, "start_within"),
            end_within=checked_seconds(end_within, "end_within"),
            metadata=dict(metadata or {}),
        )
        return await self._put(body, replace=replace)

    @abstractmethod
    async def _put(self, body: ScheduleFields, *, replace: bool) -> Schedule:
        """Check and keep it."""

    @abstractmethod
    async def get(self, name: str) -> Schedule:
        """By name, id, or the beginning of an id; a tenant's as `TENANT/NAME` where several have the name. Raises RecordNotFound,
        AmbiguousId."""

    @abstractmethod
    async def list(self, enabled: bool | None = None, *, limit: int = 100, after: str = "") -> list[Schedule]:
        """By name; only the enabled or the disabled ones where `enabled` says so. Pass the last one's `place` (its name, where there are no
        tenants) as `after` to go on."""

    async def update(self, name: str, **changes: Any) -> Schedule:
        """Change some of what `put` takes (a `task` replaces the whole template). Raises RecordNotFound, InvalidTask."""
        unknown = sorted(set(changes) - set(FIELDS))
        if unknown:
            raise InvalidTask(f"expected some of {', '.join(FIELDS)}, got {unknown[0]!r}", field=unknown[0])
        if "task" in changes:
            changes["task"] = template_fields(changes["task"])
        for field in ("window", "jitter", "start_within", "end_within"):
            if changes.get(field) is not None:
                changes[field] = checked_seconds(changes[field], field)
        return await self._update(name, changes)

    @abstractmethod
    async def _update(self, name: str, changes: dict[str, Any]) -> Schedule:
        """Carry out an update whose fields are known."""

    async def enable(self, name: str) -> Schedule:
        """Fire again, from now on. Idempotent. Raises RecordNotFound."""
        return await self._update(name, {"enabled": True})

    async def disable(self, name: str) -> Schedule:
        """Fire no more; its tasks go on. Idempotent. Raises RecordNotFound."""
        return await self._update(name, {"enabled": False})

    @abstractmethod
    async def remove(self, name: str) -> None:
        """Forget it; its tasks go on and keep its name. Raises RecordNotFound."""

    @abstractmethod
    async def run(self, name: str, *, key: str | None = None) -> AsyncHandle:
        """Make its task now, whatever its times and policies say; enabled or not. The same `key` makes one task. Raises RecordNotFound."""

    @abstractmethod
    async def history(self, name: str, *, limit: int = 50) -> Sequence[Task]:
        """Its tasks that retention still keeps, newest first. Raises RecordNotFound."""

    async def preview(self, expression: str, *, tz: str = "UTC", count: int = 5, after: datetime | None = None) -> Sequence[datetime]:
        """The next fires of an expression after a moment (default: now), in the zone `tz`; fewer where time ends. Raises InvalidTask."""
        return preview(expression, tz, count, after)


def preview(expression: str, tz: str, count: int, after: datetime | None) -> Sequence[datetime]:
    """The next fires of an expression. Raises InvalidTask naming the field."""
    if type(count) is not int or not 1 <= count <= MOST_FIRES:
        raise InvalidTask(f"expected a number from 1 to {MOST_FIRES}, got {count!r}", field="count")
    start = SystemClock().read().wall if after is None else checked_instant(after, "after")
    checked_times(expression, tz)
    place = zone(tz)
    return [datetime.fromtimestamp(at / 1000, UTC).astimezone(place) for at in islice(fires(parse(expression), start, place), count)]


def checked_times(expression: str, tz: str) -> None:
    """Raises InvalidTask naming the field."""
    for field, check, value in (("expression", parse, expression), ("tz", zone, tz)):
        try:
            check(value)
        except CronError as error:
            raise InvalidTask(str(error), field=field) from None


def checked_fields(body: ScheduleFields) -> ScheduleFields:
    """The body with its durations as seconds. Raises InvalidTask for all that can be seen without a queue."""
    name: Any = body.name
    if not isinstance(name, str) or not name.strip() or name != name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
        raise InvalidTask(f"expected 1 to {LONGEST_NAME} printable characters without blanks around them, got {name!r}", field="name")
    if "/" in name or name in _TAKEN:
        raise InvalidTask(f"expected a name without `/` and other than {', '.join(_TAKEN)}, got {name!r}", field="name")
    checked_times(body.expression, body.tz)
    for field, known in (("misfire", MISFIRES), ("overlap", OVERLAPS)):
        value = getattr(body, field)
        if value not in known:
            raise InvalidTask(f"expected one of {', '.join(known)}, got {value!r}", field=field)
    if body.enabled is not None and type(body.enabled) is not bool:
        raise InvalidTask(f"expected true or false, got {body.enabled!r}", field="enabled")
    if not isinstance(body.metadata, dict):
        raise InvalidTask(f"expected an object, got {type(body.metadata).__name__}", field="metadata")
    durations: dict[str, float | None] = {}
    for field, most in (("window", LONGEST_WINDOW), ("jitter", LONGEST_JITTER), ("start_within", None), ("end_within", None)):
        durations[field] = checked_seconds(getattr(body, field), field)
        _check_length(durations[field], field, most)
    return msgspec.structs.replace(body, **durations)


def _check_length(value: float | None, field: str, most: float | None) -> None:
    if value is None:
        if most is not None:
            raise InvalidTask("expected a duration, got none", field=field)
    elif most is not None and value > most:
        raise InvalidTask(f"expected at most {most:g} s ({most / 86_400:g} days), got {value:g}", field=field)
    elif most is None and value <= 0:
        raise InvalidTask(f"expected a duration above 0, got {value:g}", field=field)


# ── templates ───────────────────────────────────────────────────────────────────────────────────────────────────────

_NOT_OF_A_TEMPLATE: Final = {
    "key": "leave it out: each fire makes a task of its own",
    "scheduled_at": "leave it out: the expression says when",
    "start_deadline": "give the schedule's start_within, a duration",
    "deadline": "give the schedule's end_within, a duration",
    "batch": "leave it out: only the queue sets it",
    "schedule": "leave it out: only the queue sets it",
}
_OF_PAYLOADS: Final = ("messages", "prompt", "input", "system")


def template_fields(task: Submission | Mapping[str, Any]) -> dict[str, Any]:
    """A template as JSON-ready fields. The forerunners' `type` (chat, generate, embed) stands for the executor ollama and that action."""
    if isinstance(task, Submission):
        made: dict[str, Any] = msgspec.to_builtins(task)
        # Left out it would be read as the action's own default.
        return made | {"stream": task.stream}
    if not isinstance(task, Mapping):
        raise InvalidTask(f"expected a Submission or a mapping with executor, action and payload, got {type(task).__name__}", field="task")
    fields = dict(task)
    if "type" not in fields:
        return fields
    if "action" in fields:
        raise InvalidTask("expected action or type, got both", field="task.type")
    fields["action"] = fields.pop("type")
    fields.setdefault("executor", "ollama")
    said = {name: fields.pop(name) for name in _OF_PAYLOADS if name in fields}
    if fields["action"] == "chat" and "prompt" in said and "messages" not in said:
        said["messages"] = [{"role": "user", "content": said.pop("prompt")}]
    if said:
        fields["payload"] = {**fields.get("payload", {}), **said}
    return fields


def template_of(body: ScheduleFields) -> Submission:
    """The template as a submission. Raises InvalidTask naming the field, such as `task.payload`."""
    try:
        submission = submission_from(template_fields(body.task))
        for field, instead in _NOT_OF_A_TEMPLATE.items():
            if getattr(submission, field) is not None:
                raise InvalidTask(f"a schedule's task cannot have it; {instead}", field=field)
    except InvalidTask as error:
        raise in_task(error) from None
    return submission


def in_task(error: InvalidTask) -> InvalidTask:
    """The same error, of the same class, with its place inside the schedule."""
    return error if error.field.startswith("task") else error.within("task")
