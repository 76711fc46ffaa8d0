"""Makes deliveries of webhooks from the event log, once over all processes, and runs them beside the tasks.

Deliveries are tasks, with a worker and slots of their own: a slow receiver holds up no model, and a long answer holds up no message.
Up to which event they have been made stands in one record, which is put in the very transaction that adds them: a process that dies
between loses nothing, and of several that try one succeeds. Where there are no webhooks nothing runs and the log is not read.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Final

import msgspec

from inferq.clock import Clock, Now
from inferq.config import WebhookSettings
from inferq.engine.attempt import AttemptRules
from inferq.engine.backends import Backend, Backends
from inferq.engine.worker import Worker
from inferq.errors import DuplicateKey, InvalidQuery, StaleRecord, StoreClosed, StoreError
from inferq.events import Event, RecordChanged, TaskCompleted, TaskFailed, WebhookDelivered, WebhookFailed
from inferq.executors.webhook import WebhookExecutor
from inferq.retry import RetryPolicy
from inferq.store import Change, Record, RecordPut, Store
from inferq.task import NewTask, Task
from inferq.webhook import CURSOR, EXECUTOR, KIND, LANES, Webhook, data_of, is_own, make_delivery

log: Final = logging.getLogger("inferq.webhooks")

_PAGE: Final = 500
_STRIDE: Final = 1000
"""Events without a delivery after which the cursor is moved on all the same."""
_PHASE: Final = 0.05
"""Seconds by which a process lets the one that wrote an event deliver it."""
_REPAIR: Final = 1.0
_CURSOR_ID: Final = "events"

_encode = msgspec.json.Encoder().encode
_decode_hook = msgspec.json.Decoder(Webhook).decode
_decode_cursor = msgspec.json.Decoder(dict[str, int]).decode


class Courier:
    """One process's part in telling receivers. `start` once, `stop` once."""

    def __init__(self, store: Store, settings: WebhookSettings, *, clock: Clock, rng: random.Random) -> None:
        self._store = store
        self._set = settings
        self._clock = clock
        self._rng = rng
        self._hooks: dict[str, Webhook] = {}
        self._stale = True
        self._theirs = False
        """Whether what woke us was another process's."""
        self._loaded = 0
        """Position of the newest event when the webhooks were read."""
        self._read = 0
        """Position up to which this process has looked at events."""
        self._wake = asyncio.Event()
        self._executor: WebhookExecutor | None = None
        self._backends: Backends | None = None
        self._worker: Worker | None = None
        self._task: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()
        self._unlisten = store.listen(self._hear)

    def start(self) -> None:
        self._wake.set()
        self._task = asyncio.create_task(self._run(), name="inferq-courier")

    async def stop(self, grace: float) -> None:
        """No new deliveries; running ones finish within `grace` seconds or are handed back."""
        self._unlisten()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._worker is not None:
            await self._worker.stop(min(grace, self._set.timeout))
        if self._telling:
            await asyncio.wait(self._telling, timeout=_REPAIR)
        if self._backends is not None:
            await self._backends.close()

    # hearing ---------------------------------------------------------------------------------------------------------

    def _hear(self, change: Change) -> None:
        ends: list[TaskCompleted | TaskFailed] = []
        for event in change.events:
            if _changes_hooks(event):
                self._stale = True
                self._wake.set()
            elif self._hooks:
                if change.own and isinstance(event, TaskCompleted | TaskFailed) and event.lane.startswith(LANES):
                    ends.append(event)
                elif not self._wake.is_set() and not is_own(event):
                    self._theirs = not change.own
                    self._wake.set()
        if ends:
            telling = asyncio.create_task(self._tell(ends))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

    async def _tell(self, ends: Sequence[TaskCompleted | TaskFailed]) -> None:
        """What became of deliveries, in the log."""
        statuses = self._executor.statuses if self._executor is not None else {}
        events: list[Event] = []
        for end in ends:
            name = end.lane.removeprefix(LANES)
            if isinstance(end, TaskCompleted):
                events.append(WebhookDelivered(webhook=name, task_id=end.task_id, status=statuses.pop(end.task_id, 0)))
            else:
                events.append(WebhookFailed(webhook=name, task_id=end.task_id, error=end.error))
        try:
            await self._store.tell(events, self._clock.read())
        except StoreError as error:
            log.warning("webhooks.not_told", extra={"error": str(error)})

    # the loop --------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            theirs, self._theirs = self._theirs, False
            if theirs:
                await asyncio.sleep(_PHASE + self._rng.uniform(0.0, _PHASE))
            self._wake.clear()
            try:
                if self._stale:
                    await self._reload()
                await self._forward()
            except StoreClosed:
                return
            except StaleRecord:
                # Another process was quicker: look again at what it left.
                self._theirs = True
                self._wake.set()
            except StoreError as error:
                log.warning("webhooks.forward_failed", extra={"error": str(error)})
                self._wake.set()
                await asyncio.sleep(_REPAIR)
            except Exception:
                # The next event tries again: receivers must not fall silent for one event that cannot be told.
                log.exception("webhooks.failed")
                await asyncio.sleep(_REPAIR)

    async def _reload(self) -> None:
        self._stale = False
        self._loaded = await self._store.last_event()
        hooks: dict[str, Webhook] = {}
        after = ""
        while page := await self._store.records(KIND, after=after, limit=_PAGE):
            for record in page:
                if (hook := _readable(record)) is not None:
                    hooks[hook.name] = hook
            after = page[-1].id
        self._hooks = hooks
        if hooks and self._worker is None:
            await self._open()

    async def _open(self) -> None:
        self._executor = WebhookExecutor(
            self, allow_private=self._set.allow_private, timeout=self._set.timeout, secret_dir=self._set.secret_dir
        )
        self._backends = Backends([Backend(self._executor, kind=EXECUTOR)])
        policy = RetryPolicy(self._set.max_retries, self._set.initial_delay, self._set.max_delay, self._set.backoff_factor)
        self._worker = Worker(
            self._store,
            self._backends,
            slots=self._set.slots,
            batch=self._set.slots,
            poll=60.0,
            rules=AttemptRules(timeout=None, idle_timeout=None, retry=policy),
            clock=self._clock,
            rng=self._rng,
        )
        await self._worker.start()

    # from events to deliveries ---------------------------------------------------------------------------------------

    async def _forward(self) -> None:
        """Make the deliveries of every event after the cursor. Raises StaleRecord when another process did meanwhile."""
        hooks = [hook for hook in self._hooks.values() if hook.enabled]
        if not hooks:
            return
        cursor = await self._store.record(CURSOR, _CURSOR_ID)
        version, done = (0, 0) if cursor is None else (cursor.version, _decode_cursor(cursor.body)["position"])
        # A webhook begins with what comes after it was made: what lies before the oldest need not be read.
        place = max(done, self._read, min(hook.since for hook in hooks))
        while events := await self._store.events(after=place, limit=_PAGE):
            place = events[-1].position
            if any(_changes_hooks(event) and event.position > self._loaded for event in events):
                # A webhook that this process does not know yet may want some of these.
                await self._reload()
                hooks = [hook for hook in self._hooks.values() if hook.enabled]
            tasks = await self._deliveries(events, hooks)
            if tasks or place - done >= _STRIDE:
                put = RecordPut(CURSOR, _CURSOR_ID, _encode({"position": place}), version)
                now = self._clock.read()
                if tasks:
                    await self._add(tasks, now, put)
                else:
                    await self._store.put_record(put, now)
                version, done = version + 1, place
            self._read = place

    async def _add(self, tasks: Sequence[NewTask], now: Now, put: RecordPut) -> None:
        try:
            await self._store.add(tasks, now, guard=put)
        except DuplicateKey:
            # Somebody used such a key for something else. The cursor alone makes each message once, too.
            for task in tasks:
                task.key = task.digest = None
            await self._store.add(tasks, now, guard=put)

    async def _deliveries(self, events: Sequence[Event], hooks: Sequence[Webhook]) -> list[NewTask]:
        made: list[NewTask] = []
        now = self._clock.read().wall
        for event in events:
            wanting = [hook for hook in hooks if hook.wants(event)]
            if not wanting:
                continue
            task = await self._task_of(event)
            if task is not None and task.executor == EXECUTOR:
                continue
            data = None
            for hook in wanting:
                if not _passes(hook, task, now):
                    continue
                data = data_of(event, task) if data is None else data
                made.append(
                    make_delivery(
                        hook.name,
                        event.type,
                        event.at,
                        data,
                        now=now,
                        retries=self._set.max_retries,
                        give_up=self._set.give_up,
                        position=event.position,
                        mark=str(hook.created),
                    )
                )
        return made

    async def _task_of(self, event: Event) -> Task | None:
        id = getattr(event, "task_id", "")
        return await self._store.get(id) if id else None

    # how receivers fare ----------------------------------------------------------------------------------------------

    async def find(self, name: str) -> Webhook | None:
        """The webhook as it is now."""
        record = await self._store.record(KIND, name)
        return None if record is None else _readable(record)

    async def fared(self, name: str, *, error: str = "", gone: bool = False) -> None:
        """Remember since when it fails; after long enough, or when it is gone, disable it with the reason."""
        while True:
            record = await self._store.record(KIND, name)
            hook = None if record is None else _readable(record)
            if record is None or hook is None or (new := self._judged(hook, error, gone=gone)) == hook:
                return
            if hook.enabled and not new.enabled:
                log.warning("webhooks.disabled", extra={"webhook": name, "reason": new.reason})
            try:
                await self._store.put_record(RecordPut(KIND, name, _encode(new), record.version), self._clock.read())
            except StaleRecord:
                continue
            return

    def _judged(self, hook: Webhook, error: str, *, gone: bool) -> Webhook:
        now = self._clock.read().wall
        if not error:
            return msgspec.structs.replace(hook, failing_since=None)
        since = hook.failing_since if hook.failing_since is not None else now
        limit = self._set.disable_after
        if gone:
            return msgspec.structs.replace(hook, failing_since=since, enabled=False, reason=error)
        if limit is not None and now - since >= limit * 1000:
            hours = (now - since) / 3_600_000
            reason = f"every delivery has failed for {hours:.0f} hours, at last with: {error}"
            return msgspec.structs.replace(hook, failing_since=since, enabled=False, reason=reason[:500])
        return msgspec.structs.replace(hook, failing_since=since)


def _passes(hook: Webhook, task: Task | None, now: int) -> bool:
    try:
        return hook.passes(task, now)
    except InvalidQuery as error:
        # Another version of inferq took it. The other webhooks go on.
        log.warning("webhooks.filter_unreadable", extra={"webhook": hook.name, "error": str(error)})
        return False


def _changes_hooks(event: Event) -> bool:
    return type(event) is RecordChanged and event.kind == KIND


def _readable(record: Record) -> Webhook | None:
    try:
        return _decode_hook(record.body)
    except msgspec.DecodeError as error:
        log.warning("webhooks.unreadable", extra={"webhook": record.id, "error": str(error)})
        return None
