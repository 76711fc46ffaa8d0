"""Batches for programs without an event loop: the same methods as `AsyncDoor.batches`, blocking."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from inferq.batch import Batch, BatchItem
from inferq.door.batch_sources import Row, Source
from inferq.door.batches import DEFAULT_MAX_ERRORS, AsyncBatch, BatchesDoor, Failures, Loaded, Progress
from inferq.handle import Duration
from inferq.sync.group import Group
from inferq.sync.life import Life
from inferq.task import State


class BatchHandle:
    """A batch in the hand of a program without an event loop; see AsyncBatch."""

    __slots__ = ("_asynchronous", "_queue")

    def __init__(self, queue: Life[Any], asynchronous: AsyncBatch) -> None:
        self._queue = queue
        self._asynchronous = asynchronous

    def __repr__(self) -> str:
        return f"BatchHandle({self.id!r})"

    @property
    def id(self) -> str:
        return self._asynchronous.id

    @property
    def batch(self) -> Batch:
        return self._asynchronous.batch

    @property
    def loaded(self) -> Loaded:
        return self._asynchronous.loaded

    def refresh(self) -> Batch:
        """The batch as it stands. Raises BatchNotFound."""
        return self._queue.call(self._asynchronous.refresh())

    def add(self, rows: Iterable[Row], *, key: str | None = None) -> int:
        """Add lines while it is open; returns how many were new."""
        return self._queue.call(self._asynchronous.add(rows, key=key))

    def seal(self) -> Batch:
        """No more lines."""
        return self._queue.call(self._asynchronous.seal())

    def wait(self, timeout: Duration | None = None) -> Batch:
        """Until it is finished. Raises WaitTimeout."""
        return self._queue.call(self._asynchronous.wait(timeout))

    def progress(self, *, every: Duration = 1.0) -> Iterator[Progress]:
        """How far it is, now and then, until it is finished."""
        return self._queue._background.iterate(self._asynchronous.progress(every=every))

    def results(self, *, follow: bool = True, after: int = 0) -> Iterator[BatchItem]:
        """Ended lines in input order, as they come or as far as they are there."""
        return self._queue._background.iterate(self._asynchronous.results(follow=follow, after=after))

    def errors(self) -> Failures:
        """Failed tasks by code."""
        return self._queue.call(self._asynchronous.errors())

    def cancel(self, reason: str = "") -> Batch:
        """Cancel what has not ended."""
        return self._queue.call(self._asynchronous.cancel(reason))

    def retry_failed(self, only: str | Sequence[str] = (), *, cancelled: bool = False) -> int:
        """Make failed tasks wait again; returns how many."""
        return self._queue.call(self._asynchronous.retry_failed(only, cancelled=cancelled))

    def pause(self) -> Batch:
        """Hold what waits."""
        return self._queue.call(self._asynchronous.pause())

    def resume(self) -> Batch:
        """Undo `pause`."""
        return self._queue.call(self._asynchronous.resume())

    def set_priority(self, priority: int | str) -> int:
        """Move what waits; returns how many."""
        return self._queue.call(self._asynchronous.set_priority(priority))

    def delete(self) -> None:
        """Remove it with its tasks and results."""
        self._queue.call(self._asynchronous.delete())


class Batches(Group[BatchesDoor]):
    """Create, load, watch and change batches. Where a batch is meant, its id, the beginning of one or its name is equally good."""

    def from_jsonl(
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
    ) -> BatchHandle:
        """Make a batch of a file, checked to its end before anything is kept. See `BatchesDoor.from_jsonl`."""
        made = self._asynchronous.from_jsonl(
            source,
            name=name,
            model=model,
            prompt=prompt,
            system=system,
            action=action,
            key=key,
            executor=executor,
            priority=priority,
            at=at,
            fields=fields,
            resume=resume,
            skip_errors=skip_errors,
            max_errors=max_errors,
            metadata=metadata,
        )
        return BatchHandle(self._queue, self._queue.call(made))

    def from_rows(self, rows: Iterable[Row], *, name: str | None = None, metadata: Mapping[str, Any] | None = None) -> BatchHandle:
        """Make a batch of submissions, or of mappings that say the same. Raises BatchInvalid; then nothing was kept."""
        return BatchHandle(self._queue, self._queue.call(self._asynchronous.from_rows(rows, name=name, metadata=metadata)))

    def create(self, name: str | None = None, *, metadata: Mapping[str, Any] | None = None) -> BatchHandle:
        """An empty batch that takes lines until it is sealed. Raises BatchExists."""
        return BatchHandle(self._queue, self._queue.call(self._asynchronous.create(name, metadata=metadata)))

    def add(self, batch: str, rows: Iterable[Row], *, key: str | None = None) -> int:
        """Add lines to an open batch; returns how many were new."""
        return self._queue.call(self._asynchronous.add(batch, rows, key=key))

    def seal(self, batch: str, *, sealed: bool = True) -> Batch:
        """No more lines; with False it takes lines again."""
        return self._queue.call(self._asynchronous.seal(batch, sealed=sealed))

    def handle(self, batch: str) -> BatchHandle:
        """A batch in the hand. Raises BatchNotFound."""
        return BatchHandle(self._queue, self._queue.call(self._asynchronous.handle(batch)))

    def get(self, batch: str) -> Batch:
        """Raises BatchNotFound, AmbiguousId."""
        return self._queue.call(self._asynchronous.get(batch))

    def list(
        self, *, name: str | None = None, unfinished: bool = False, tenant: str | None = None, after: str | None = None, limit: int = 50
    ) -> builtins.list[Batch]:
        """Newest first; `after` is the id of the last one seen."""
        return self._queue.call(self._asynchronous.list(name=name, unfinished=unfinished, tenant=tenant, after=after, limit=limit))

    def items(
        self, batch: str, *, after: int = 0, limit: int = 100, states: Sequence[State] = (), results: bool = True
    ) -> builtins.list[BatchItem]:
        """A page of lines, in input order, after a line number, with what became of them so far."""
        return self._queue.call(self._asynchronous.items(batch, after=after, limit=limit, states=states, results=results))

    def failures(self, batch: str) -> Failures:
        """Its failed tasks by code."""
        return self._queue.call(self._asynchronous.failures(batch))

    def wait(self, batch: str, timeout: Duration | None = None) -> Batch:
        """The batch when it is finished. Raises WaitTimeout."""
        return self._queue.call(self._asynchronous.wait(batch, timeout))

    def progress(self, batch: str, *, every: Duration = 1.0) -> Iterator[Progress]:
        """How far it is, now and then, until it is finished; the last one says so."""
        return self._queue._background.iterate(self._asynchronous.progress(batch, every=every))

    def results(self, batch: str, *, follow: bool = True, after: int = 0) -> Iterator[BatchItem]:
        """Ended lines in input order, as they come or as far as they are there."""
        return self._queue._background.iterate(self._asynchronous.results(batch, follow=follow, after=after))

    def cancel(self, batch: str, *, reason: str = "") -> Batch:
        """Cancel what has not ended; it takes no more lines. Idempotent."""
        return self._queue.call(self._asynchronous.cancel(batch, reason=reason))

    def retry_failed(self, batch: str, *, only: str | Sequence[str] = (), cancelled: bool = False) -> int:
        """Make failed tasks wait again; returns how many."""
        return self._queue.call(self._asynchronous.retry_failed(batch, only=only, cancelled=cancelled))

    def pause(self, batch: str) -> Batch:
        """Hold its waiting tasks. Idempotent."""
        return self._queue.call(self._asynchronous.pause(batch))

    def resume(self, batch: str) -> Batch:
        """Its held tasks go back to their places. Idempotent."""
        return self._queue.call(self._asynchronous.resume(batch))

    def set_priority(self, batch: str, priority: int | str) -> int:
        """Move its waiting tasks; returns how many."""
        return self._queue.call(self._asynchronous.set_priority(batch, priority))

    def delete(self, batch: str) -> None:
        """Remove it with its tasks and results. Raises WrongState while some wait or run."""
        self._queue.call(self._asynchronous.delete(batch))
