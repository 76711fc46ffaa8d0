"""Batches of the queue in this process: the store keeps them, this checks, loads, settles and watches."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from inferq.batch import MAX_LINE, Batch, BatchItem, BatchLine, Form, Line, NewBatch
from inferq.clock import Clock
from inferq.door.batches import BatchesDoor, Failures, Loaded, LoadOptions, checked_limit
from inferq.errors import (
    AmbiguousId,
    BatchExists,
    BatchInvalid,
    BatchNotFound,
    InvalidTask,
    QueueFull,
    RateLimited,
    StoreError,
    TaskNotFound,
    WaitTimeout,
    WrongState,
)
from inferq.events import Event
from inferq.given import checked_priority, is_text
from inferq.handle import Duration
from inferq.intake import Admission, check_json, refuse_origin
from inferq.queue.imports import GROUP, Check, Spool, halfway
from inferq.store import BatchFilter, Store
from inferq.task import NewTask, State, Submission, Task, new_id

_LONGEST_NAME: Final = 200


Allow = Callable[[Submission], Submission]
"""Sees each submission before it is checked, and may change or refuse it."""


class Home(Protocol):
    """What batches need of their queue."""

    @property
    def store(self) -> Store: ...
    async def wait(self, id: str, timeout: Duration | None = None) -> Task: ...
    def subscribe(self, callback: Callable[[Event], None], *types: str) -> Callable[[], None]: ...


class LocalBatches(BatchesDoor):
    """`admission` makes tasks of lines, as a submit would."""

    def __init__(self, home: Home, clock: Clock, *, admission: Callable[[Allow | None], Admission], max_queue_size: int | None) -> None:
        self._home = home
        self._clock = clock
        self._admission = admission
        self._max_queue_size = max_queue_size

    @property
    def _store(self) -> Store:
        return self._home.store

    # coming in -------------------------------------------------------------------------------------------------------

    async def load(self, pieces: AsyncIterable[bytes], form: Form, options: LoadOptions, *, allow: Allow | None = None) -> Loaded:
        """`allow` sees each submission before it is checked, and may change or refuse it."""
        if type(options.max_errors) is not int or options.max_errors < 0:
            raise InvalidTask(f"expected a number from 0 on, got {options.max_errors!r}", field="max_errors")
        before = await self._to_resume(options)
        id = before.id if before is not None else new_id()
        if before is None:
            self._check_new(options)
        with Spool() as spool:
            check = Check(max_errors=options.max_errors)
            known = None if before is None else self._unknown(before)
            await check.run(
                pieces,
                form,
                self._admitting(id, allow),
                spool,
                known=known,
                max_line=MAX_LINE,
                after=before.lines if before is not None else 0,
            )
            self._judge(check, options)
            batch = before
            if batch is None:
                batch = await self._begin(id, options, check, spool.count)
            shift = self._shift(before, check)
            added = await self._pour(batch, spool, shift, new=before is None)
        if options.seal:
            batch = await self._store.seal_batch(id, self._clock.read())
        else:
            batch = await self.get(id)
        return Loaded(batch, added, check.skipped, check.wrong, check.errors)

    def _check_new(self, options: LoadOptions) -> None:
        if options.name is not None and (not is_text(options.name) or not 0 < len(options.name) <= _LONGEST_NAME):
            raise InvalidTask(f"expected a name of 1 to {_LONGEST_NAME} characters, got {options.name!r}", field="name")
        if options.name is not None:
            check_json(options.name, "name")
            if options.name in ("import", ".", ".."):
                raise InvalidTask(f"expected a name other than {options.name!r}, which means something else in addresses", field="name")
        check_json(options.metadata, "metadata")

    async def _to_resume(self, options: LoadOptions) -> Batch | None:
        """The batch to go on with; None where it is to be a new one."""
        where = BatchFilter(name=options.name, tenant=options.tenant)
        if options.name is None:
            if not options.resume or not options.source:
                return None
            where = BatchFilter(source=options.source, tenant=options.tenant)
        found = await self._store.batches(where, limit=1)
        if not found:
            return None
        if not options.resume:
            raise BatchExists(f"expected a new name, but there is a batch called {options.name!r}; resume it, or choose another")
        if found[0].reason is not None:
            raise WrongState(f"expected batch {found[0].id} not to be cancelled, but it was; retry its tasks, or take another name")
        return found[0]

    def _unknown(self, batch: Batch) -> Callable[[builtins.list[Line]], Awaitable[builtins.list[Line]]]:
        async def unknown(lines: builtins.list[Line]) -> builtins.list[Line]:
            keys = [line.key for line in lines if line.key is not None]
            taken = await self._store.batch_keys(batch.id, keys) if keys else set()
            return [line for line in lines if line.key is None or line.key not in taken]

        return unknown

    def _admitting(self, id: str, allow: Allow | None) -> Callable[[dict[str, Any]], NewTask]:
        admission = self._admission(allow)

        def admit(fields: dict[str, Any]) -> NewTask:
            refuse_origin(fields.get("batch"), fields.get("schedule"))
            fields["batch"] = id
            return admission.admit(fields)

        return admit

    def _judge(self, check: Check, options: LoadOptions) -> None:
        """Raises BatchInvalid for what is wrong with the file as a whole, or with more lines of it than may be."""
        if not check.lines:
            raise BatchInvalid("expected at least one line, got none: the input is empty")
        if not check.wrong or (options.skip_errors and not check.stopped):
            return
        many = f"more than {options.max_errors}" if check.stopped else f"{check.wrong}"
        verb = "is" if many == "1" else "are"
        first = f"; the first: {check.errors[0]}" if check.errors else ""
        raise BatchInvalid(
            f"{many} of {check.lines} lines {verb} wrong, and nothing was submitted{first}", errors=check.errors, count=check.wrong
        )

    async def _begin(self, id: str, options: LoadOptions, check: Check, count: int) -> Batch:
        if self._max_queue_size is not None:
            counts = (await self._store.counts()).states
            waiting = counts["pending"] + counts["scheduled"]
            if waiting + count > self._max_queue_size:
                waiting -= await self._store.waiting_deliveries()
            if waiting + count > self._max_queue_size:
                raise QueueFull(
                    f"expected room for {count} more, but {waiting} of at most {self._max_queue_size} tasks wait; try again later"
                )
        new = NewBatch(id, options.name, options.tenant, options.source, check.digest.hexdigest(), options.metadata)
        return await self._store.create_batch(new, self._clock.read())

    def _shift(self, before: Batch | None, check: Check) -> int:
        """What is added to line numbers: nothing while the file is as it was; lines of a file that has changed come after the old."""
        if before is None or before.digest == check.digest.hexdigest():
            return 0
        if check.passed:
            raise InvalidTask(
                f"expected the file that batch {before.id} was made of, but it has changed since, and its lines have no keys; give `key`, "
                "or load it as a new batch",
                field="resume",
            )
        return before.lines

    async def _pour(self, batch: Batch, spool: Spool, shift: int, *, new: bool) -> int:
        """Group after group; while one is being committed the next is read."""
        if batch.sealed is not None and spool.count:
            await self._store.seal_batch(batch.id, self._clock.read(), sealed=False)
        added = 0
        writing: asyncio.Task[int] | None = None
        try:
            for group in spool.groups():
                lines = group if not shift else [BatchLine(line.line + shift, line.key, line.task) for line in group]
                if writing is not None:
                    added += await writing
                writing = asyncio.ensure_future(self._keep(batch.id, lines, resumed=not new))
                await asyncio.sleep(0)
            if writing is not None:
                added += await writing
        except RateLimited:
            if new:
                await self._undo(batch.id)
            raise
        except StoreError as error:
            halfway(error, batch.id, added, spool.count)
            raise
        return added

    async def _keep(self, id: str, lines: builtins.list[BatchLine], *, resumed: bool) -> int:
        try:
            return await self._store.add_lines(id, lines, self._clock.read())
        except WrongState:
            if not resumed or (await self.get(id)).reason is not None:
                raise
        # The load that is gone on with was still under way, without its caller, and has just come to its end.
        await self._store.seal_batch(id, self._clock.read(), sealed=False)
        return await self._store.add_lines(id, lines, self._clock.read())

    async def _undo(self, id: str) -> None:
        """As if it had never been."""
        await self.cancel(id, reason="it could not be loaded whole")
        await self.delete(id)

    async def _create(self, name: str | None, metadata: dict[str, Any]) -> Batch:
        return await self.create_for(name, metadata)

    async def create_for(self, name: str | None, metadata: dict[str, Any], *, tenant: str = "") -> Batch:
        """An empty batch of a tenant. Raises BatchExists."""
        self._check_new(LoadOptions(name=name, metadata=metadata))
        return await self._store.create_batch(NewBatch(new_id(), name, tenant, metadata=metadata), self._clock.read())

    async def add_lines(
        self,
        batch: str,
        pieces: AsyncIterable[bytes],
        form: Form,
        *,
        first: int | None = None,
        allow: Allow | None = None,
        needed: bool = False,
    ) -> int:
        """`needed` makes it an error that there are no lines at all."""
        found = await self.get(batch)
        start = found.lines if first is None else first - 1
        added = 0
        with Spool() as spool:
            check = Check(max_errors=100)
            await check.run(pieces, form, self._admitting(found.id, allow), spool, known=None, max_line=MAX_LINE)
            if check.wrong or (needed and not check.lines):
                self._judge(check, LoadOptions())
            for group in spool.groups():
                lines = [BatchLine(start + line.line, line.key, line.task) for line in group]
                try:
                    added += await self._store.add_lines(found.id, lines, self._clock.read(), limit=self._max_queue_size)
                except StoreError as error:
                    halfway(error, found.id, added, spool.count)
                    raise
        return added

    async def seal(self, batch: str, *, sealed: bool = True) -> Batch:
        return await self._store.seal_batch((await self.get(batch)).id, self._clock.read(), sealed=sealed)

    # asking ----------------------------------------------------------------------------------------------------------

    async def get(self, batch: str, *, tenant: str | None = None) -> Batch:
        """With a tenant, names are looked up among its batches only."""
        if not is_text(batch) or not batch:
            raise BatchNotFound(f"expected the id or the name of a batch, got {batch!r}")
        found = await self._store.batch(batch)
        if found is not None:
            return found
        named = await self._store.batches(BatchFilter(name=batch, tenant=tenant), limit=2)
        begun = [] if named else await self._store.batches(BatchFilter(prefix=batch.lower(), tenant=tenant), limit=2)
        if len(named or begun) > 1:
            raise AmbiguousId(f"expected the beginning of one id or a name, but several batches fit {batch!r}; give more of it")
        if not named and not begun:
            raise BatchNotFound(f"expected the id or the name of a batch, got {batch!r}: no batch has it (it may have been pruned)")
        return (named or begun)[0]

    async def list(
        self, *, name: str | None = None, unfinished: bool = False, tenant: str | None = None, after: str | None = None, limit: int = 50
    ) -> builtins.list[Batch]:
        return await self._store.batches(
            BatchFilter(name=name, unfinished=unfinished, tenant=tenant), after=after, limit=checked_limit(limit)
        )

    async def items(
        self, batch: str, *, after: int = 0, limit: int = 100, states: Sequence[State] = (), results: bool = True
    ) -> builtins.list[BatchItem]:
        found = await self.get(batch)
        return await self._store.batch_items(found.id, after=after, limit=checked_limit(limit), states=states, results=results)

    async def failures(self, batch: str) -> Failures:
        return Failures(await self._store.batch_failures((await self.get(batch)).id))

    async def _changed(self, batch: Batch, within: float) -> None:
        """Wakes for events of the batch itself; what its tasks do is seen at the next look."""
        told = asyncio.Event()

        def hear(event: Event) -> None:
            if getattr(event, "batch_id", None) == batch.id:
                told.set()

        stop = self._home.subscribe(hear, "batch.*")
        try:
            now = await self._store.batch(batch.id)
            if now is not None and (now.total, now.finished, now.state) == (batch.total, batch.finished, batch.state):
                async with asyncio.timeout(within):
                    await told.wait()
        except TimeoutError:
            return
        finally:
            stop()

    async def _ended(self, task_id: str, within: float) -> None:
        with suppress(WaitTimeout, TaskNotFound):
            await self._home.wait(task_id, timeout=within)

    # changing --------------------------------------------------------------------------------------------------------

    async def cancel(self, batch: str, *, reason: str = "") -> Batch:
        found = await self.get(batch)
        await self._store.cancel_batch(found.id, self._clock.read(), reason=reason)
        return await self._settled(found.id)

    async def pause(self, batch: str) -> Batch:
        found = await self.get(batch)
        await self._store.hold_batch(found.id, self._clock.read())
        return await self._settled(found.id)

    async def resume(self, batch: str) -> Batch:
        found = await self.get(batch)
        await self._store.hold_batch(found.id, self._clock.read(), held=False)
        return await self._settled(found.id)

    async def delete(self, batch: str) -> None:
        found = await self.get(batch)
        await self._store.drop_batch(found.id, self._clock.read())
        await self._settle()

    async def _settled(self, id: str) -> Batch:
        await self._settle()
        return await self.get(id)

    async def _settle(self) -> None:
        """What was decided is done in bites; should this process die meanwhile, any other's upkeep goes on with it."""
        while await self._store.settle_batches(self._clock.read(), limit=GROUP):
            await asyncio.sleep(0)

    async def retry_failed(self, batch: str, *, only: str | Sequence[str] = (), cancelled: bool = False) -> int:
        found = await self.get(batch)
        codes = (only,) if isinstance(only, str) else tuple(only)
        count = await self._each(found.id, State.FAILED, codes, lambda ids: self._store.retry(ids, self._clock.read()))
        if cancelled:
            count += await self._each(found.id, State.CANCELLED, (), lambda ids: self._store.retry(ids, self._clock.read()))
        return count

    async def set_priority(self, batch: str, priority: int | str) -> int:
        found, number = await self.get(batch), checked_priority(priority)

        async def move(ids: builtins.list[str]) -> builtins.list[WrongState | None]:
            return await self._store.reprioritize(ids, number, self._clock.read())

        count = await self._each(found.id, State.PENDING, (), move)
        return count + await self._each(found.id, State.SCHEDULED, (), move)

    async def _each(
        self,
        id: str,
        state: State,
        codes: tuple[str, ...],
        change: Callable[[builtins.list[str]], Awaitable[builtins.list[WrongState | None]]],
    ) -> int:
        """Change all its tasks of a state, a page a transaction; one that has changed its state meanwhile is left."""
        count, place = 0, 0
        while page := await self._store.batch_tasks(id, state, codes=codes, after=place, limit=GROUP):
            place = page[-1][0]
            ids = [task for _, task in page]
            try:
                count += sum(error is None for error in await change(ids))
            except TaskNotFound:
                # Retention took one of them meanwhile: one by one, then.
                for task in ids:
                    with suppress(TaskNotFound):
                        count += sum(error is None for error in await change([task]))
        return count
