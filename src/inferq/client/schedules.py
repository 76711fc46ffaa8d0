"""Schedules of a queue behind a server."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import msgspec

from inferq.client.transport import Transport, delete, get, post, put
from inferq.door import AsyncDoor
from inferq.door.schedules import ScheduleFields, SchedulesDoor, checked_fields, template_fields, template_of
from inferq.errors import RecordNotFound
from inferq.handle import AsyncHandle
from inferq.schedule import Schedule
from inferq.task import Task, new_id
from inferq.wire.native import Listing, Submitted, TaskView


class RemoteSchedules(SchedulesDoor):
    """Each method is a request; only a creation that must be new is never made twice."""

    def __init__(self, door: AsyncDoor, transport: Transport) -> None:
        self._door = door
        self._transport = transport

    async def _put(self, fields: ScheduleFields, *, replace: bool) -> Schedule:
        fields = checked_fields(fields)
        fields.task = template_fields(template_of(fields))
        body = {name: getattr(fields, name) for name in ScheduleFields.__struct_fields__}
        if fields.enabled is None:
            del body["enabled"]
        if not replace:
            return await self._transport.ask(post("cron", json=body), Schedule)
        return await self._transport.ask(put("cron", body.pop("name"), json=body), Schedule)

    async def get(self, name: str) -> Schedule:
        return await self._transport.ask(get("cron", _name(name)), Schedule)

    async def list(self, enabled: bool | None = None, *, limit: int = 100, after: str = "") -> list[Schedule]:
        found: builtins.list[Schedule] = []
        while len(found) < limit:
            query = {"enabled": enabled, "limit": min(1000, limit - len(found)), "after": after or None}
            page = await self._transport.ask(get("cron", query=query), Listing[Schedule])
            found += page.items
            if page.next is None:
                break
            after = page.next
        return found

    async def _update(self, name: str, changes: dict[str, Any]) -> Schedule:
        if changes.get("enabled", True) is None:
            del changes["enabled"]
        if changes.keys() == {"enabled"} and type(changes["enabled"]) is bool:
            verb = "enable" if changes["enabled"] else "disable"
            return await self._transport.ask(post("cron", _name(name), verb, again=True), Schedule)
        if "task" in changes:
            changes["task"] = template_fields(template_of(ScheduleFields(name=name, expression="", task=changes["task"])))
        request = put("cron", _name(name), json=changes, headers={"If-Match": "*"})
        return await self._transport.ask(request, Schedule)

    async def remove(self, name: str) -> None:
        await self._transport.send(delete("cron", _name(name)))

    async def run(self, name: str, *, key: str | None = None) -> AsyncHandle:
        request = post("cron", _name(name), "run", again=True)
        request = msgspec.structs.replace(request, headers={"Idempotency-Key": key or f"client-{new_id()}"})
        return AsyncHandle(self._door, (await self._transport.ask(request, Submitted)).id)

    async def history(self, name: str, *, limit: int = 50) -> Sequence[Task]:
        page = await self._transport.ask(get("cron", _name(name), "history", query={"limit": limit}), Listing[TaskView])
        return [view.task() for view in page.items]


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise RecordNotFound(f"expected the name or id of a schedule, got {name!r}: there is none")
    return name
