"""The words of the queue: task, states and their legal transitions, submission, claim, outcome, result. Pure: no clock, no I/O."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from enum import StrEnum
from threading import Lock
from typing import Any, Final, Literal

import msgspec

from inferq.errors import FailureCode
from inferq.executor import Answer, Usage

# ── states ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class State(StrEnum):
    """Where a task stands."""

    SCHEDULED = "scheduled"
    """Not before a time: delayed by its submitter, or waiting for a retry."""
    PENDING = "pending"
    """Waiting in its flow for a slot."""
    RUNNING = "running"
    """One valid claim is out."""
    COMPLETED = "completed"
    """Ended with a result."""
    FAILED = "failed"
    """Ended without one; carries a failure code."""
    CANCELLED = "cancelled"
    """Ended by request."""

    @property
    def is_final(self) -> bool:
        return self in FINAL


FINAL: Final = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})
WAITING: Final = frozenset({State.SCHEDULED, State.PENDING})

Verb = Literal[
    "submit", "delay", "stage", "hold", "claim", "complete", "back_off", "fail", "expire", "release", "rescue", "cancel", "retry"
]  # fmt: skip

TRANSITIONS: Final[Mapping[tuple[State | None, Verb], State]] = {
    (None, "submit"): State.PENDING,
    (None, "delay"): State.SCHEDULED,
    (State.SCHEDULED, "stage"): State.PENDING,
    (State.PENDING, "hold"): State.SCHEDULED,
    (State.PENDING, "claim"): State.RUNNING,
    (State.RUNNING, "complete"): State.COMPLETED,
    (State.RUNNING, "back_off"): State.SCHEDULED,
    (State.RUNNING, "fail"): State.FAILED,
    (State.RUNNING, "release"): State.PENDING,
    (State.RUNNING, "rescue"): State.PENDING,
    (State.PENDING, "expire"): State.FAILED,
    (State.SCHEDULED, "expire"): State.FAILED,
    (State.SCHEDULED, "cancel"): State.CANCELLED,
    (State.PENDING, "cancel"): State.CANCELLED,
    (State.RUNNING, "cancel"): State.CANCELLED,
    (State.FAILED, "retry"): State.PENDING,
    (State.CANCELLED, "retry"): State.PENDING,
}
"""Every legal transition; what is not here cannot happen. A rescue of an `at_most_once` or poisonous task is a `fail`; a task of
a paused batch is held (scheduled, due never) until its batch goes on."""

# ── priorities, flows ───────────────────────────────────────────────────────────────────────────────────────────────

PRIORITIES: Final[Mapping[str, int]] = {"low": 1, "normal": 5, "high": 10, "critical": 15}
_INT64 = 2**63


def priority_number(value: int | str) -> int:
    """A priority from its name or number; any integer of 64 bits is valid, higher goes first. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"expected an integer or one of {', '.join(PRIORITIES)}, got {value!r}")
    if isinstance(value, str):
        text = value.strip().lower()
        if text in PRIORITIES:
            return PRIORITIES[text]
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"expected an integer or one of {', '.join(PRIORITIES)}, got {value!r}") from None
    if not -_INT64 <= value < _INT64:
        raise ValueError(f"expected an integer of 64 bits, got {value}")
    return value


def priority_name(value: int) -> str:
    """The name of a named priority, else the number as text."""
    return next((name for name, number in PRIORITIES.items() if number == value), str(value))


Size = Literal["low", "medium", "long"]
SIZES: Final[tuple[Size, ...]] = ("low", "medium", "long")


