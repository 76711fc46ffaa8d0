"""What can happen to a task or to the queue: one closed union, written once to the log, followed by everybody. Pure words."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from typing import get_args

import msgspec

from inferq.errors import FailureCode


class _Event(msgspec.Struct, tag_field="type", omit_defaults=True, gc=False):
    """`position` is the event's place in the log (the cursor to resume after), `at` its wall time in Unix milliseconds."""

    position: int = 0
    at: int = 0

    @property
    def type(self) -> str:
        return str(self.__struct_config__.tag)


class _TaskEvent(_Event, gc=False):
    """What happened to a task. `batch_id` names its batch, `backend` where its attempt was made, where there was one."""

    task_id: str = ""


class TaskSubmitted(_TaskEvent, tag="task.submitted", gc=False):
    """It is durable; `state` is pending or scheduled."""

    state: str = "pending"
    lane: str = ""
    priority: int = 5
    due: int | None = None
    batch_id: str | None = None
    schedule: str | None = None


class TaskStaged(_TaskEvent, tag="task.staged", gc=False):
    """Its time came: it waits in its flow now."""


class TaskStarted(_TaskEvent, tag="task.started", gc=False):
    """A worker claimed it."""

    attempt: int = 1
    worker: str = ""
    lane: str = ""


class TaskRetrying(_TaskEvent, tag="task.retrying", gc=False):
    """An attempt failed; another follows at `due`."""

    attempt: int = 1
    code: FailureCode | None = None
    error: str = ""
    due: int = 0
    lane: str = ""
    backend: str | None = None
    batch_id: str | None = None


class TaskReleased(_TaskEvent, tag="task.released", gc=False):
    """It was handed back without burning an attempt; it waits, until `due` where that is set."""

    attempt: int = 1
    code: FailureCode | None = None
    error: str = ""
    due: int | None = None
    lane: str = ""
    backend: str | None = None
    batch_id: str | None = None


class TaskRescued(_TaskEvent, tag="task.rescued", gc=False):
    """Its worker vanished; it waits again."""

    attempt: int = 1
    worker: str = ""
    lane: str = ""
    backend: str | None = None
    batch_id: str | None = None


class TaskCompleted(_TaskEvent, tag="task.completed", gc=False):
    """It ended with a result. `first_ms` is the time from the attempt's start to its first chunk, where it streamed; `estimate` what was
    expected of its tokens, where the backend counted them."""

    attempt: int = 1
    waited_ms: int = 0
    ran_ms: int = 0
    lane: str = ""
    backend: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    first_ms: int | None = None
    estimate: int | None = None
    priority: int = 5
    batch_id: str | None = None


class TaskFailed(_TaskEvent, tag="task.failed", gc=False):
    """It ended for good without one. Never sent between attempts. Without a `backend` it failed while it waited."""

    attempt: int = 0
    code: FailureCode | None = None
    error: str = ""
    lane: str = ""
    backend: str | None = None
    batch_id: str | None = None


class TaskCancelled(_TaskEvent, tag="task.cancelled", gc=False):
    """It was cancelled, waiting or (then with a `backend`) running."""

    attempt: int = 0
    reason: str = ""
    lane: str = ""
    backend: str | None = None
    batch_id: str | None = None


class TaskRetried(_TaskEvent, tag="task.retried", gc=False):
    """Somebody asked for an ended task to be made again; it waits with its first place."""


class TaskDeleted(_TaskEvent, tag="task.deleted", gc=False):
    """Somebody removed an ended task with its result; what it left is in this log only."""


class PriorityChanged(_TaskEvent, tag="task.priority", gc=False):
    """It moved to another flow."""

    before: int = 5
    after: int = 5


class QueuePaused(_Event, tag="queue.paused", gc=False):
    """No new claims in `scope`: `*` for all, else a lane."""

    scope: str = "*"


class QueueResumed(_Event, tag="queue.resumed", gc=False):
    """Claims go on in `scope`."""

    scope: str = "*"


class TasksPruned(_Event, tag="queue.pruned", gc=False):
    """Retention removed `count` ended tasks."""

    count: int = 0


