"""Schedules over HTTP, under the forerunners' address /api/cron."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
from msgspec import Meta

from inferq.access import authorise
from inferq.clock import SystemClock
from inferq.cron import describe, parse
from inferq.door.schedules import MOST_FIRES, in_task
from inferq.errors import (
    AmbiguousId,
    Conflict,
    DuplicateKey,
    InvalidRequest,
    InvalidTask,
    PayloadTooLarge,
    QueueFull,
    RateLimited,
    RecordNotFound,
)
from inferq.given import checked_instant
from inferq.intake import STREAMED_ACTIONS
from inferq.queue.schedules import LocalSchedules
from inferq.schedule import Schedule
from inferq.server.call import Call, Reply
from inferq.server.route import Route, route
from inferq.task import State, Submission
from inferq.wire.native import Instant, Listing, SubmitBody, Submitted, TaskView, task_view
from inferq.wire.schedules import Expression, Preview, ScheduleBody, ScheduleChanges, Zone

_clock: Final = SystemClock()
_FOUND: Final = (RecordNotFound, AmbiguousId)
EXAMPLE: Final = {
    "name": "daily-report",
    "expression": "0 9 * * 1-5",
    "tz": "Europe/Berlin",
    "task": {
        "executor": "echo",
        "action": "chat",
        "model": "echo-1",
        "payload": {"messages": [{"role": "user", "content": "Summary for {scheduled_at:%Y-%m-%d}"}]},
    },
    "overlap": "skip",
}
_CHANGES: Final = {"time": {"expression": "30 8 * * 1-5"}, "policies": {"misfire": "all", "window": "6h", "overlap": "queue"}}


class ListQuery(msgspec.Struct, forbid_unknown_fields=True):
    enabled: bool | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    after: Annotated[str, Meta(max_length=400, description="The `next` of the page before.")] = ""


class HistoryQuery(msgspec.Struct, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50


class PreviewQuery(msgspec.Struct, forbid_unknown_fields=True):
    expression: Expression
    tz: Zone = "UTC"
    count: Annotated[int, Meta(ge=1, le=MOST_FIRES)] = 5
    after: Instant | None = None


@route("GET", "/api/cron", role="read", query=ListQuery, returns={200: Listing[Schedule]})
async def list_(call: Call) -> Reply:
    """List schedules by name."""
    query: ListQuery = call.query
    found = await _schedules(call).list(query.enabled, limit=query.limit, after=query.after)
    return Reply(Listing(found, found[-1].place if len(found) == query.limit else None))


@route(
    "POST",
    "/api/cron",
    role="operator",
    body=ScheduleBody,
    returns={201: Schedule},
    errors=(InvalidTask, PayloadTooLarge, Conflict),
    examples={"daily": EXAMPLE},
)
async def create(call: Call) -> Reply:
    """Create a schedule. Its task is checked like a submission, so a broken one is refused now and not at its first fire."""
    body: ScheduleBody = call.body
    made = await _schedules(call).put(body.name, replace=False, **_given(call, body))
    return Reply(made, 201, {"location": f"{call.root}/api/cron/{quote(made.name, safe='')}"})


def _given(call: Call, body: ScheduleChanges) -> dict[str, Any]:
    given = body.given()
    if "task" in given:
        given["task"] = _template(call, given["task"])
    return given


def _template(call: Call, task: SubmitBody) -> Submission:
    """The template as this caller may have it made into tasks."""
    if task.delay is not None:
        raise InvalidTask("leave it out: the expression says when, and jitter how much later", field="task.delay")
    try:
        return call.authorise(task.submission(_clock.read().wall, streamed=lambda action: action in STREAMED_ACTIONS))
    except InvalidTask as error:
        raise in_task(error) from None


@route("GET", "/api/cron/{name}", role="read", returns={200: Schedule}, errors=_FOUND)
async def show(call: Call) -> Reply:
    """Show a schedule, by its name, its id or the beginning of that."""
    return Reply(await _schedule(call))


def _schedules(call: Call) -> LocalSchedules:
    """Those that exist for this caller."""
    return call.queue.schedules.of(call.principal.tenant)


async def _schedule(call: Call) -> Schedule:
    """The schedule of the path, where it exists for this caller."""
    return await _schedules(call).get(call.path["name"])


@route(
    "PUT",
    "/api/cron/{name}",
    role="operator",
    body=ScheduleChanges,
    returns={200: Schedule, 201: Schedule},
    errors=(*_FOUND, InvalidTask, PayloadTooLarge, Conflict),
    headers=("If-Match",),
    examples=_CHANGES,
)
async def put(call: Call) -> Reply:
    """Create a schedule or change one (with `If-Match: *` only change). Idempotent: what is so already is left alone. A new time and
    enabling count from now on."""
    body: ScheduleChanges = call.body
    given, name, match = _given(call, body), call.path["name"], call.header_text("If-Match")
    if match not in (None, "*"):
        raise InvalidRequest("expected *, got something else: schedules have no entity tags", parameter="If-Match")
    try:
        found = await _meant(call, name, given.get("task"))
    except RecordNotFound:
        if match or "expression" not in given or "task" not in given:
            raise
        return Reply(await _schedules(call).put(name, replace=False, **given), 201)
    if "task" not in given:
        _check_template(call, found)
    return Reply(await _schedules(call).update(found.place, **given))


async def _meant(call: Call, name: str, task: Submission | None) -> Schedule:
    """The schedule to be changed: of that name on the account that the template is for, else the one of that id. Who leaves the template as
    it is, or changes only what is there, means whichever there is."""
    schedules = _schedules(call)
    if task is None or call.principal.tenant is not None or call.raw_headers.get(b"if-match"):
        return await schedules.get(name)
    try:
        return await schedules.of(task.tenant).get(name)
    except RecordNotFound as unknown:
        try:
            found = await schedules.get(name)
        except (RecordNotFound, AmbiguousId):
            raise unknown from None
        if name == found.name:
            raise
        return found


def _check_template(call: Call, schedule: Schedule) -> None:
    """Refuse to have tasks made that this caller could not submit itself."""
    authorise(call.principal, msgspec.structs.replace(schedule.task, schedule=None))


@route("DELETE", "/api/cron/{name}", role="operator", returns={204: None}, errors=_FOUND)
async def remove(call: Call) -> Reply:
    """Remove a schedule. Its tasks go on."""
    await _schedules(call).remove((await _schedule(call)).place)
    return Reply(None, 204)


async def enable(call: Call) -> Reply:
    """Let a schedule fire, from now on."""
    schedule = await _schedule(call)
    _check_template(call, schedule)
    return Reply(await _schedules(call).enable(schedule.place))


async def disable(call: Call) -> Reply:
    """Let a schedule fire no more."""
    return Reply(await _schedules(call).disable((await _schedule(call)).place))


@route(
    "POST",
    "/api/cron/{name}/run",
    role="operator",
    returns={201: Submitted},
    errors=(*_FOUND, InvalidTask, DuplicateKey, QueueFull, RateLimited),
    headers=("Idempotency-Key",),
)
async def run(call: Call) -> Reply:
    """Make the schedule's task now, whatever its times and policies say. The same idempotency key makes one task."""
    schedule = await _schedule(call)
    _check_template(call, schedule)
    handle = await _schedules(call).run(schedule.place, key=call.header_text("Idempotency-Key"))
    task = await handle.refresh()
    spec = task.spec
    made = Submitted(task.id, task.id, State(task.state), spec.executor, spec.action, spec.model, task.priority, spec.scheduled_at)
    return Reply(made, 201, {"location": f"{call.root}/api/tasks/{task.id}"})


