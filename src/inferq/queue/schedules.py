"""Schedules of the queue in this process: records of its store."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from inferq.clock import Clock
from inferq.door.schedules import ScheduleFields, SchedulesDoor, checked_fields, in_task, template_fields, template_of
from inferq.errors import AmbiguousId, Conflict, InvalidTask, RecordNotFound, StaleRecord, StoreError
from inferq.executor import Executor
from inferq.given import is_text
from inferq.handle import AsyncHandle, Door
from inferq.intake import admit, check_json
from inferq.schedule import KIND, Schedule, decoded, encoded, place_of, rendered, task_of, timed
from inferq.store import Filter, Record, RecordPut, Store
from inferq.task import Submission, Task, new_id

log: Final = logging.getLogger("inferq.queue")

_PAGE: Final = 500
_TRIES: Final = 50
_TIMES: Final = ("expression", "tz", "jitter", "enabled")
"""What, when it changes, makes a schedule count from now on."""
_SHORTEST_ID: Final = 8


class Home(Door, Protocol):
    """What the schedules need of their queue."""

    @property
    def store(self) -> Store: ...


class LocalSchedules(SchedulesDoor):
    """Kept as records of kind `schedule` under their names; every change names the version it was made from."""

    def __init__(
        self,
        home: Home,
        clock: Clock,
        *,
        executor_of: Callable[[str, str | None], Executor],
        max_bytes: int,
        max_queue_size: int | None,
        tenant: str | None = None,
    ) -> None:
        self._tenant = tenant
        """Whose schedules these are; None: everybody's."""
        self._home = home
        self._clock = clock
        self._executor_of = executor_of
        self._max_bytes = max_bytes
        self._max_queue_size = max_queue_size

    def of(self, tenant: str | None) -> LocalSchedules:
        """The schedules of one tenant alone: no others exist there, whatever their names. None: everybody's."""
        return LocalSchedules(
            self._home,
            self._clock,
            executor_of=self._executor_of,
            max_bytes=self._max_bytes,
            max_queue_size=self._max_queue_size,
            tenant=tenant,
        )

    async def _put(self, body: ScheduleFields, *, replace: bool) -> Schedule:
        wanted = self._checked(body)

        def merged(before: Schedule | None) -> Schedule:
            if before is None:
                return wanted
            if not replace:
                raise Conflict(f"expected a new name, but there is a schedule {body.name!r}; update it, or put it with replace")
            return _merged(before, wanted, body.enabled)

        return await self._change(wanted.place, merged)

    def _checked(self, body: ScheduleFields) -> Schedule:
        """The schedule that the body asks for, not counting yet."""
        body = checked_fields(body)
        template = template_of(body)
        check_json(body.metadata, "metadata")
        now = self._clock.read().wall
        task = msgspec.structs.replace(template, payload=_sample(template, body.name, now))
        try:
            admitted = admit(task, self._executor_of, max_bytes=self._max_bytes)
        except InvalidTask as error:
            raise in_task(error) from None
        fields = {name: getattr(body, name) for name in ScheduleFields.__struct_fields__}
        fields |= {"task": template, "enabled": body.enabled is not False}
        return Schedule(id=new_id(), estimate=admitted.estimate, size=admitted.flow.size, **fields)

    async def _update(self, name: str, changes: dict[str, Any]) -> Schedule:
        found = await self.get(name)

        def changed(before: Schedule | None) -> Schedule:
            if before is None:
                raise _unknown(name)
            if changes.keys() == {"enabled"} and type(changes["enabled"]) is bool:
                # A switch works even where the executor of its task is not installed.
                return msgspec.structs.replace(before, **changes)
            fields = {field: getattr(before, field) for field in ScheduleFields.__struct_fields__}
            fields["task"] = template_fields(before.task)
            fields |= changes
            fields["task"] = _of_tenant(fields["task"], before.tenant)
            return _merged(before, self._checked(ScheduleFields(**fields)), changes.get("enabled"))

        return await self._change(found.place, changed)

    async def _change(self, place: str, change: Callable[[Schedule | None], Schedule]) -> Schedule:
        """Read, change, write; again when somebody else (a fire) was quicker. What stays as it is is not written."""
        for _ in range(_TRIES):
            record = await self._home.store.record(KIND, place)
            before = None if record is None else _read(record)
            after, now = change(before), self._clock.read()
            if after == before:
                return after
            if before is None or any(getattr(before, field) != getattr(after, field) for field in _TIMES):
                after = timed(after, now.wall)
            after = msgspec.structs.replace(after, created=before.created if before else now.wall, updated=now.wall)
            try:
                await self._home.store.put_record(RecordPut(KIND, place, encoded(after), record.version if record else 0), now)
            except StaleRecord:
                continue
            return after
        raise StaleRecord(f"schedule {place!r} changes faster than it can be written; try again")

    async def get(self, name: str) -> Schedule:
        return _read(await self._record(name))

    async def _record(self, name: Any) -> Record:
        if not isinstance(name, str) or not name.isprintable():
            raise _unknown(name)
        place = self._place(name)
        record = None if place is None else await self._home.store.record(KIND, place)
        if record is not None:
            return record
        named, begun = [], []
        async for record, schedule in self._all():
            if schedule.name == name:
                named.append(record)
            elif len(name) >= _SHORTEST_ID and schedule.id.startswith(name.lower()):
                begun.append(record)
        if len(named) > 1:
            places = " and ".join(one.id for one in named[:3])
            raise AmbiguousId(f"expected the name of one schedule, but {places} have it; give one of these")
        if not named and len(begun) > 1:
            raise AmbiguousId(f"expected the beginning of one id, but several schedules begin with {name!r}; give more of it, or the name")
        if not named and not begun:
            raise _unknown(name)
        return (named or begun)[0]

    def _place(self, name: str) -> str | None:
        """Where it is kept, given by name or by place; None for the place of another tenant's."""
        if self._tenant is None:
            return name
        tenant, slash, bare = name.rpartition("/")
        return None if slash and tenant != self._tenant else place_of(self._tenant, bare)

    async def _all(self, after: str = "") -> AsyncIterator[tuple[Record, Schedule]]:
        """Every schedule that can be read, by place; those of the tenant, where there is one."""
        while page := await self._home.store.records(KIND, after=after, limit=_PAGE):
            for record in page:
                try:
                    schedule = _read(record)
                except StoreError as error:
                    log.warning("schedules.unreadable", extra={"schedule": record.id, "error": str(error)})
                    continue
                if self._tenant is None or schedule.tenant == self._tenant:
                    yield record, schedule
            after = page[-1].id

    async def list(self, enabled: bool | None = None, *, limit: int = 100, after: str = "") -> list[Schedule]:
        if type(limit) is not int or not 1 <= limit <= 10_000:
            raise InvalidTask(f"expected a number from 1 to 10000, got {limit!r}", field="limit")
        found: list[Schedule] = []
        async for _, schedule in self._all((self._place(after) or after) if after else ""):
            if enabled is None or schedule.enabled is enabled:
                found.append(schedule)
                if len(found) == limit:
                    break
        return found

    async def remove(self, name: str) -> None:
        record = await self._record(name)
        if not await self._home.store.drop_record(KIND, record.id, self._clock.read()):
            raise _unknown(name)

    async def run(self, name: str, *, key: str | None = None) -> AsyncHandle:
        schedule, now = await self.get(name), self._clock.read()
        task = task_of(schedule, now.wall, now.wall, by_hand=True)
        if key is not None:
            if not is_text(key) or not key:
                raise InvalidTask(f"expected a text of at least one character, got {key!r}", field="key")
            check_json(key, "key")
            # Of the same run: what it asks for names the moment, so the schedule stands for it.
            task.key, task.digest = key, hashlib.blake2b(f"run {schedule.id}".encode(), digest_size=16).digest()
        ids = await self._home.store.add([task], now, limit=self._max_queue_size)
        return AsyncHandle(self._home, ids[0])

    async def history(self, name: str, *, limit: int = 50) -> Sequence[Task]:
        if type(limit) is not int or not 1 <= limit <= 10_000:
            raise InvalidTask(f"expected a number from 1 to 10000, got {limit!r}", field="limit")
        schedule = await self.get(name)
        where = Filter(schedule=schedule.name, tenants=(schedule.tenant,))
        return (await self._home.store.find(where.search(), limit=limit)).tasks


