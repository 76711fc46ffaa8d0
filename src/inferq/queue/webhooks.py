"""Webhooks in the store: kept as records, their messages as tasks."""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from inferq.clock import Clock
from inferq.config import WebhookSettings
from inferq.door.webhooks import DeliveryPage, WebhooksDoor
from inferq.errors import Conflict, InvalidTask, RecordNotFound, StaleRecord, WrongState
from inferq.executors.addresses import is_public
from inferq.query import Search, parse, search
from inferq.store import Cursor, Filter, Record, RecordPut, Store
from inferq.task import NewTask, State, Task
from inferq.webhook import (
    EXECUTOR,
    KIND,
    TEST,
    Delivery,
    MadeWebhook,
    Webhook,
    WebhookView,
    check_events,
    check_headers,
    check_name,
    check_secret,
    check_url,
    make_again,
    make_delivery,
    new_secret,
    tag_of,
)

_PAGE: Final = 500
_LARGEST: Final = 1000
_STATUS: Final = re.compile(r" answered (\d{3})\b")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Webhook).decode


class LocalWebhooks(WebhooksDoor):
    """The webhooks of a store."""

    def __init__(self, store: Store, clock: Clock, settings: WebhookSettings) -> None:
        self._store = store
        self._clock = clock
        self._set = settings

    # keeping ---------------------------------------------------------------------------------------------------------

    async def put(
        self,
        name: str,
        *,
        url: str,
        events: Sequence[str] = ("*",),
        query: str = "",
        secret: str | None = None,
        headers: Mapping[str, str] | None = None,
        enabled: bool = True,
        replace: bool = True,
    ) -> MadeWebhook:
        now = self._clock.read()
        asked = Webhook(
            name=check_name(name),
            url=check_url(url, None if self._set.allow_private else is_public),
            events=check_events([events] if isinstance(events, str) else events),
            query=query.strip(),
            headers=check_headers(headers or {}),
            secret=new_secret() if secret is None else check_secret(secret, self._set.secret_dir),
            enabled=enabled,
            since=await self._store.last_event(),
            created=now.wall,
        )
        search(parse(asked.query), now.wall)
        while True:
            record = await self._store.record(KIND, name)
            if record is not None and not replace:
                raise Conflict(f"expected a new name, got {name!r}, which a webhook has; choose another, or change that one")
            before = None if record is None else _decode(record.body)
            fresh = secret is None and (before is None or not before.secret)
            made = asked if before is None else _over(before, asked, keep_secret=secret is None and not fresh)
            try:
                await self._store.put_record(RecordPut(KIND, name, _encode(made), 0 if record is None else record.version), now)
            except StaleRecord:
                continue
            return MadeWebhook(made.view, made.secret if fresh else None)

    async def list(self) -> builtins.list[WebhookView]:
        found: builtins.list[WebhookView] = []
        while page := await self._store.records(KIND, after=found[-1].name if found else "", limit=_PAGE):
            found += [_decode(record.body).view for record in page]
        return found

    async def get(self, name: str) -> WebhookView:
        return (await self._find(name))[1].view

    async def remove(self, name: str) -> None:
        await self._find(name)
        await self._store.drop_record(KIND, name, self._clock.read())

    async def enable(self, name: str) -> WebhookView:
        newest = await self._store.last_event()
        return await self._change(name, enabled=True, reason="", since=newest, failing_since=None)

    async def disable(self, name: str, *, reason: str = "") -> WebhookView:
        return await self._change(name, enabled=False, reason=reason[:500])

    async def _change(self, name: str, *, enabled: bool, **fields: object) -> WebhookView:
        while True:
            record, hook = await self._find(name)
            if hook.enabled == enabled:
                return hook.view
            if enabled and not hook.secret:
                raise Conflict(f"webhook {name!r} came from an archive, without its secret: `inferq webhooks add` gives it one")
            made: Webhook = msgspec.structs.replace(hook, enabled=enabled, **fields)
            try:
                await self._store.put_record(RecordPut(KIND, name, _encode(made), record.version), self._clock.read())
            except StaleRecord:
                continue
            return made.view

    async def _find(self, name: str) -> tuple[Record, Webhook]:
        record = await self._store.record(KIND, name)
        if record is None:
            raise RecordNotFound(f"expected the name of a webhook, got {name!r}; `inferq webhooks list` shows them")
        return record, _decode(record.body)

    # deliveries ------------------------------------------------------------------------------------------------------

    async def test(self, name: str) -> Delivery:
        _, hook = await self._find(name)
        if not hook.enabled:
            raise WrongState(f"expected webhook {name!r} to be enabled, but it is disabled; enable it first")
        now = self._clock.read()
        task = make_delivery(name, TEST, now.wall, {"webhook": name}, now=now.wall, retries=0, give_up=self._set.give_up)
        return await self._add(task)

    async def _add(self, task: NewTask) -> Delivery:
        (id,) = await self._store.add([task], self._clock.read())
        return await self.delivery(id)

    async def deliveries(self, name: str, *, failed: bool = False, limit: int = 50, after: Cursor | None = None) -> DeliveryPage:
        if not 1 <= limit <= _LARGEST:
            raise InvalidTask(f"expected a number from 1 to {_LARGEST}, got {limit!r}", field="limit")
        await self._find(name)
        page = await self._store.find(_of(name, State.FAILED if failed else None), after=after, limit=limit)
        return DeliveryPage([await self._shown(task) for task in page.tasks], page.after)

    async def delivery(self, id: str) -> Delivery:
        return await self._shown(await self._task(id))

    async def _task(self, id: str) -> Task:
        task = await self._store.get(id)
        if task is None or task.executor != EXECUTOR:
            raise RecordNotFound(f"expected the id of a delivery, got {id!r}; `inferq webhooks deliveries NAME` shows them")
        return task

    async def _shown(self, task: Task) -> Delivery:
        payload, status = task.spec.payload, None
        if task.state is State.COMPLETED:
            result = await self._store.result(task.id)
            status = result.data.get("status") if result is not None and isinstance(result.data, dict) else None
        elif found := _STATUS.search(task.error):
            status = int(found[1])
        return Delivery(
            id=task.id,
            webhook=task.model,
            type=str(payload.get("type", "")),
            event=int(payload.get("event", 0)),
            state=str(task.state),
            attempts=task.attempt,
            status=status,
            error=task.error,
            created=task.created,
            due=task.due,
            finished=task.finished,
        )

    async def replay(self, name: str, *ids: str) -> builtins.list[Delivery]:
        await self._find(name)
        tasks = [await self._task(id) for id in ids] if ids else await self._failed(name)
        for task in tasks:
            if task.model != name:
                raise RecordNotFound(f"expected a delivery of webhook {name!r}, got {task.id!r}, which is one of {task.model!r}")
            if not task.state.is_final:
                raise WrongState(f"expected delivery {task.id} to have ended, but it is {task.state}: it is tried anyway")
        now = self._clock.read()
        again = [make_again(task, now=now.wall, retries=self._set.max_retries, give_up=self._set.give_up) for task in tasks]
        return [await self.delivery(id) for id in await self._store.add(again, now)]

    async def _failed(self, name: str) -> builtins.list[Task]:
        """Failed messages, oldest first, each once and none that was taken, or is tried again, since."""
        newest: dict[str, Task] = {}
        after: Cursor | None = None
        while True:
            page = await self._store.find(_of(name), after=after, limit=_PAGE)
            for task in page.tasks:
                newest.setdefault(str(task.spec.payload.get("message")), task)
            if page.after is None:
                return [task for task in reversed(newest.values()) if task.state in (State.FAILED, State.CANCELLED)]
            after = page.after


def _of(name: str, state: State | None = None) -> Search:
    return Filter(states=() if state is None else (state,), executors=(EXECUTOR,), models=(name,), tag=tag_of(name)).search()


def _over(before: Webhook, asked: Webhook, *, keep_secret: bool) -> Webhook:
    """What a put makes of a webhook that exists: it goes on where it was, unless it is switched on anew."""
    return msgspec.structs.replace(
        asked,
        secret=before.secret if keep_secret else asked.secret,
        since=before.since if before.enabled else asked.since,
        created=before.created,
        failing_since=before.failing_since if before.url == asked.url else None,
    )
