"""A task as the store knows it, and the right to make an attempt of it."""

from __future__ import annotations

from typing import Any

import msgspec

from inferq.errors import FailureCode
from inferq.task.flow import FlowKey
from inferq.task.outcome import executed_on
from inferq.task.state import State
from inferq.task.submission import Submission


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
        """Higher goes first; that of its flow, which may have changed since the submit."""
        return self.flow.priority

    @property
    def model(self) -> str:
        """The model that was asked for; empty where the executor needs none."""
        return self.spec.model

    @property
    def action(self) -> str:
        """What the executor is to do: chat, generate, embed..."""
        return self.spec.action

    @property
    def executor(self) -> str:
        """The name of the executor that was asked for."""
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


class Claim(msgspec.Struct, frozen=True, gc=False):
    """The right to make one attempt: every write of a worker carries it, and a stale one is refused with `ClaimLost`."""

    task: Task
    attempt: int
    token: int
    worker: str
