"""A schedule: which task it makes, when, and what follows a fire that was missed or that comes while the last task still runs.

Pure decisions over (schedule with its high-water mark, now, its tasks that have not ended). Who carries them out stores each new
`Schedule` with the version of the one it was decided from, so that over all processes one decision counts and no fire counts twice.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args
from zoneinfo import ZoneInfo

import msgspec

from inferq.cron import Cron, describe, fires, next_fire, parse, zone
from inferq.task import FlowKey, NewTask, Size, Submission, labels_of, lane_of, new_id

KIND: Final = "schedule"
"""The kind of the records that hold schedules."""

Misfire = Literal["skip", "once", "all"]
"""What becomes of fires that nobody made in time: none; the newest, if it lies in the window; all that lie in it, oldest first."""
Overlap = Literal["allow", "skip", "queue", "cancel"]
"""What a fire does while a task of the schedule has not ended: run beside it; make none; wait for its end, one at most; cancel it."""
MISFIRES: Final[tuple[str, ...]] = get_args(Misfire)
OVERLAPS: Final[tuple[str, ...]] = get_args(Overlap)

GRACE: Final = 60_000
"""Milliseconds that a fire may be late and still count as made in time."""
LONGEST_WINDOW: Final = 7 * 86_400.0
LONGEST_JITTER: Final = 86_400.0
_COUNTED: Final = 1000
"""Skipped fires beyond this number are not counted one by one."""


class Skip(msgspec.Struct, frozen=True):
    """Fires that made no task: the last of them (`fire`), how many, when that was decided, and why. Unix milliseconds."""

    fire: int
    at: int
    reason: str
    count: int = 1


class Schedule(msgspec.Struct, frozen=True):
    """What is stored, and shown. Durations are seconds, instants Unix milliseconds.

    `task` is the template of every task; `start_within` and `end_within` become its deadlines, counted from when it is made.
    `mark` is the high-water mark: no fire at or before it is ever made again, whatever the clock does. `next_fire` is the nominal time;
    `due`, when its task is made, lies a share of `jitter` later, and is None while it is disabled. `held` is a fire that waits for the
    end of the task before it. `description` is the expression in words.
    """

    id: str
    name: str
    expression: str
    task: Submission
    tz: str = "UTC"
    enabled: bool = True
    misfire: Misfire = "once"
    window: float = 3600.0
    overlap: Overlap = "skip"
    jitter: float = 0.0
    start_within: float | None = None
    end_within: float | None = None
    metadata: dict[str, Any] = {}
    estimate: int = 0
    size: Size = "low"
    description: str = ""
    mark: int = 0
    next_fire: int | None = None
    due: int | None = None
    last_fire: int | None = None
    fire_count: int = 0
    last_task: str | None = None
    last_skip: Skip | None = None
    held: int | None = None
    cancelling: tuple[str, ...] = ()
    created: int = 0
    updated: int = 0

    @property
    def tenant(self) -> str:
        """On whose account it is: names of schedules are each tenant's own."""
        return self.task.tenant

    @property
    def place(self) -> str:
        """Its name among all tenants' schedules."""
        return place_of(self.tenant, self.name)

    @property
    def cron(self) -> Cron:
        """Its expression, read."""
        return parse(self.expression)

    @property
    def zone(self) -> ZoneInfo:
        """The time zone that its expression speaks of."""
        return zone(self.tz)

    @property
    def offset(self) -> int:
        """Milliseconds after the nominal time at which it fires: a share of `jitter` that its id decides, the same for every fire."""
        share = int.from_bytes(hashlib.blake2b(self.id.encode(), digest_size=8).digest())
        return round(self.jitter * 1000) * share >> 64

    def to_dict(self) -> dict[str, Any]:
        """The schedule as JSON-ready values."""
        made: dict[str, Any] = msgspec.to_builtins(self)
        return made


def place_of(tenant: str, name: str) -> str:
    """Under what a schedule is kept: its name, and before it the tenant where there is one. No name has a slash."""
    return f"{tenant}/{name}" if tenant else name


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Schedule)


def encoded(schedule: Schedule) -> bytes:
    """The body of its record."""
    return _encoder.encode(schedule)


