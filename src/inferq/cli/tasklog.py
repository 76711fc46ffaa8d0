"""One line for each task that ends, and for each attempt that did not: what a service says about its work. No prompt, no answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from inferq.cli.logs import fields
from inferq.cli.records import SHORT_ID, span

if TYPE_CHECKING:
    from inferq.events import Event
    from inferq.store import Change, Store

log: Final = logging.getLogger("inferq.tasks")

_OUR_WORDS: Final = frozenset({"connect", "timeout", "lost", "expired"})
"""Failures told in words of ours. What a backend or a script says of others may quote the prompt: only debug shows it."""


def follow(store: Store) -> Callable[[], None]:
    """Log what this process commits about tasks; others log their own. Returns how to stop."""
    from inferq.events import TaskCancelled, TaskCompleted, TaskFailed, TaskReleased, TaskRescued, TaskRetrying, TaskStarted

    began: dict[str, int] = {}

    def hear(change: Change) -> None:
        if not change.own or not log.isEnabledFor(logging.INFO):
            return
        for event in change.events:
            if isinstance(event, TaskStarted):
                began[event.task_id] = event.at
            elif isinstance(event, TaskCompleted | TaskFailed | TaskCancelled | TaskRetrying | TaskRescued):
                _write(event, began.pop(event.task_id, None))
            elif isinstance(event, TaskReleased):
                began.pop(event.task_id, None)

    return store.listen(hear)


def _write(event: Event, began: int | None) -> None:
    from inferq.task import lane_parts

    lane = getattr(event, "lane", "")
    executor, model, backend = lane_parts(lane) if lane else ("", "", None)
    ran = getattr(event, "ran_ms", None)
    if ran is None and began is not None:
        ran = event.at - began
    waited = getattr(event, "waited_ms", None)
    first = getattr(event, "first_ms", None)
    told = fields(
        event=event.type,
        task_id=getattr(event, "task_id", ""),
        executor=executor,
        model=model,
        backend=getattr(event, "backend", None) or backend,
        batch_id=getattr(event, "batch_id", None),
        attempt=getattr(event, "attempt", None),
        code=getattr(event, "code", None),
        duration_s=None if ran is None else ran / 1000,
        waited_s=None if waited is None else waited / 1000,
        first_token_s=None if first is None else first / 1000,
        input_tokens=getattr(event, "input_tokens", None),
        output_tokens=getattr(event, "output_tokens", None),
    )
    if told.get("code") in _OUR_WORDS or log.isEnabledFor(logging.DEBUG):
        told |= fields(error=getattr(event, "error", ""), reason=getattr(event, "reason", ""))
    log.info(_sentence(event, told), extra=told)


def _sentence(event: Event, told: dict[str, Any]) -> str:
    said = [f"{event.type.removeprefix('task.'):<9}", told["task_id"][:SHORT_ID]]
    if "duration_s" in told:
        waited = f"waited {span(told['waited_s'])}, " if "waited_s" in told else ""
        said.append(f"{waited}ran {span(told['duration_s'])}")
    if told.get("attempt", 1) > 1:
        said.append(f"attempt {told['attempt']}")
    said += [str(told[name]) for name in ("code", "error", "reason") if name in told]
    return " ".join(said)