@route("GET", "/api/cron/{name}/history", role="read", query=HistoryQuery, returns={200: Listing[TaskView]}, errors=_FOUND)
async def history(call: Call) -> Reply:
    """List the schedule's tasks that retention still keeps, newest first."""
    schedule = await _schedule(call)
    tasks = await _schedules(call).history(schedule.place, limit=call.query.limit)
    return Reply(Listing([task_view(task) for task in tasks]))


@route("GET", "/api/cron/preview", role="read", query=PreviewQuery, returns={200: Preview}, errors=(InvalidTask,))
async def preview(call: Call) -> Reply:
    """Say when an expression fires next, and what it means in words."""
    query: PreviewQuery = call.query
    after = checked_instant(query.after, "after")
    moment = None if after is None else _moment(after)
    fires = await call.queue.schedules.preview(query.expression, tz=query.tz, count=query.count, after=moment)
    times = [round(at.timestamp() * 1000) for at in fires]
    return Reply(Preview(query.expression, query.tz, describe(parse(query.expression)), times, [at.isoformat() for at in fires]))


def _moment(ms: int) -> datetime:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC)
    except (ValueError, OverflowError):
        raise InvalidTask("expected a time before the year 10000", field="after") from None


# The forerunners' client switches with PUT, everybody else with POST.
_SWITCHES: Final = [
    route(method, f"/api/cron/{{name}}/{handler.__name__}", role="operator", returns={200: Schedule}, errors=_FOUND)(handler)
    for handler in (enable, disable)
    for method in ("POST", "PUT")
]

ROUTES: Final[list[Route]] = [list_, create, show, put, remove, run, history, preview, *_SWITCHES]
