"""What the server and its clients say to each other about schedules. A schedule itself is shown as it is (`inferq.schedule.Schedule`)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from inferq.errors import InvalidTask
from inferq.schedule import LONGEST_JITTER, LONGEST_WINDOW, Misfire, Overlap
from inferq.wire.native import Duration, SubmitBody

Name = Annotated[str, Meta(min_length=1, max_length=200, description="Unique; printable, without `/`.")]
Expression = Annotated[str, Meta(max_length=500, description="Five fields such as `0 9 * * 1-5`, or @hourly, @daily, ...")]
Zone = Annotated[str, Meta(max_length=100, description="IANA time zone such as Europe/Berlin.")]


class ScheduleChanges(msgspec.Struct, forbid_unknown_fields=True):
    """Body of PUT /api/cron/{name}: what is given is set. What is left out stays as it is, or takes its default where the schedule is new.

    `task` is the template of its tasks, as in POST /api/tasks, without `key`, `scheduled_at`, `delay`, `start_deadline` and `deadline`.
    `cron_expr` and `task_template` are the forerunners' names of `expression` and `task`.
    """

    expression: Expression | UnsetType = UNSET
    task: SubmitBody | UnsetType = UNSET
    tz: Zone | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    misfire: Misfire | UnsetType = UNSET
    window: Annotated[Duration, Meta(description=f"How old a missed fire may be to be made; at most {LONGEST_WINDOW:g} s.")] | UnsetType = (
        UNSET
    )
    overlap: Overlap | UnsetType = UNSET
    jitter: Annotated[Duration, Meta(description=f"At most {LONGEST_JITTER:g} s.")] | UnsetType = UNSET
    start_within: Duration | UnsetType | None = UNSET
    end_within: Duration | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    cron_expr: Expression | UnsetType = UNSET
    task_template: SubmitBody | UnsetType = UNSET

    def given(self) -> dict[str, Any]:
        """What was given, by our names. Raises InvalidTask for what is given under both."""
        found = {name: value for name in ScheduleChanges.__struct_fields__ if (value := getattr(self, name)) is not UNSET}
        for ours, theirs in (("expression", "cron_expr"), ("task", "task_template")):
            if theirs in found:
                if ours in found:
                    raise InvalidTask(f"expected {ours} or {theirs}, got both", field=theirs)
                found[ours] = found.pop(theirs)
        return found


class ScheduleBody(ScheduleChanges, forbid_unknown_fields=True, kw_only=True):
    """Body of POST /api/cron: a new schedule, with an expression and a task."""

    name: Name

    def given(self) -> dict[str, Any]:
        """As above. Raises InvalidTask also for what is missing."""
        found = super().given()
        for needed in ("expression", "task"):
            if needed not in found:
                raise InvalidTask("expected this field, got none", field=needed)
        return found


class Preview(msgspec.Struct):
    """Answer of GET /api/cron/preview: the expression in words, and its next fires in Unix milliseconds and in the zone's own time."""

    expression: str
    tz: str
    description: str
    fires: list[int]
    local: list[str]
