"""What the server and its clients say to each other in JSON: one set of checked types for both sides. Pure.

Instants are integers of Unix milliseconds; where a client gives one, RFC 3339 text with a zone is taken too. Durations are seconds;
where a client gives one, text such as `10m` is taken too. Fields at their default are left out of answers.

Shapes that are shared as they are, without a view of their own: `TaskResult` (GET …/result), `AttemptRecord` (GET …/attempts),
`Event` (GET /api/events and /ws; the union is told apart by `type`), `Waiting` (GET …/why).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from msgspec import Meta

from inferq.errors import FailureCode, InvalidTask
from inferq.events import Event
from inferq.executor import Chunk, ChunkKind
from inferq.given import checked_instant, checked_priority, checked_seconds
from inferq.store import LoggedChunk, Position
from inferq.task import LAST_MOMENT, FlowKey, Size, State, Submission, Task

T = TypeVar("T")


Priority = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, Meta(description="low, normal, high, critical or a number")]
Instant = (
    Annotated[int, Meta(ge=0, le=LAST_MOMENT, description="Unix milliseconds")]
    | Annotated[str, Meta(description="RFC 3339 with a zone, such as 2026-11-22T09:30:00Z")]
)
Duration = Annotated[float, Meta(ge=0, description="seconds")] | Annotated[str, Meta(description="a duration such as 90s, 10m or 1h30m")]


class SubmitBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a client may say about a task (POST /api/tasks): never id, state, result, batch or schedule.

    `type` is the forerunners' name of `action`, `remote_execution` of `remote`; `delay` counts from now and excludes `scheduled_at`.
    `key` may come as the header Idempotency-Key instead.
    """

    action: str = ""
    executor: str = "ollama"
    model: str = ""
    payload: dict[str, Any] = {}
    options: dict[str, Any] = {}
    priority: Priority = 5
    backend: str | None = None
    tenant: str = ""
    key: str | None = None
    tags: list[str] = []
    metadata: dict[str, Any] = {}
    scheduled_at: Instant | None = None
    delay: Duration | None = None
    timeout: Duration | None = None
    idle_timeout: Duration | None = None
    start_deadline: Instant | None = None
    deadline: Instant | None = None
    max_retries: Annotated[int, Meta(ge=0, lt=2**53)] | None = None
    at_most_once: bool = False
    stream: bool | None = None
    estimate: Annotated[int, Meta(ge=0, lt=2**53)] | None = None
    size: Size | None = None
    remote: bool | None = None
    type: str = ""
    remote_execution: bool | None = None

    def submission(self, now: int, *, streamed: Callable[[str], bool], key: str | None = None) -> Submission:
        """As the queue takes it; `now` in Unix milliseconds, `streamed` says which actions keep chunks unless told. Raises InvalidTask."""
        if self.type and self.action and self.type != self.action:
            raise InvalidTask(f"expected action or type, got both: {self.action!r} and {self.type!r}", field="type")
        if self.delay is not None and self.scheduled_at is not None:
            raise InvalidTask("expected scheduled_at or delay, got both", field="delay")
        action = self.action or self.type
        if not action:
            raise InvalidTask("expected the name of an action such as chat, generate or embed, got none", field="action")
        due = checked_instant(self.scheduled_at, "scheduled_at")
        if self.delay is not None:
            due = now + round(checked_seconds(self.delay, "delay") * 1000)
        return Submission(
            self.executor,
            action,
            self.model,
            self.payload,
            self.options,
            checked_priority(self.priority),
            self.backend,
            self.tenant,
            key if key is not None else self.key,
            self.tags,
            self.metadata,
            due,
            checked_seconds(self.timeout, "timeout"),
            checked_seconds(self.idle_timeout, "idle_timeout"),
            checked_instant(self.start_deadline, "start_deadline"),
            checked_instant(self.deadline, "deadline"),
            self.max_retries,
            self.at_most_once,
            streamed(action) if self.stream is None else self.stream,
            self.estimate,
            self.size,
            self.remote if self.remote is not None else self.remote_execution,
        )


