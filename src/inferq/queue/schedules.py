"""Schedules of the queue in this process: records of its store."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from inferq.clock import Clock
from inferq.door import is_text
from inferq.door.schedules import ScheduleFields, SchedulesDoor, checked_fields, in_task, template_fields, template_of
from inferq.errors import AmbiguousId, Conflict, InvalidTask, RecordNotFound, StaleRecord, StoreError
from inferq.executor import Executor
from inferq.handle import AsyncHandle, Door
from inferq.intake import admit, check_json
from inferq.schedule import KIND, Schedule, decoded, encoded, rendered, task_of, timed
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


class Schedules(SchedulesDoor):
    """Kept as records of kind `schedule` under their names; every change names the version it was made from."""

    def __init__(
        self,
        home: Home,
        clock: Clock,
        *,
        executor_of: Callable[[str, str | None], Executor],
        max_bytes: int,
        max_queue_size: int | None,
    ) -> None:
        self._home = home
        self._clock = clock
        self._executor_of = executor_of
        self._max_bytes = max_bytes
        self._max_queue_size = max_queue_size

    async def _put(self, body: ScheduleFields, *, replace: bool) -> Schedule:
        wanted = self._checked(body)

        def merged(before: Schedule | None) -> Schedule:
            if before is None:
                return wanted
            if not replace:
                raise Conflict(f"expected a new name, but there is a schedule {body.name!r}; update it, or put it with replace")
            return _merged(before, wanted, body.enabled)

        return await self._change(body.name, merged)

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
            return _merged(before, self._checked(ScheduleFields(**fields | changes)), changes.get("enabled"))

        return await self._change(found.name, changed)

    async def _change(self, name: str, change: Callable[[Schedule | None], Schedule]) -> Schedule:
        """Read, change, write; again when somebody else (a fire) was quicker. What stays as it is is not written."""
        for _ in range(_TRIES):
            record = await self._home.store.record(KIND, name)
            before = None if record is None else _read(record)
            after, now = change(before), self._clock.read()
            if after == before:
                return after
            if before is None or any(getattr(before, field) != getattr(after, field) for field in _TIMES):
                after = timed(after, now.wall)
            after = msgspec.structs.replace(after, created=before.created if before else now.wall, updated=now.wall)
            try:
                await self._home.store.put_record(RecordPut(KIND, name, encoded(after), record.version if record else 0), now)
            except StaleRecord:
                continue
            return after
        raise StaleRecord(f"schedule {name!r} changes faster than it can be written; try again")

    async def get(self, name: str) -> Schedule:
        return _read(await self._record(name))

    async def _record(self, name: Any) -> Record:
        if not isinstance(name, str) or not name.isprintable():
            raise _unknown(name)
        record = await self._home.store.record(KIND, name)
        if record is not None:
            return record
        found = []
        if len(name) >= _SHORTEST_ID:
            found = [record async for record, schedule in self._all() if schedule.id.startswith(name.lower())]
        if not found:
            raise _unknown(name)
        if len(found) > 1:
            raise AmbiguousId(f"expected the beginning of one id, but several schedules begin with {name!r}; give more of it, or the name")
        return found[0]

    async def _all(self, after: str = "") -> AsyncIterator[tuple[Record, Schedule]]:
        """Every schedule that can be read, by name."""
        while page := await self._home.store.records(KIND, after=after, limit=_PAGE):
            for record in page:
                try:
                    yield record, _read(record)
                except StoreError as error:
                    log.warning("schedules.unreadable", extra={"schedule": record.id, "error": str(error)})
            after = page[-1].id

    async def list(self, enabled: bool | None = None, *, limit: int = 100, after: str = "") -> list[Schedule]:
        if type(limit) is not int or not 1 <= limit <= 10_000:
            raise InvalidTask(f"expected a number from 1 to 10000, got {limit!r}", field="limit")
        found: list[Schedule] = []
        async for _, schedule in self._all(after):
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
        return (await self._home.store.find(Filter(schedule=schedule.name).search(), limit=limit)).tasks


def _merged(before: Schedule, wanted: Schedule, enabled: bool | None) -> Schedule:
    """What the user wants, with the history of what is there, and its switch where nothing is said of it."""
    fields = {name: getattr(wanted, name) for name in (*ScheduleFields.__struct_fields__, "estimate", "size")}
    fields["enabled"] = before.enabled if enabled is None else enabled
    return msgspec.structs.replace(before, **fields)


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
