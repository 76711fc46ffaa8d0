"""A queue does not do what it was asked: the submission, filter, id or record is wrong, contradicts what is stored, or comes too early."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from inferq.errors.base import InferqError


class InvalidTask(InferqError):
    """A submission was refused and nothing was stored; `field` is the path of the wrong value, such as `payload.messages[0].role`."""

    code = "bad_request"
    status = 400

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field

    @property
    def reason(self) -> str:
        """What is wrong, without the field."""
        return str(self.args[0]).removeprefix(f"{self.field}: ") if self.field else str(self.args[0])

    def at(self, field: str) -> Self:
        """The same error, of that field."""
        self.args = (f"{field}: {self.reason}" if field else self.reason,)
        self.field = field
        return self

    def within(self, place: str) -> Self:
        """The same error, of what stands at `place` in something larger."""
        return self.at(f"{place}.{self.field}" if self.field else place)

    def out_of(self, place: str) -> Self:
        """The same error, as if what stands at `place` stood alone: the inverse of `within`."""
        inside = self.field == place or self.field.startswith(f"{place}.")
        return self.at(self.field.removeprefix(place).removeprefix(".")) if inside else self


class UnknownExecutor(InvalidTask):
    """No executor or backend of that name is configured here."""

    code = "unknown_executor"


class UnknownAction(InvalidTask):
    """The executor exists but does not know the action."""

    code = "unknown_action"


class PayloadTooLarge(InvalidTask):
    """The encoded payload exceeds `max_payload_bytes`."""

    code = "payload_too_large"
    status = 413


class InvalidQuery(InferqError):
    """A filter cannot be read. `position` is the character (from 0) where it goes wrong, `near` the word that may have been meant."""

    code = "bad_query"
    status = 400

    def __init__(self, message: str, *, position: int | None = None, near: str | None = None, text: str = "") -> None:
        super().__init__(message if position is None else f"{message} (character {position + 1} of the filter)")
        self.position = position
        self.near = near
        self.text = text


class BatchInvalid(InvalidTask):
    """Lines of a batch were refused and nothing was stored; `errors` are the first of them, `count` is how many there are."""

    code = "batch_invalid"

    def __init__(self, message: str, *, field: str = "", errors: Sequence[Any] = (), count: int = 0) -> None:
        super().__init__(message, field=field)
        self.errors = list(errors)
        self.count = count or len(self.errors)


class TaskNotFound(InferqError):
    """No task has that id (or it was pruned)."""

    code = "not_found"
    status = 404

    @classmethod
    def of(cls, id: str) -> Self:
        """The error about an id. Who may not see a task is told exactly this too."""
        return cls(f"expected the id of a task, got {id!r}: no task has it (it may have been pruned)")


class RecordNotFound(InferqError):
    """Nothing of that kind (a key, a webhook, a schedule...) has that id or name."""

    code = "record_not_found"
    status = 404


class BatchNotFound(InferqError):
    """No batch has that id or name (or it was pruned)."""

    code = "batch_not_found"
    status = 404


class AmbiguousId(InferqError):
    """An id prefix fits more than one task."""

    code = "ambiguous_id"
    status = 409


class InvalidSignature(InferqError):
    """A message is not what the holder of the secret signed, or is too old; raised by `verify_webhook`: answer it with 401."""

    code = "invalid_signature"
    status = 401


class Conflict(InferqError):
    """The request contradicts what is stored."""

    code = "conflict"
    status = 409


class BatchExists(Conflict):
    """Another batch of this tenant has that name; nothing was stored."""

    code = "batch_exists"


class DuplicateKey(Conflict):
    """The idempotency key was already used with another body; nothing was stored and the first task is untouched."""

    code = "duplicate_key"
    status = 422


class StaleRecord(Conflict):
    """A record was changed by somebody else since it was read (or exists although it had to be new); nothing was stored. Read it again."""

    code = "stale"


class WrongState(Conflict):
    """The task is in a state that forbids the change, such as cancelling what has completed."""

    code = "wrong_state"


class Rejected(InferqError):
    """The queue cannot take more now; try again after `retry_after` seconds."""

    code = "rejected"
    status = 503
    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(Rejected):
    """As many tasks wait as `max_queue_size` allows."""

    code = "queue_full"


class RateLimited(Rejected):
    """The caller's own limit is reached (as many tasks of its tenant wait as may); others are still served."""

    code = "rate_limited"
    status = 429
