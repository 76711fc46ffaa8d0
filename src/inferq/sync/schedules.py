"""`queue.schedules` for programs without an event loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from inferq.door.schedules import Duration, SchedulesDoor
from inferq.schedule import Misfire, Overlap, Schedule
from inferq.sync.group import Group
from inferq.sync.handle import Handle
from inferq.task import Submission, Task


class Schedules(Group[SchedulesDoor]):
    """Create, change and watch schedules."""

    def put(
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
        """Create a schedule, or make the one of that name so; safe to call at every start. See `SchedulesDoor.put`."""
        made = self._asynchronous.put(
            name,
            expression,
            task=task,
            tz=tz,
            enabled=enabled,
            misfire=misfire,
            window=window,
            overlap=overlap,
            jitter=jitter,
            start_within=start_within,
            end_within=end_within,
            metadata=metadata,
            replace=replace,
        )
        return self._queue.call(made)

    def get(self, name: str) -> Schedule:
        """By name, id, or the beginning of an id. Raises RecordNotFound, AmbiguousId."""
        return self._queue.call(self._asynchronous.get(name))

    def list(self, enabled: bool | None = None, *, limit: int = 100, after: str = "") -> Sequence[Schedule]:
        """By name; pass the last one's name as `after` to go on."""
        return self._queue.call(self._asynchronous.list(enabled, limit=limit, after=after))

    def update(self, name: str, **changes: Any) -> Schedule:
        """Change some of what `put` takes. Raises RecordNotFound, InvalidTask."""
        return self._queue.call(self._asynchronous.update(name, **changes))

    def enable(self, name: str) -> Schedule:
        """Fire again, from now on. Idempotent. Raises RecordNotFound."""
        return self._queue.call(self._asynchronous.enable(name))

    def disable(self, name: str) -> Schedule:
        """Fire no more; its tasks go on. Idempotent. Raises RecordNotFound."""
        return self._queue.call(self._asynchronous.disable(name))

    def remove(self, name: str) -> None:
        """Forget it; its tasks go on. Raises RecordNotFound."""
        self._queue.call(self._asynchronous.remove(name))

    def run(self, name: str, *, key: str | None = None) -> Handle:
        """Make its task now, whatever its times and policies say. Raises RecordNotFound."""
        return Handle(self._queue, self._queue.call(self._asynchronous.run(name, key=key)).id)

    def history(self, name: str, *, limit: int = 50) -> Sequence[Task]:
        """Its tasks that retention still keeps, newest first. Raises RecordNotFound."""
        return self._queue.call(self._asynchronous.history(name, limit=limit))

    def preview(self, expression: str, *, tz: str = "UTC", count: int = 5, after: datetime | None = None) -> Sequence[datetime]:
        """The next fires of an expression, in the zone `tz`. Raises InvalidTask."""
        return self._queue.call(self._asynchronous.preview(expression, tz=tz, count=count, after=after))
