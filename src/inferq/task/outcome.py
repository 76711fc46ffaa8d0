"""How an attempt ended, what is kept of it, and the result in one shape whatever the backend."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from inferq.errors import FailureCode
from inferq.executor import Answer, Usage

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
    `first` is when its first chunk came, in Unix milliseconds.
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
    first: int | None = None

    @classmethod
    def completed(
        cls,
        answer: Answer,
        *,
        backend: str | None = None,
        remote: bool = False,
        tried: tuple[Tried, ...] = (),
        first: int | None = None,
    ) -> Outcome:
        """It has a result."""
        return cls("completed", answer, None, "", None, backend, answer.usage, None, remote, tried, None, first)

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

    def shown(self) -> ShownAttempt:
        """The same, whose JSON says `executed_on` too."""
        fields = {name: getattr(self, name) for name in AttemptRecord.__struct_fields__}
        return ShownAttempt(**fields, executed_on=self.executed_on)


class Timing(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Seconds by the wall clock, never negative: `waited` from submit to the last attempt's start, `ran` from there to the end, `first`
    from there to the first chunk, where the backend streamed."""

    waited: float
    ran: float
    first: float | None = None


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
        """JSON-ready values, as they stand on the wire."""
        made: dict[str, Any] = msgspec.to_builtins(self.shown())
        return made

    def to_json(self) -> bytes:
        """One JSON object in UTF-8, as it stands on the wire."""
        return msgspec.json.encode(self.shown())

    def shown(self) -> ShownResult:
        """The same, whose JSON says `executed_on` too."""
        fields = {name: getattr(self, name) for name in TaskResult.__struct_fields__}
        return ShownResult(**fields, executed_on=self.executed_on)


class ShownResult(TaskResult, frozen=True, omit_defaults=True):
    """A result as JSON has it: what follows from its other fields stands there too."""

    executed_on: str | None = None


class ShownAttempt(AttemptRecord, frozen=True, gc=False):
    """An attempt as JSON has it: what follows from its other fields stands there too."""

    executed_on: str | None = None
