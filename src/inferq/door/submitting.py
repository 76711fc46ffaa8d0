"""Work for a queue: one task or many, in the words of a model or in general."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from inferq.door.arguments import Moment, instant_of
from inferq.door.changing import Changing
from inferq.door.watching import Watching
from inferq.errors import InvalidTask, TaskError, TaskFailed, TaskNotFound
from inferq.given import checked_priority, checked_seconds
from inferq.handle import AsyncHandle, Duration
from inferq.intake import STREAMED_ACTIONS, plain
from inferq.task import Submission, TaskResult


class Submitting(Watching, Changing):
    """Whoever submits gets a handle, with which the task is asked, watched and changed."""

    async def submit(
        self,
        executor: str,
        action: str,
        *,
        model: str = "",
        payload: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        priority: int | str = "normal",
        backend: str | None = None,
        tenant: str = "",
        key: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        at: datetime | None = None,
        delay: Duration | None = None,
        timeout: Duration | None = None,
        idle_timeout: Duration | None = None,
        start_deadline: Moment | None = None,
        deadline: Moment | None = None,
        max_retries: int | None = None,
        at_most_once: bool = False,
        stream: bool | None = None,
        remote: bool | None = None,
    ) -> AsyncHandle:
        """Keep one task; durable when this returns. Raises InvalidTask (nothing stored), DuplicateKey, QueueFull, StoreError.

        `at` or `delay` says when it may start at the earliest. The same `key` with the same body is the same task. `remote` True asks
        for a remote backend, False forbids one.
        """
        if at is not None and delay is not None:
            raise InvalidTask("expected at or delay, got both", field="at")
        if at is not None and not isinstance(at, datetime):
            raise InvalidTask(f"expected a time with its zone, got {at!r}; use delay for a duration", field="at")
        # Whatever came is put in as it is: `admit` checks types where they are not the plain ones, and names the field.
        submission = Submission(
            executor,
            action,
            model,
            plain(payload),
            plain(options),
            checked_priority(priority),
            backend,
            tenant,
            key,
            list(tags) if isinstance(tags, tuple) else tags,  # type: ignore[arg-type]
            plain(metadata),
            instant_of(at, "at", self._clock) if at is not None else instant_of(delay, "delay", self._clock),
            None if timeout is None else checked_seconds(timeout, "timeout"),
            None if idle_timeout is None else checked_seconds(idle_timeout, "idle_timeout"),
            None if start_deadline is None else instant_of(start_deadline, "start_deadline", self._clock),
            None if deadline is None else instant_of(deadline, "deadline", self._clock),
            max_retries,
            at_most_once,
            action in STREAMED_ACTIONS if stream is None else stream,
            remote=remote,
        )
        return await self._submit_one(submission)

    @abstractmethod
    async def _submit_one(self, submission: Submission) -> AsyncHandle:
        """Check and keep one; the caller does not use the object again."""

    @abstractmethod
    async def submit_many(self, submissions: Iterable[Submission | Mapping[str, Any]]) -> list[AsyncHandle]:
        """Keep them all in one transaction, or none; handles in order. An error names the wrong one: `submissions[3].payload...`."""

    async def chat(
        self, model: str, messages: str | Sequence[Mapping[str, Any]], *, system: str | None = None, executor: str = "ollama", **common: Any
    ) -> AsyncHandle:
        """A chat; a text is one message of the user. `common` is everything `submit` takes; further payload fields go in `payload`."""
        said: Any = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        if isinstance(said, Sequence):
            said = [dict(message) if isinstance(message, Mapping) else message for message in said]
        return await self._ask_model(executor, "chat", model, {"messages": said, "system": system}, common)

    async def generate(
        self,
        model: str,
        prompt: str,
        *,
        system: str | None = None,
        template: str | None = None,
        raw: bool | None = None,
        executor: str = "ollama",
        **common: Any,
    ) -> AsyncHandle:
        """A completion of a prompt."""
        payload = {"prompt": prompt, "system": system, "template": template, "raw": raw}
        return await self._ask_model(executor, "generate", model, payload, common)

    async def embed(
        self, model: str, input: str | Sequence[str], *, truncate: bool | None = None, executor: str = "ollama", **common: Any
    ) -> AsyncHandle:
        """Vectors of one or more texts."""
        texts: Any = list(input) if isinstance(input, tuple) else input
        return await self._ask_model(executor, "embed", model, {"input": texts, "truncate": truncate}, common)

    async def _ask_model(self, executor: str, action: str, model: str, own: dict[str, Any], common: dict[str, Any]) -> AsyncHandle:
        payload: Any = {name: value for name, value in own.items() if value is not None}
        further = common.pop("payload", None)
        if isinstance(further, Mapping):
            payload |= further
        elif further is not None:
            raise InvalidTask(f"expected a mapping of further fields, got {type(further).__name__}", field="payload")
        return await self.submit(executor, action, model=model, payload=payload, **common)

    async def submit_again(
        self, id: str, *, model: str | None = None, backend: str | None = None, priority: int | str | None = None
    ) -> AsyncHandle:
        """A new task of what another was asked, with another model, backend or priority. It belongs to no batch and has no key, delay or
        deadline of the first, whose id is in its metadata as `retry_of`. Raises TaskNotFound, InvalidTask, QueueFull."""
        task = await self.get(id)
        changed = msgspec.structs.replace(
            task.spec,
            priority=task.priority if priority is None else checked_priority(priority),
            key=None,
            batch=None,
            schedule=None,
            scheduled_at=None,
            deadline=None,
            start_deadline=None,
            metadata={**task.spec.metadata, "retry_of": task.id},
        )
        changed.model = task.spec.model if model is None else model
        changed.backend = task.spec.backend if backend is None else backend
        return (await self.submit_many([changed]))[0]

    async def batch(self, submissions: Iterable[Submission | Mapping[str, Any]]) -> list[TaskResult | TaskError]:
        """Submit all, wait for all; results in order, a failed or cancelled task's error in its place."""
        return await self._collect(await self.submit_many(submissions))

    async def batch_in_background(
        self,
        submissions: Iterable[Submission | Mapping[str, Any]],
        callback: Callable[[list[TaskResult | TaskError]], object] | None = None,
    ) -> list[AsyncHandle]:
        """Submit all and return at once; `callback` gets all results in order when the last has ended."""
        handles = await self.submit_many(submissions)
        if callback is not None:
            told = callback

            async def tell() -> None:
                told(await self._collect(handles))

            self.keep(asyncio.create_task(tell()))
        return handles

    async def _collect(self, handles: Sequence[AsyncHandle]) -> list[TaskResult | TaskError]:
        async def one(handle: AsyncHandle) -> TaskResult | TaskError:
            try:
                return await handle.result()
            except TaskError as error:
                return error
            except TaskNotFound as error:
                # Retention removed it before its result was read.
                return TaskFailed(str(error), task_id=handle.id, failure="not_found", attempts=0)

        return await asyncio.gather(*(one(handle) for handle in handles))

    def handle(self, id: str) -> AsyncHandle:
        """A handle from a full id; asks nothing."""
        return AsyncHandle(self, id)