def _merged(before: Schedule, wanted: Schedule, enabled: bool | None) -> Schedule:
    """What the user wants, with the history of what is there, and its switch where nothing is said of it."""
    fields = {name: getattr(wanted, name) for name in (*ScheduleFields.__struct_fields__, "estimate", "size")}
    fields["enabled"] = before.enabled if enabled is None else enabled
    return msgspec.structs.replace(before, **fields)


def _of_tenant(task: dict[str, Any], tenant: str) -> dict[str, Any]:
    """The template on the account that its schedule has. Raises InvalidTask where it names another."""
    if task.get("tenant") or tenant:
        if task.get("tenant") not in (None, "", tenant):
            expected = f"expected {tenant!r}, whose schedule it is" if tenant else "expected none, since the schedule is no tenant's"
            raise InvalidTask(f"{expected}, got {task['tenant']!r}; put a schedule for that tenant instead", field="task.tenant")
        return {**task, "tenant": tenant}
    return task


def _sample(template: Submission, name: str, now: int) -> dict[str, Any]:
    """The payload with its places filled in. Raises InvalidTask for a format that strftime refuses."""
    check_json(template.payload, "task.payload")
    try:
        made: dict[str, Any] = rendered(template.payload, name, datetime.fromtimestamp(now / 1000, UTC), 1)
    except (ValueError, UnicodeError) as error:
        expected = "expected places such as {scheduled_at:%Y-%m-%d}"
        raise InvalidTask(f"{expected}, got a format that fails: {error}", field="task.payload") from None
    return made


def _read(record: Record) -> Schedule:
    """Raises StoreError for what another version wrote."""
    try:
        return decoded(record.body)
    except msgspec.DecodeError as error:
        raise StoreError(f"schedule {record.id!r} cannot be read ({error}): remove it, or use the inferq that wrote it") from None


def _unknown(name: object) -> RecordNotFound:
    return RecordNotFound(f"expected the name or id of a schedule, got {name!r}: there is none")
