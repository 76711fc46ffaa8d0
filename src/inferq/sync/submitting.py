"""Work for a queue from a program without an event loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from inferq.door import Moment
from inferq.errors import TaskError
from inferq.handle import Duration
from inferq.sync.asking import Asking
from inferq.sync.changing import Changing
from inferq.sync.handle import Handle
from inferq.sync.life import D
from inferq.sync.watching import Watching
from inferq.task import Submission, TaskResult


class Submitting(Asking[D], Watching[D], Changing[D]):
    """Whoever submits gets a handle, with which the task is asked, watched and changed."""

    def submit(
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
    ) -> Handle:
        """Keep one task; durable when this returns. See `AsyncDoor.submit`."""
        made = self.asynchronous.submit(
            executor,
            action,
            model=model,
            payload=payload,
            options=options,
            priority=priority,
            backend=backend,
            tenant=tenant,
            key=key,
            tags=tags,
            metadata=metadata,
            at=at,
            delay=delay,
            timeout=timeout,
            idle_timeout=idle_timeout,
            start_deadline=start_deadline,
            deadline=deadline,
            max_retries=max_retries,
            at_most_once=at_most_once,
            stream=stream,
            remote=remote,
        )
        return Handle(self, self.call(made).id)

    def submit_many(self, submissions: Iterable[Submission | Mapping[str, Any]]) -> list[Handle]:
        """Keep them all in one transaction, or none; handles in order."""
        return [Handle(self, made.id) for made in self.call(self.asynchronous.submit_many(submissions))]

    def chat(
        self,
        model: str,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        system: str | None = None,
        executor: str = "ollama",
        **common: Any,
    ) -> Handle:
        """A chat; a text is one message of the user. `common` is everything `submit` takes."""
        return Handle(self, self.call(self.asynchronous.chat(model, messages, system=system, executor=executor, **common)).id)

    def submit_again(self, id: str, *, model: str | None = None, backend: str | None = None, priority: int | str | None = None) -> Handle:
        """A new task of what another was asked, with another model, backend or priority. See `AsyncDoor.submit_again`."""
        return Handle(self, self.call(self.asynchronous.submit_again(id, model=model, backend=backend, priority=priority)).id)

    def generate(
        self,
        model: str,
        prompt: str,
        *,
        system: str | None = None,
        template: str | None = None,
        raw: bool | None = None,
        executor: str = "ollama",
        **common: Any,
    ) -> Handle:
        """A completion of a prompt. `common` is everything `submit` takes."""
        made = self.asynchronous.generate(model, prompt, system=system, template=template, raw=raw, executor=executor, **common)
        return Handle(self, self.call(made).id)

    def embed(
        self,
        model: str,
        input: str | Sequence[str],
        *,
        truncate: bool | None = None,
        executor: str = "ollama",
        **common: Any,
    ) -> Handle:
        """Vectors of one or more texts. `common` is everything `submit` takes."""
        return Handle(self, self.call(self.asynchronous.embed(model, input, truncate=truncate, executor=executor, **common)).id)

    def batch(self, submissions: Iterable[Submission | Mapping[str, Any]]) -> list[TaskResult | TaskError]:
        """Submit all, wait for all; results in order, a failed or cancelled task's error in its place."""
        return self.call(self.asynchronous.batch(submissions))

    def batch_in_background(
        self,
        submissions: Iterable[Submission | Mapping[str, Any]],
        callback: Callable[[list[TaskResult | TaskError]], object] | None = None,
    ) -> list[Handle]:
        """Submit all and return at once; `callback` gets all results in order, from the queue's callback thread."""
        told = None if callback is None else functools.partial(self.tell, callback)
        return [Handle(self, made.id) for made in self.call(self.asynchronous.batch_in_background(submissions, told))]

    def handle(self, id: str) -> Handle:
        """A handle from a full id; asks nothing."""
        return Handle(self, id)