class Submitted(msgspec.Struct, omit_defaults=True):
    """Answer of POST /api/tasks: the task is durable. `task_id` is the forerunners' name of `id`. `state` is as the submit left it; with
    a known idempotency key it is the first task's state now, and `known` is true."""

    id: str
    task_id: str
    state: State
    executor: str
    action: str
    model: str
    priority: int
    scheduled_at: int | None = None
    known: bool = False


class TaskView(msgspec.Struct, omit_defaults=True):
    """A task, its submission flattened (GET /api/tasks/{id}). `task()` makes the library's Task of it again.

    `backend` and `remote` are what was asked for; `ran_on` is the backend of the latest attempt, and `executed_on` the same, but `local`
    for all that are not remote. `given_estimate` and `given_size` are what the submission said, and so is `given_priority` where
    the task was moved since.
    """

    id: str
    seq: int
    state: State
    executor: str
    action: str
    model: str
    priority: int
    lane: str
    size: Size
    tenant: str
    created: int
    attempt: int
    failures: int
    lost: int
    estimate: int
    payload: dict[str, Any] = {}
    options: dict[str, Any] = {}
    backend: str | None = None
    key: str | None = None
    tags: list[str] = []
    metadata: dict[str, Any] = {}
    scheduled_at: int | None = None
    timeout: float | None = None
    idle_timeout: float | None = None
    start_deadline: int | None = None
    deadline: int | None = None
    max_retries: int | None = None
    at_most_once: bool = False
    stream: bool = False
    remote: bool | None = None
    batch: str | None = None
    schedule: str | None = None
    worker: str | None = None
    due: int | None = None
    started: int | None = None
    finished: int | None = None
    code: FailureCode | None = None
    error: str = ""
    ran_on: str | None = None
    executed_on: str | None = None
    given_estimate: int | None = None
    given_size: Size | None = None
    given_priority: int | None = None

    def task(self) -> Task:
        """The same as the library has it."""
        given = {name: getattr(self, name) for name in _SPEC}
        if self.given_priority is not None:
            given["priority"] = self.given_priority
        spec = Submission(**given, estimate=self.given_estimate, size=self.given_size)
        flow = FlowKey(self.lane, self.priority, self.size, self.tenant)
        made = Task(flow=flow, spec=spec, **{name: getattr(self, name) for name in _TASK})
        made.backend, made.remote = self.ran_on, self.ran_on is not None and self.executed_on != "local"
        return made


_SPEC: Final = tuple(name for name in Submission.__struct_fields__ if name not in ("estimate", "size"))
_TASK: Final = tuple(name for name in Task.__struct_fields__ if name not in ("flow", "spec", "backend", "remote"))


def task_view(task: Task, *, payload: bool = True) -> TaskView:
    """A task for the wire; without `payload` only what describes it."""
    spec, flow = task.spec, task.flow
    fields = {name: getattr(spec, name) for name in _SPEC}
    fields.update({name: getattr(task, name) for name in _TASK})
    fields.update(priority=flow.priority, lane=flow.lane, size=flow.size, tenant=flow.tenant)
    if not payload:
        fields["payload"] = {}
    fields.update(ran_on=task.backend, executed_on=task.executed_on)
    moved = spec.priority if spec.priority != flow.priority else None
    return TaskView(**fields, given_estimate=spec.estimate, given_size=spec.size, given_priority=moved)


class Listing(msgspec.Struct, Generic[T]):
    """A page of a list; `next` is the cursor to give as `after` for the next one, null at the end."""

    items: list[T]
    next: str | None = None


class EventPage(msgspec.Struct):
    """A page of the event log (GET /api/events of who accepts JSON only); `next` is the `after` of the next page."""

    items: list[Event]
    next: str | None = None


class ChunkView(msgspec.Struct, omit_defaults=True):
    """One record of a task's stream; its place (the SSE id) is `attempt-index`. `reset` says to forget what came, `end` is the last one
    and its `text` the task's final state."""

    kind: ChunkKind
    text: str = ""
    data: Any = None

    def logged(self, position: Position) -> LoggedChunk:
        """As the library has it."""
        return LoggedChunk(position, Chunk(self.kind, self.text, self.data))