class FlowKey(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What makes waiting tasks alike for the scheduler; inside a flow the order is strictly first in, first out."""

    lane: str
    priority: int
    size: Size
    tenant: str


class Head(msgspec.Struct, frozen=True, gc=False):
    """The first task of a flow: all that the scheduler looks at. `length` 0 says that the flow is empty now."""

    flow: int
    key: FlowKey
    seq: int
    length: int


REMOTE: Final = ":remote"
LOCAL: Final = ":local"
"""In the place of a backend's name in a lane: any remote backend, any local one."""


DRAIN: Final = "drain"
"""The scope, beside `*`, that is paused while the whole queue is drained. No lane is called so: lanes have a slash."""


LAST_MOMENT: Final = 253_402_300_799_999
"""Unix milliseconds: the end of the year 9999, the last that a calendar here can show."""


def lane_of(executor: str, model: str, backend: str | None = None, *, remote: bool | None = None) -> str:
    """What a task needs to run: executor and model, or one named backend and model; without a name, `remote` says of which sort."""
    if backend is None and remote is not None:
        backend = REMOTE if remote else LOCAL
    return f"{executor}@{backend}/{model}" if backend else f"{executor}/{model}"


def lane_parts(lane: str) -> tuple[str, str, str | None]:
    """`(executor, model, backend)` of a lane, where backend may be REMOTE or LOCAL; the inverse of `lane_of`."""
    target, _, model = lane.partition("/")
    executor, _, backend = target.partition("@")
    return executor, model, backend or None


# ── submission and task ─────────────────────────────────────────────────────────────────────────────────────────────


class Submission(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """What a client may say about a task; everything else is the queue's. Durations are seconds, instants Unix milliseconds.

    `key` is the idempotency key: the same key with the same body is the same task. `timeout` bounds one attempt, `idle_timeout`
    the silence between chunks, `start_deadline` the moment until which it must have started, `deadline` the whole of it.
    `max_retries` 0 means none; None takes the queue's default. `at_most_once` fails a lost attempt instead of making another.
    `remote` True asks for a remote backend, False forbids one. `batch` and `schedule` are the queue's own: what it came from.
    """

    executor: str
    action: str
    model: str = ""
    payload: dict[str, Any] = {}
    options: dict[str, Any] = {}
    priority: int = 5
    backend: str | None = None
    tenant: str = ""
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
    estimate: int | None = None
    size: Size | None = None
    remote: bool | None = None
    batch: str | None = None
    schedule: str | None = None


def labels_of(submission: Submission) -> tuple[tuple[str, str], ...]:
    """The (name, value) pairs that a task of this submission can be found by: its tags, its schedule."""
    if not submission.tags and submission.schedule is None:
        return ()
    labels = [("tag", tag) for tag in dict.fromkeys(submission.tags)]
    if submission.schedule is not None:
        labels.append(("schedule", submission.schedule))
    return tuple(labels)


class NewTask(msgspec.Struct, gc=False):
    """A validated submission on its way into the store: `spec` is the encoded Submission, `digest` identifies its body for `key`."""

    id: str
    flow: FlowKey
    action: str
    spec: bytes
    estimate: int
    key: str | None = None
    digest: bytes | None = None
    due: int | None = None
    expires: int | None = None
    at_most_once: bool = False
    batch: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    """(name, value) pairs it can be found by: its tags, its schedule."""


class Task(msgspec.Struct, gc=False):
    """A task as the store knows it. `attempt` is the number of the latest attempt (0: none yet), `failures` how many burnt a retry,
    `lost` how many vanished with their worker. Instants are Unix milliseconds. `due` is set while it is scheduled, not while held.
    `backend` is where the latest attempt was made, `remote` whether that is a remote one."""

    id: str
    seq: int
    state: State
    flow: FlowKey
    spec: Submission
    estimate: int = 0
    attempt: int = 0
    failures: int = 0
    lost: int = 0
    worker: str | None = None
    due: int | None = None
    created: int = 0
    started: int | None = None
    finished: int | None = None
    code: FailureCode | None = None
    error: str = ""
    backend: str | None = None
    remote: bool = False

    @property
    def executed_on(self) -> str | None:
        """Where the latest attempt was made: the name of a remote backend, or `local` as the forerunners say."""
        return executed_on(self.backend, remote=self.remote)

    @property
    def priority(self) -> int:
        return self.flow.priority

    @property
    def model(self) -> str:
        return self.spec.model

    @property
    def action(self) -> str:
        return self.spec.action

    @property
    def executor(self) -> str:
        return self.spec.executor

    @property
    def retry_count(self) -> int:
        """Attempts that burnt a retry: the forerunners' name."""
        return self.failures

    def to_dict(self) -> dict[str, Any]:
        """The task as JSON-ready values: its submission flattened, the queue's own fields beside it."""
        spec: dict[str, Any] = msgspec.to_builtins(self.spec)
        for owned in ("priority", "estimate", "size"):
            spec.pop(owned, None)
        return {
            "id": self.id,
            "seq": self.seq,
            "state": str(self.state),
            "priority": self.flow.priority,
            "lane": self.flow.lane,
            "size": self.flow.size,
            "tenant": self.flow.tenant,
            "estimate": self.estimate,
            "attempt": self.attempt,
            "failures": self.failures,
            "lost": self.lost,
            "worker": self.worker,
            "executed_on": self.executed_on,
            "due": self.due,
            "created": self.created,
            "started": self.started,
            "finished": self.finished,
            "code": self.code,
            "error": self.error,
            **spec,
        }


# ── claim, outcome, result ──────────────────────────────────────────────────────────────────────────────────────────


class Claim(msgspec.Struct, frozen=True, gc=False):
    """The right to make one attempt: every write of a worker carries it, and a stale one is refused with `ClaimLost`."""

    task: Task
    attempt: int
    token: int
    worker: str


OutcomeKind = Literal["completed", "retry", "failed", "cancelled", "released"]


class Tried(msgspec.Struct, frozen=True, gc=False):
    """A backend that an attempt was refused by before its first chunk, and why it went on to another."""

    backend: str
    code: FailureCode | None = None
    error: str = ""


def executed_on(backend: str | None, *, remote: bool) -> str | None:
    """A remote backend's name, else `local`; None while nothing ran."""
    return None if backend is None else backend if remote else "local"


class Outcome(msgspec.Struct, frozen=True):
    """How an attempt ended. Made by its constructors only, so that no illegal combination exists.

    `at` is Unix milliseconds; `delay` the same in milliseconds from the moment it is written, which a stepping clock cannot bend.
    `remote` tells the sort of `backend`, `tried` which ones the attempt went to before it; `lane` moves a task that waits again there.
    """

    kind: OutcomeKind
    answer: Answer | None = None
    code: FailureCode | None = None
    error: str = ""
    at: int | None = None
    backend: str | None = None
    usage: Usage | None = None
    delay: int | None = None
    remote: bool = False
    tried: tuple[Tried, ...] = ()
    lane: str | None = None

    @classmethod
    def completed(cls, answer: Answer, *, backend: str | None = None, remote: bool = False, tried: tuple[Tried, ...] = ()) -> Outcome:
        """It has a result."""
        return cls("completed", answer, None, "", None, backend, answer.usage, None, remote, tried)

    @classmethod
    def retry(cls, at: int, *, code: FailureCode, error: str, backend: str | None = None, delay: int | None = None) -> Outcome:
        """It failed, burnt a retry and will be tried again at `at`, or after `delay` where that is given."""
        return cls("retry", code=code, error=error, at=at, backend=backend, delay=delay)

    @classmethod
    def failed(cls, code: FailureCode, error: str, *, backend: str | None = None) -> Outcome:
        """It failed for good."""
        return cls("failed", code=code, error=error, backend=backend)

    @classmethod
    def cancelled(cls, reason: str = "") -> Outcome:
        """It was cancelled by request."""
        return cls("cancelled", error=reason)

    @classmethod
    def released(
        cls,
        *,
        at: int | None = None,
        code: FailureCode | None = None,
        error: str = "",
        backend: str | None = None,
        delay: int | None = None,
    ) -> Outcome:
        """It hands the work back unburnt: at once, or (a full backend's hint) not before `at` or `delay`."""
        return cls("released", at=at, code=code, error=error, backend=backend, delay=delay)


class AttemptRecord(msgspec.Struct, frozen=True, gc=False):
    """What is kept of one ended attempt; `outcome` is an OutcomeKind or `lost`. Instants are Unix milliseconds."""

    number: int
    outcome: str
    worker: str
    started: int
    ended: int
    backend: str | None = None
    code: FailureCode | None = None
    error: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    remote: bool = False
    tried: tuple[Tried, ...] = ()

    @property
    def executed_on(self) -> str | None:
        """The name of a remote backend, or `local`."""
        return executed_on(self.backend, remote=self.remote)


class Timing(msgspec.Struct, frozen=True, gc=False):
    """Seconds by the wall clock, never negative: `waited` from submit to the last attempt's start, `ran` from there to the end."""

    waited: float
    ran: float


class TaskResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """A completed task's result, in one shape whatever the backend."""

    task_id: str
    text: str | None = None
    message: dict[str, Any] | None = None
    embeddings: list[list[float]] | None = None
    data: Any = None
    finish_reason: str | None = None
    model: str | None = None
    usage: Usage | None = None
    backend: str | None = None
    worker: str | None = None
    attempts: int = 1
    timing: Timing = Timing(0.0, 0.0)
    raw: Any = None
    remote: bool = False
    tried: tuple[Tried, ...] = ()

    @property
    def executed_on(self) -> str | None:
        """Where it ran: the name of a remote backend, or `local` as the forerunners say."""
        return executed_on(self.backend, remote=self.remote)

    @property
    def embedding(self) -> list[float] | None:
        """The first vector, for tasks that embed one input."""
        return self.embeddings[0] if self.embeddings else None

    def to_dict(self) -> dict[str, Any]:
        made: dict[str, Any] = msgspec.to_builtins(self)
        return made | {"executed_on": self.executed_on}

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)


# ── ids ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_lock = Lock()
_last = 0
_random = random.Random(os.urandom(32))  # noqa: S311 - ids must be unique, not secret


def _reseed() -> None:
    """A forked child must not draw what its parent draws."""
    _random.seed(os.urandom(32))


os.register_at_fork(after_in_child=_reseed)


def new_id() -> str:
    """A UUIDv7 (RFC 9562, section 5.7; sub-millisecond bits as in method 3): unique everywhere, rising within a process.

    The random part comes from a generator seeded by the system: a system call an id would cost more than all the rest.
    """
    global _last
    with _lock:
        # 48 bits of milliseconds and 12 of fraction, read as one number that only grows.
        stamp = (time.time_ns() * 4096) // 1_000_000
        if stamp <= _last:
            stamp = _last + 1
        _last = stamp
        tail = _random.getrandbits(62)
    high, low = stamp >> 28, stamp >> 12 & 0xFFFF
    return f"{high:08x}-{low:04x}-7{stamp & 0xFFF:03x}-{tail >> 48 | 0x8000:04x}-{tail & 0xFFFF_FFFF_FFFF:012x}"
