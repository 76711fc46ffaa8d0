"""Batches as a program meets them, wherever the queue is: `queue.batches`, and a batch in the hand."""

from __future__ import annotations

import asyncio
import builtins
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from inferq.batch import Batch, BatchFailures, BatchItem, Form, LineError
from inferq.clock import Clock, seconds
from inferq.door.batch_sources import Row, Source, encoded, form_of, pieces, source_of
from inferq.errors import InvalidTask, WaitTimeout
from inferq.handle import Duration
from inferq.task import FINAL, State

DEFAULT_MAX_ERRORS: Final = 100
_WINDOW_MS: Final = 30_000
"""Over how long a time rates are measured."""
_LOOK_AGAIN: Final = 5.0
"""Seconds after which those who wait ask again, whether or not they were told of anything."""
_RESULTS_A_PAGE: Final = 100
_LARGEST_PAGE: Final = 10_000
_BREATH: Final = 0.05
"""Seconds between two looks for results that come one by one."""


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a file becomes a batch, apart from what its lines mean. `source` tells files apart for `resume` without a name."""

    name: str | None = None
    source: str = ""
    resume: bool = False
    skip_errors: bool = False
    max_errors: int = DEFAULT_MAX_ERRORS
    seal: bool = True
    metadata: dict[str, Any] = {}
    tenant: str = ""


class Loaded(msgspec.Struct, frozen=True):
    """What a load did: lines `added`, lines `skipped` because an earlier load had them, and those left out as wrong (`errors` lists
    the first of them, `wrong` counts them)."""

    batch: Batch
    added: int
    skipped: int = 0
    wrong: int = 0
    errors: list[LineError] = []


class Progress(msgspec.Struct, frozen=True):
    """How far a batch is. Rates are tasks and tokens a second over the last half minute; `eta` is None while there is no rate."""

    batch: Batch
    done: int
    total: int
    failed: int
    rate: float
    tokens_per_second: float
    eta: timedelta | None


class Failures(builtins.list[BatchFailures]):
    """Failed tasks of a batch by code, the most frequent first."""

    def by_code(self) -> dict[str, int]:
        return {entry.code: entry.count for entry in self}


class BatchesDoor(ABC):
    """Create, load, watch and change batches. Where a batch is meant, its id, the beginning of one or its name is equally good."""

    _clock: Clock

    # coming in -------------------------------------------------------------------------------------------------------

    async def from_jsonl(
        self,
        source: Source,
        *,
        name: str | None = None,
        model: str = "",
        prompt: str | None = None,
        system: str | None = None,
        action: str = "chat",
        key: str | None = None,
        executor: str = "",
        priority: int | str | None = None,
        at: datetime | None = None,
        fields: Mapping[str, Any] | None = None,
        resume: bool | None = None,
        skip_errors: bool = False,
        max_errors: int = DEFAULT_MAX_ERRORS,
        metadata: Mapping[str, Any] | None = None,
    ) -> AsyncBatch:
        """Make a batch of a file: JSON Lines or a JSON array, of tasks, of the forerunners' entries, of OpenAI batch lines, or of any
        objects where `prompt` is a template such as `"Translate: {text}"`.

        The file is read as a stream and checked to its end before anything is kept. Raises BatchInvalid with the wrong lines (the
        check stops after `max_errors`), and then nothing was kept; `skip_errors` leaves up to that many out instead.

        `key` names the field (or is a template, `"{id}"`) that tells lines apart. Loading the same file again with `resume` keeps only
        what is not there yet, by key or by line number; it is the default where a key is given. `model`, `priority`, `at` and `fields`
        (of a Submission) hold for lines that say nothing else. Raises BatchExists when the name is taken and `resume` is False.
        """
        form = form_of(prompt, system, action, key, model, executor, priority, at, fields)
        if resume is None:
            resume = key is not None
        options = LoadOptions(
            name=name,
            source=source_of(source, form),
            resume=resume,
            skip_errors=skip_errors,
            max_errors=max_errors,
            metadata=dict(metadata or {}),
        )
        return AsyncBatch(self, await self.load(pieces(source), form, options))

    async def from_rows(self, rows: Iterable[Row], *, name: str | None = None, metadata: Mapping[str, Any] | None = None) -> AsyncBatch:
        """Make a batch of submissions, or of mappings that say the same. Raises BatchInvalid; then nothing was kept."""
        options = LoadOptions(name=name, metadata=dict(metadata or {}))
        return AsyncBatch(self, await self.load(encoded(rows), Form(), options))

    @abstractmethod
    async def load(self, pieces: AsyncIterable[bytes], form: Form, options: LoadOptions) -> Loaded:
        """What `from_jsonl` does, from bytes as they come. Raises BatchInvalid, BatchExists, WrongState, QueueFull."""

    async def create(self, name: str | None = None, *, metadata: Mapping[str, Any] | None = None) -> AsyncBatch:
        """An empty batch that takes lines until it is sealed. Raises BatchExists."""
        return AsyncBatch(self, Loaded(await self._create(name, dict(metadata or {})), 0))

    @abstractmethod
    async def _create(self, name: str | None, metadata: dict[str, Any]) -> Batch: ...

    async def add(self, batch: str, rows: Iterable[Row], *, key: str | None = None) -> int:
        """Add lines to an open batch, some hundred at a time; returns how many were new. A wrong one is BatchInvalid and ends it there:
        those of its group and those after it are not kept."""
        return await self.add_lines(batch, encoded(rows), Form(key=key))

    @abstractmethod
    async def add_lines(self, batch: str, pieces: AsyncIterable[bytes], form: Form, *, first: int | None = None) -> int:
        """What `add` does, from bytes as they come. `first` is the number of the first line: sent again with the same number, lines
        that are there are passed over."""

    @abstractmethod
    async def seal(self, batch: str, *, sealed: bool = True) -> Batch:
        """No more lines; when all its tasks have ended it is finished. With False it takes lines again."""

    # asking ----------------------------------------------------------------------------------------------------------

    async def handle(self, batch: str) -> AsyncBatch:
        """A batch in the hand. Raises BatchNotFound."""
        return AsyncBatch(self, Loaded(await self.get(batch), 0))

    @abstractmethod
    async def get(self, batch: str) -> Batch:
        """Raises BatchNotFound, AmbiguousId."""

    @abstractmethod
    async def list(
        self, *, name: str | None = None, unfinished: bool = False, tenant: str | None = None, after: str | None = None, limit: int = 50
    ) -> builtins.list[Batch]:
        """Newest first; `after` is the id of the last one seen."""

    @abstractmethod
    async def items(
        self, batch: str, *, after: int = 0, limit: int = 100, states: Sequence[State] = (), results: bool = True
    ) -> builtins.list[BatchItem]:
        """A page of lines, in input order, after a line number, with what became of them so far."""

    @abstractmethod
    async def failures(self, batch: str) -> Failures:
        """Its failed tasks by code."""

    # waiting ---------------------------------------------------------------------------------------------------------

    @abstractmethod
    async def _changed(self, batch: Batch, within: float) -> None:
        """Return when the batch may have another state or more lines, or after some seconds."""

    @abstractmethod
    async def _ended(self, task_id: str, within: float) -> None:
        """Return when the task has ended, or after some seconds."""

    async def wait(self, batch: str, timeout: Duration | None = None) -> Batch:
        """The batch when it is finished: sealed, and every task has ended. Raises WaitTimeout."""
        limit = None if timeout is None else seconds(timeout)
        try:
            async with asyncio.timeout(limit):
                found = await self.get(batch)
                while not found.ended:
                    await self._changed(found, _LOOK_AGAIN)
                    found = await self.get(found.id)
                return found
        except TimeoutError:
            raise WaitTimeout(f"batch {batch} has not finished within {limit:g} s; it goes on, ask again later") from None

    async def progress(self, batch: str, *, every: Duration = 1.0) -> AsyncGenerator[Progress]:
        """How far it is, now and then, until it is finished; the last one says so."""
        pause = max(0.05, seconds(every))
        seen: deque[tuple[int, int, int]] = deque()
        while True:
            found = await self.get(batch)
            yield self._progress(found, seen)
            if found.ended:
                return
            await self._changed(found, pause)

    def _progress(self, batch: Batch, seen: deque[tuple[int, int, int]]) -> Progress:
        now, tokens = self._clock.read().mono, batch.input_tokens + batch.output_tokens
        seen.append((now, batch.done, tokens))
        while len(seen) > 2 and seen[0][0] < now - _WINDOW_MS:
            seen.popleft()
        began, done, used = seen[0]
        passed = (now - began) / 1000
        rate = max(0.0, (batch.done - done) / passed) if passed > 0 else 0.0
        speed = max(0.0, (tokens - used) / passed) if passed > 0 else 0.0
        left = batch.total - batch.done
        eta = timedelta(seconds=round(left / rate)) if rate > 0 else timedelta(0) if not left else None
        return Progress(batch, batch.done, batch.total, batch.failed, rate, speed, eta)

    async def results(self, batch: str, *, follow: bool = True, after: int = 0) -> AsyncGenerator[BatchItem]:
        """Ended lines in input order, failed and cancelled ones too: with `follow` each as soon as it and those before it have ended,
        to the end of the batch; without, those that have ended by now. A line whose task retention has removed has no state."""
        found, place = await self.get(batch), after
        while True:
            awaited: str | None = None
            page = await self.items(found.id, after=place, limit=_RESULTS_A_PAGE)
            for item in page:
                if item.state is None or item.state in FINAL:
                    yield item
                elif follow:
                    awaited = item.task_id
                    break
                place = item.line
            if awaited is not None:
                await self._ended(awaited, _LOOK_AGAIN)
                # Those behind it that have ended meanwhile come together.
                await asyncio.sleep(_BREATH)
            elif len(page) < _RESULTS_A_PAGE:
                if not follow or found.ended:
                    return
                await self._changed(found, _LOOK_AGAIN)
                found = await self.get(found.id)

    # changing --------------------------------------------------------------------------------------------------------

    @abstractmethod
    async def cancel(self, batch: str, *, reason: str = "") -> Batch:
        """Cancel what has not ended; it takes no more lines. Idempotent."""

    @abstractmethod
    async def retry_failed(self, batch: str, *, only: str | Sequence[str] = (), cancelled: bool = False) -> int:
        """Make failed tasks wait again (`only` those with these codes, `cancelled` ones too); returns how many."""

    @abstractmethod
    async def pause(self, batch: str) -> Batch:
        """Hold its waiting tasks, those that are added and those that come back; running ones go on. Deadlines go on too. Idempotent."""

    @abstractmethod
    async def resume(self, batch: str) -> Batch:
        """Its held tasks go back to their places. Idempotent."""

    @abstractmethod
    async def set_priority(self, batch: str, priority: int | str) -> int:
        """Move its waiting tasks; returns how many."""

    @abstractmethod
    async def delete(self, batch: str) -> None:
        """Remove it with its tasks and results. Raises WrongState while some wait or run."""


def checked_limit(limit: int) -> int:
    """How many a page may hold. Raises InvalidTask."""
    if type(limit) is not int or not 1 <= limit <= _LARGEST_PAGE:
        raise InvalidTask(f"expected a number from 1 to {_LARGEST_PAGE}, got {limit!r}", field="limit")
    return limit


class AsyncBatch:
    """A batch in the hand of a program; it holds what was known of it last in `batch`. Methods do what those of `queue.batches` do."""

    def __init__(self, door: BatchesDoor, loaded: Loaded) -> None:
        self._door = door
        self.loaded = loaded
        self.batch = loaded.batch

    def __repr__(self) -> str:
        return f"AsyncBatch({self.id!r})"

    @property
    def id(self) -> str:
        return self.batch.id

    async def refresh(self) -> Batch:
        """The batch as it stands. Raises BatchNotFound."""
        self.batch = await self._door.get(self.id)
        return self.batch

    async def add(self, rows: Iterable[Row], *, key: str | None = None) -> int:
        """Add lines while it is open; returns how many were new."""
        return await self._door.add(self.id, rows, key=key)

    async def seal(self) -> Batch:
        """No more lines."""
        self.batch = await self._door.seal(self.id)
        return self.batch

    async def wait(self, timeout: Duration | None = None) -> Batch:
        """Until it is finished. Raises WaitTimeout."""
        self.batch = await self._door.wait(self.id, timeout)
        return self.batch

    def progress(self, *, every: Duration = 1.0) -> AsyncGenerator[Progress]:
        """How far it is, now and then, until it is finished."""
        return self._door.progress(self.id, every=every)

    def results(self, *, follow: bool = True, after: int = 0) -> AsyncGenerator[BatchItem]:
        """Ended lines in input order, as they come or as far as they are there."""
        return self._door.results(self.id, follow=follow, after=after)

    async def errors(self) -> Failures:
        """Failed tasks by code."""
        return await self._door.failures(self.id)

    async def cancel(self, reason: str = "") -> Batch:
        """Cancel what has not ended."""
        self.batch = await self._door.cancel(self.id, reason=reason)
        return self.batch

    async def retry_failed(self, only: str | Sequence[str] = (), *, cancelled: bool = False) -> int:
        """Make failed tasks wait again; returns how many."""
        return await self._door.retry_failed(self.id, only=only, cancelled=cancelled)

    async def pause(self) -> Batch:
        """Hold what waits."""
        self.batch = await self._door.pause(self.id)
        return self.batch

    async def resume(self) -> Batch:
        """Undo `pause`."""
        self.batch = await self._door.resume(self.id)
        return self.batch

    async def set_priority(self, priority: int | str) -> int:
        """Move what waits; returns how many."""
        return await self._door.set_priority(self.id, priority)

    async def delete(self) -> None:
        """Remove it with its tasks and results."""
        await self._door.delete(self.id)