def decoded(body: bytes) -> Schedule:
    """A schedule from the body of its record. Raises msgspec.DecodeError."""
    return _decoder.decode(body)


def timed(schedule: Schedule, now: int) -> Schedule:
    """The schedule counting from `now` on: what lies before it is past, as when it is new, changed or enabled again."""
    return _with(_marked(schedule, max(schedule.mark, now)), description=describe(schedule.cron), held=None, cancelling=())


def _marked(schedule: Schedule, mark: int) -> Schedule:
    fire = next_fire(schedule.cron, mark, schedule.zone)
    due = fire + schedule.offset if fire is not None and schedule.enabled else None
    return _with(schedule, mark=mark, next_fire=fire, due=due)


# ── the task of a fire ──────────────────────────────────────────────────────────────────────────────────────────────

_PLACE: Final = re.compile(r"(?P<escaped>\{)?\{(?P<name>scheduled_at|schedule|fire_count)(?::(?P<format>[^{}]*))?\}(?(escaped)\})")


def rendered(value: Any, schedule: str, at: datetime, count: int) -> Any:
    """A payload with its places filled in, in all texts at any depth: `{scheduled_at}` (RFC 3339) or `{scheduled_at:%Y-%m-%d}` (strftime)
    in the schedule's zone, `{schedule}` (its name) and `{fire_count}`. Doubled braces stand for single ones; all other braces stay.
    """
    if isinstance(value, str):
        return _PLACE.sub(lambda match: _filled(match, schedule, at, count), value) if "{" in value else value
    if isinstance(value, dict):
        return {key: rendered(part, schedule, at, count) for key, part in value.items()}
    if isinstance(value, list):
        return [rendered(part, schedule, at, count) for part in value]
    return value


def _filled(match: re.Match[str], schedule: str, at: datetime, count: int) -> str:
    if match["escaped"]:
        return match[0][1:-1]
    if match["name"] == "schedule":
        return schedule
    if match["name"] == "fire_count":
        return str(count)
    return at.strftime(match["format"]) if match["format"] else at.isoformat(timespec="seconds")


def task_of(schedule: Schedule, fire: int, now: int, *, by_hand: bool = False) -> NewTask:
    """The task that this fire makes. Its metadata says where it comes from, under the forerunners' names; `by_hand` marks one that was
    asked for outside the schedule's times."""
    count = schedule.fire_count + 1
    at = datetime.fromtimestamp(fire / 1000, UTC).astimezone(schedule.zone)
    origin: dict[str, Any] = {"cron_id": schedule.id, "cron_name": schedule.name, "cron_fire": at.isoformat(timespec="seconds")}
    origin |= {"cron_by_hand": True} if by_hand else {"cron_run_count": count}
    spec = msgspec.structs.replace(
        schedule.task,
        payload=rendered(schedule.task.payload, schedule.name, at, count),
        metadata={**schedule.task.metadata, **origin},
        scheduled_at=fire,
        start_deadline=_after(now, schedule.start_within),
        deadline=_after(now, schedule.end_within),
        schedule=schedule.name,
    )
    ends = [moment for moment in (spec.start_deadline, spec.deadline) if moment is not None]
    return NewTask(
        id=new_id(),
        flow=FlowKey(lane_of(spec.executor, spec.model, spec.backend, remote=spec.remote), spec.priority, schedule.size, spec.tenant),
        action=spec.action,
        spec=_encoder.encode(spec),
        estimate=schedule.estimate,
        expires=min(ends, default=None),
        at_most_once=spec.at_most_once,
        labels=labels_of(spec),
    )


def _after(now: int, duration: float | None) -> int | None:
    return None if duration is None else now + round(duration * 1000)


# ── what to do now ──────────────────────────────────────────────────────────────────────────────────────────────────


class Step(msgspec.Struct, frozen=True):
    """One thing to do: store `schedule` (unless it is the very one that was given), with `task` in the same transaction where there is one
    (made for `fire`), then cancel the tasks in `cancel`. `skipped` says what made no task.

    Only tasks that a stored schedule names are cancelled: a decision from an older one can then never hit the task of a later fire.
    """

    schedule: Schedule
    task: NewTask | None = None
    fire: int = 0
    skipped: tuple[Skip, ...] = ()
    cancel: tuple[str, ...] = ()


