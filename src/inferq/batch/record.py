"""A batch and its lines as values: counts, states, one line's outcome. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from inferq.errors import FailureCode
from inferq.task import NewTask, State, TaskResult


class BatchState(StrEnum):
    """Where a batch stands."""

    OPEN = "open"
    """Lines may still be added: it is being imported, or nobody has sealed it."""
    RUNNING = "running"
    """Sealed; some of its tasks wait or run."""
    PAUSED = "paused"
    """Its waiting tasks are held; those that ran go on."""
    CANCELLED = "cancelled"
    """It was cancelled; tasks that were held to it may still be ending."""
    FINISHED = "finished"
    """Sealed, and every task has ended."""


class NewBatch(msgspec.Struct, frozen=True):
    """A batch on its way into the store. `name` is unique per tenant; `source` and `digest` tell an import where it came from, so
    that it can be resumed."""

    id: str
    name: str | None = None
    tenant: str = ""
    source: str = ""
    digest: str = ""
    metadata: dict[str, Any] = {}


class Batch(msgspec.Struct, frozen=True):
    """A batch as the store knows it; its counts move in the transactions of its tasks. Instants are Unix milliseconds.

    `waiting` are scheduled, pending or held. `lines` is the number of the last line, `pruned` how many ended tasks retention has
    removed (they stay in the counts). Tokens are those of completed tasks.
    """

    id: str
    name: str | None
    tenant: str
    source: str
    digest: str
    metadata: dict[str, Any]
    created: int
    sealed: int | None = None
    finished: int | None = None
    held: bool = False
    reason: str | None = None
    """Why it was cancelled; None while it was not."""
    lines: int = 0
    total: int = 0
    waiting: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    pruned: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def state(self) -> BatchState:
        """Where it stands, from what is kept of it."""
        if self.reason is not None:
            return BatchState.CANCELLED
        if self.finished is not None:
            return BatchState.FINISHED
        if self.held:
            return BatchState.PAUSED
        return BatchState.OPEN if self.sealed is None else BatchState.RUNNING

    @property
    def done(self) -> int:
        """Tasks that have ended, however."""
        return self.completed + self.failed + self.cancelled

    @property
    def ended(self) -> bool:
        """Whether it is sealed and nothing of it waits or runs."""
        return self.finished is not None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, with `state` and `done`."""
        made: dict[str, Any] = msgspec.to_builtins(self)
        return {"id": made.pop("id"), "name": made.pop("name"), "state": str(self.state), "done": self.done, **made}


class BatchLine(msgspec.Struct, frozen=True, gc=False):
    """A line to be added: its number and key make adding it again harmless."""

    line: int
    key: str | None
    task: NewTask


class BatchFailures(msgspec.Struct, frozen=True):
    """Failed tasks of a batch that share a code, with one of them."""

    code: str
    count: int
    example: str
    task_id: str


class BatchItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a batch and what became of it; `state` None says that retention has removed its task."""

    line: int
    task_id: str
    state: State | None
    key: str | None = None
    action: str = ""
    model: str = ""
    result: TaskResult | None = None
    code: FailureCode | None = None
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, as they stand on the wire."""
        made: dict[str, Any] = msgspec.to_builtins(self.shown())
        return made

    def to_json(self) -> bytes:
        """One line of JSON, without its end."""
        return msgspec.json.encode(self.shown())

    def shown(self) -> BatchItem:
        """The same, whose result says `executed_on` in JSON too."""
        return self if self.result is None else msgspec.structs.replace(self, result=self.result.shown())