class RecordChanged(_Event, tag="record.changed", gc=False):
    """A record (a schedule, a key, a webhook, a switch...) was put or, with `dropped`, removed. Its body is not in the log."""

    kind: str = ""
    id: str = ""
    version: int = 0
    dropped: bool = False


class _BatchEvent(_Event, gc=False):
    batch_id: str = ""


class BatchCreated(_BatchEvent, tag="batch.created", gc=False):
    """It is there and takes lines."""

    name: str | None = None


class BatchSealed(_BatchEvent, tag="batch.sealed", gc=False):
    """It has all its lines: `total` tasks."""

    total: int = 0


class BatchPaused(_BatchEvent, tag="batch.paused", gc=False):
    """Its waiting tasks are held."""


class BatchResumed(_BatchEvent, tag="batch.resumed", gc=False):
    """Its held tasks go back to their places."""


class BatchCancelled(_BatchEvent, tag="batch.cancelled", gc=False):
    """All its tasks that have not ended are being cancelled."""

    reason: str = ""


class BatchDropped(_BatchEvent, tag="batch.dropped", gc=False):
    """It and its tasks are being removed."""


class BatchFinished(_BatchEvent, tag="batch.finished", gc=False):
    """The last task of a sealed batch ended."""

    completed: int = 0
    failed: int = 0
    cancelled: int = 0


class ScheduleFired(_Event, tag="schedule.fired", gc=False):
    """A schedule made a task; `fire` is the nominal time in Unix milliseconds."""

    schedule: str = ""
    task_id: str = ""
    fire: int = 0
    tenant: str = ""


class ScheduleSkipped(_Event, tag="schedule.skipped", gc=False):
    """A fire of a schedule made no task; `reason` says which policy forbade it."""

    schedule: str = ""
    fire: int = 0
    reason: str = ""
    tenant: str = ""


class BackendChanged(_Event, tag="backend.changed", gc=False):
    """A backend is up, down, draining or disabled now, as `worker` sees it."""

    backend: str = ""
    state: str = ""
    reason: str = ""
    worker: str = ""


class WebhookDelivered(_Event, tag="webhook.delivered", gc=False):
    """A receiver took a delivery; `status` is its HTTP status."""

    webhook: str = ""
    task_id: str = ""
    status: int = 0


class WebhookFailed(_Event, tag="webhook.failed", gc=False):
    """A delivery was given up."""

    webhook: str = ""
    task_id: str = ""
    error: str = ""


Event = (
    TaskSubmitted
    | TaskStaged
    | TaskStarted
    | TaskRetrying
    | TaskReleased
    | TaskRescued
    | TaskCompleted
    | TaskFailed
    | TaskCancelled
    | TaskRetried
    | TaskDeleted
    | PriorityChanged
    | QueuePaused
    | QueueResumed
    | TasksPruned
    | RecordChanged
    | BatchCreated
    | BatchSealed
    | BatchPaused
    | BatchResumed
    | BatchCancelled
    | BatchDropped
    | BatchFinished
    | ScheduleFired
    | ScheduleSkipped
    | BackendChanged
    | WebhookDelivered
    | WebhookFailed
)

TERMINAL = (TaskCompleted, TaskFailed, TaskCancelled)
EVENT_TYPES: tuple[str, ...] = tuple(str(cls.__struct_config__.tag) for cls in get_args(Event))

# The forerunners' names, accepted wherever a type is asked for.
_FORERUNNER_NAMES = {name.replace(".", "_"): name for name in EVENT_TYPES} | {"priority_updated": "task.priority"}


def type_filter(wanted: Iterable[str]) -> Callable[[str], bool]:
    """A test of event types: exact names, patterns such as `task.*`, or the forerunners' `task_completed`; none wanted means all.

    Raises ValueError for a name that fits no event, so that a typing error is not an endless silence.
    """
    patterns = tuple(_FORERUNNER_NAMES.get(name, name) for name in wanted)
    for pattern in patterns:
        if not fnmatch.filter(EVENT_TYPES, pattern):
            raise ValueError(f"expected an event type or pattern of {', '.join(EVENT_TYPES)}, got {pattern!r}")
    if not patterns:
        return lambda _: True
    chosen = frozenset(name for name in EVENT_TYPES if any(fnmatch.fnmatchcase(name, p) for p in patterns))
    return chosen.__contains__