def next_step(schedule: Schedule, now: int, active: Sequence[str]) -> Step | None:
    """What a schedule asks for at `now`, given the ids of its tasks that have not ended; None when there is nothing to do.

    After a step has been stored there may be another one.
    """
    if not schedule.enabled:
        return None
    if schedule.held is not None:
        if not active:
            return _fired(schedule, schedule.held, now)
        if schedule.overlap == "cancel":
            known = set(active) <= set(schedule.cancelling)
            return Step(schedule if known else _with(schedule, cancelling=tuple(active)), cancel=tuple(active))
    found = _due(schedule, now)
    if found is None:
        return None
    mark, fire, missed = found
    skipped = (Skip(missed[-1], now, "misfire: nobody made it in time", len(missed)),) if missed else ()
    moved = _with(_marked(schedule, mark), last_skip=skipped[-1] if skipped else schedule.last_skip)
    if fire is None:
        return Step(moved, skipped=skipped)
    return _overlapped(moved, fire, now, active, skipped)


def _overlapped(schedule: Schedule, fire: int, now: int, active: Sequence[str], skipped: tuple[Skip, ...]) -> Step:
    """A fire whose time has come, against the tasks before it."""
    if schedule.overlap == "allow" or not active:
        return _fired(schedule, fire, now, skipped)
    if schedule.overlap == "cancel":
        if schedule.held is not None:
            skipped += (Skip(schedule.held, now, "overlap: a later fire took its place"),)
        held = _with(schedule, held=fire, cancelling=tuple(active), last_skip=skipped[-1] if skipped else schedule.last_skip)
        return Step(held, skipped=skipped, cancel=tuple(active))
    if schedule.overlap == "queue" and schedule.held is None:
        return Step(_with(schedule, held=fire), skipped=skipped)
    why = "another fire waits already" if schedule.overlap == "queue" else f"task {active[0]} has not ended"
    skip = Skip(fire, now, f"overlap: {why}")
    return Step(_with(schedule, last_skip=skip), skipped=(*skipped, skip))


def _fired(schedule: Schedule, fire: int, now: int, skipped: tuple[Skip, ...] = ()) -> Step:
    task = task_of(schedule, fire, now)
    after = _with(schedule, held=None, cancelling=(), last_fire=fire, fire_count=schedule.fire_count + 1, last_task=task.id)
    return Step(after, task, fire, skipped)


def _due(schedule: Schedule, now: int) -> tuple[int, int | None, list[int]] | None:
    """`(new mark, the fire to make, the fires that are missed)`; None when no fire's time has come."""
    cron, tz, latest = schedule.cron, schedule.zone, now - schedule.offset
    first = next_fire(cron, schedule.mark, tz)
    if first is None or first > latest:
        return None
    allowed = GRACE if schedule.misfire == "skip" else max(GRACE, round(schedule.window * 1000))
    since = latest - allowed
    fire = (_newest if schedule.misfire == "once" else _oldest)(cron, tz, max(schedule.mark, since - 1), latest)
    mark = since - 1 if fire is None else fire
    until = latest + 1 if fire is None else fire if schedule.misfire == "once" else min(fire, since)
    missed = list(itertools.islice(itertools.takewhile(until.__gt__, fires(cron, schedule.mark, tz)), _COUNTED))
    return mark, fire, missed


def _oldest(cron: Cron, tz: ZoneInfo, after: int, latest: int) -> int | None:
    """The first fire in (after, latest]."""
    found = next_fire(cron, after, tz)
    return found if found is not None and found <= latest else None


def _newest(cron: Cron, tz: ZoneInfo, after: int, latest: int) -> int | None:
    """The last fire in (after, latest]: looked for in ever longer stretches, so that a long window of frequent fires costs little."""
    stretch = GRACE
    while True:
        start = max(after, latest - stretch)
        found = list(itertools.takewhile(latest.__ge__, fires(cron, start, tz)))
        if found:
            return found[-1]
        if start == after:
            return None
        stretch *= 4


def _with(schedule: Schedule, **changes: Any) -> Schedule:
    return msgspec.structs.replace(schedule, **changes)