PLACE_PATTERN: Final = r"^[0-9]{1,9}-[0-9]{1,12}$"
"""A place in a stream, within what a store can hold."""


def position_text(position: Position) -> str:
    """A place in a stream as the wire writes it: `attempt-index`."""
    return f"{position.attempt}-{position.index}"


def position_from(text: str) -> Position:
    """The inverse of `position_text`. Raises ValueError."""
    if not re.fullmatch(PLACE_PATTERN, text):
        raise ValueError(f"expected a place in a stream such as 1-42 (attempt-index), got {text!r}")
    attempt, _, index = text.partition("-")
    return Position(int(attempt), int(index))


class Fault(msgspec.Struct, omit_defaults=True):
    """What is wrong where: `pointer` into the body (RFC 6901) or the name of a `parameter`."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None


class Problem(msgspec.Struct, omit_defaults=True):
    """RFC 9457 problem details, the body of every refusal. `code` is stable and names the error class; `retry_after` is in seconds.

    `task_id`, `failure`, `attempts` and `reason` come with the codes task_failed and task_cancelled; `count` with batch_invalid says how
    many lines were found wrong, of which `errors` has the first.
    """

    type: str
    title: str
    status: int
    code: str
    detail: str = ""
    request_id: str = ""
    retryable: bool = False
    retry_after: float | None = None
    errors: list[Fault] = []
    task_id: str | None = None
    failure: str | None = None
    attempts: int | None = None
    reason: str | None = None
    count: int | None = None


class PriorityBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /api/tasks/{id}/priority."""

    priority: Priority


class ReasonBody(msgspec.Struct, forbid_unknown_fields=True):
    """Optional body of POST /api/tasks/{id}/cancel."""

    reason: Annotated[str, Meta(max_length=2000)] = ""


class RetryBody(msgspec.Struct, forbid_unknown_fields=True):
    """Optional body of POST /api/tasks/{id}/retry. `now`: a scheduled task, too, is due at once."""

    priority: Priority | None = None
    now: bool = False


class ScopeBody(msgspec.Struct, forbid_unknown_fields=True):
    """Optional body of POST /api/pause and /api/resume: `*` for all, `*/qwen3` for a model, else a lane such as `ollama/qwen3`."""

    scope: Annotated[str, Meta(min_length=1, max_length=512)] = "*"


class StatsView(msgspec.Struct):
    """Answer of GET /api/stats: the queue's numbers, and the forerunners' names for the same beside them."""

    states: dict[str, int]
    total: int
    pending_by_priority: dict[str, int]
    pending_by_lane: dict[str, int]
    workers_active: int
    workers_idle: int
    paused: list[str]
    pending_tasks: int
    running_tasks: int
    completed_tasks: int
    failed_tasks: int
    cancelled_tasks: int
    scheduled_tasks: int
    total_tasks: int
    queues_by_priority: dict[str, int]
    executed_local: int
    executed_remote: int
    draining: bool


class StatusView(StatsView, kw_only=True):
    """Answer of GET /api/status: the numbers, and what the server is; `draining` also when it is about to stop. `uptime` in seconds;
    `instances` counts processes on the store."""

    version: str
    instance: str
    uptime: float
    durability: str
    store_bytes: int
    instances: int
    last_event: int


class ExecutorView(msgspec.Struct):
    """An executor and the backends that use it (GET /api/executors). `required` are the payload fields that each action must have."""

    name: str
    actions: list[str]
    description: str
    needs_model: bool
    required: dict[str, list[str]]
    backends: list[str]


class Health(msgspec.Struct, omit_defaults=True):
    """Answer of /livez, /readyz and /healthz; `checks` come with ?verbose or when one fails."""

    status: str
    checks: dict[str, str] = {}


__all__ = [
    "ChunkView",
    "Duration",
    "EventPage",
    "ExecutorView",
    "Fault",
    "Health",
    "Instant",
    "Listing",
    "Priority",
    "PriorityBody",
    "Problem",
    "ReasonBody",
    "RetryBody",
    "ScopeBody",
    "StatsView",
    "StatusView",
    "SubmitBody",
    "Submitted",
    "TaskView",
    "position_from",
    "position_text",
    "task_view",
]
