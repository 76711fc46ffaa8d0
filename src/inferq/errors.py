"""Every error a caller can meet, as one tree; each class carries a stable code, an HTTP status and whether to try again.

InferqError
├── ConfigError                         a setting is wrong; names the setting and its source
├── PluginError                         an executor could not be loaded
├── InvalidTask                         the submission is wrong; `field` says where
│   ├── UnknownExecutor · UnknownAction
│   ├── BatchInvalid                    lines of a batch are wrong; `errors` lists them
│   └── PayloadTooLarge
├── InvalidQuery                        a filter is wrong; `position` says where
├── TaskNotFound · BatchNotFound · RecordNotFound · AmbiguousId
├── InvalidSignature                    a webhook's message is not what its sender signed
├── Conflict
│   ├── BatchExists                     another batch has that name
│   ├── DuplicateKey                    same idempotency key, other body
│   ├── StaleRecord                     somebody else changed the record meanwhile
│   └── WrongState                      the task's state forbids it
├── Rejected                            try later; `retry_after` in seconds
│   └── QueueFull · RateLimited
├── ApiError                            the server refused the request; `status` and `code` are its own
│   ├── Unauthenticated · Forbidden     no valid key; not with this key, Host or Origin
│   ├── InvalidRequest                  a body or parameter is wrong; `field` or `parameter` says where
│   └── NoSuchRoute · WrongMethod · NotAcceptable · BodyTooLarge · BodyTimeout · UnsupportedMedia
├── TransportError                      the server could not be asked, or its answer not be understood
│   └── ConnectFailed · ConnectionLost · RequestTimeout (also TimeoutError) · ProtocolError
├── StoreError                          the truth could not be read or written
│   ├── StoreLocked · StoreFull · StoreReadOnly · StoreDamaged · SchemaTooNew · StoreClosed
├── ClaimLost                           the claim was superseded; `reason` says by what
├── TaskError                           a task ended without a result
│   └── TaskFailed · TaskCancelled
├── WaitTimeout (also TimeoutError)     only the waiting ended; the task goes on
└── ExecutorError                       raised by executors, turned into outcomes
    ├── RetryLater                      wait: rate limited or overloaded; burns no attempt
    ├── Unavailable                     again: connect, 5xx, cut stream; burns an attempt
    └── Reject                          now fail: asking again cannot help
        └── Untranslatable              not in this backend's words; one that speaks the task's own may run it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

FailureCode = Literal[
    "rate_limited",
    "quota_exhausted",
    "timeout",
    "expired",
    "connect",
    "overloaded",
    "server_error",
    "bad_request",
    "context_length",
    "content_filter",
    "auth",
    "permission",
    "not_found",
    "model_not_found",
    "lost",
    "script_failed",
    "internal",
]
"""Why an attempt or a task failed: a closed list shared by results, events, the command line and the documentation."""

FAILURE_CODES: frozenset[str] = frozenset(get_args(FailureCode))


class InferqError(Exception):
    """Base of every error that inferq raises on purpose."""

    code: str = "internal"
    status: int = 500
    retryable: ClassVar[bool] = False
    request_id: str = ""
    """What the server calls the request, where the error came over HTTP."""


class ConfigError(InferqError):
    """A setting is missing, unknown or has a wrong value."""

    code = "config"


class PluginError(InferqError):
    """An executor's entry point could not be loaded or does not keep the executor contract."""

    code = "plugin"


class InvalidTask(InferqError):
    """A submission was refused and nothing was stored; `field` is the path of the wrong value, such as `payload.messages[0].role`."""

    code = "bad_request"
    status = 400

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


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


class ApiError(InferqError):
    """The server refused the request for a reason of its own; `status` and `code` are those of its answer."""

    code = "api"
    status = 400

    def __init__(self, message: str, *, status: int | None = None, code: str = "") -> None:
        super().__init__(message)
        self.status = self.status if status is None else status
        self.code = code or self.code


class Unauthenticated(ApiError):
    """The request carries no valid key; nothing was done. Which part of a key was wrong is never said."""

    code = "unauthenticated"
    status = 401


class Forbidden(ApiError):
    """The key is valid but does not cover this: role, priority ceiling, model, executor or tenant. Nothing was done."""

    code = "forbidden"
    status = 403


class InvalidRequest(ApiError):
    """A body or parameter is not what the route takes. `field` is the path in the body (`template.payload`), `parameter` the name of a
    query, path or header parameter."""

    code = "bad_request"

    def __init__(self, message: str, *, field: str = "", parameter: str = "") -> None:
        super().__init__(f"{field or parameter}: {message}" if field or parameter else message)
        self.field = field
        self.parameter = parameter


class NoSuchRoute(ApiError):
    """The server has nothing at that path."""

    code = "no_such_route"
    status = 404


class WrongMethod(ApiError):
    """The path exists, but not with that method; `allowed` are those it has."""

    code = "wrong_method"
    status = 405

    def __init__(self, message: str, *, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.allowed = allowed


class NotAcceptable(ApiError):
    """The request accepts only media types that the route cannot answer with."""

    code = "not_acceptable"
    status = 406


class BodyTimeout(ApiError):
    """The body did not come within the server's time."""

    code = "body_timeout"
    status = 408
    retryable = True


class BodyTooLarge(ApiError):
    """The body has more bytes than the server takes."""

    code = "payload_too_large"
    status = 413


class UnsupportedMedia(ApiError):
    """The body's content type or encoding is not one that the route takes."""

    code = "unsupported_media"
    status = 415


class TransportError(InferqError):
    """The server could not be asked, or its answer could not be understood."""

    code = "transport"
    status = 502
    retryable = True


class ConnectFailed(TransportError):
    """There is no server at that address, or it cannot be reached; the request was not sent."""

    code = "connect_failed"


class ConnectionLost(TransportError):
    """The connection was cut after the request left and before its answer had come; it may have been carried out."""

    code = "connection_lost"


class RequestTimeout(TransportError, TimeoutError):
    """No answer came in time; the request may have been carried out."""

    code = "request_timeout"
    status = 504


class ProtocolError(TransportError):
    """Something answered, but not as an inferq server of a version that this client understands."""

    code = "protocol"
    retryable = False


class StoreError(InferqError):
    """The store could not be opened, read or written."""

    code = "store"
    status = 503


class StoreLocked(StoreError):
    """Another process held the write lock for longer than the store is willing to wait."""

    code = "store_locked"
    retryable = True


class StoreFull(StoreError):
    """The disk is full; nothing of the refused command was stored."""

    code = "store_full"
    status = 507
    retryable = True


class StoreReadOnly(StoreError):
    """The store's file or directory cannot be written."""

    code = "store_read_only"


class StoreDamaged(StoreError):
    """The file is not a usable database."""

    code = "store_damaged"


class SchemaTooNew(StoreError):
    """The file was written by a newer inferq."""

    code = "schema_too_new"


class StoreClosed(StoreError):
    """The store was closed; the command was not carried out."""

    code = "store_closed"


class ClaimLost(InferqError):
    """A write carried a claim that is no longer valid; the store is unchanged.

    `reason` is one of `superseded` (another attempt holds the task or it waits again), `cancelled`, `finished`, `gone` (pruned).
    """

    code = "claim_lost"
    status = 409

    def __init__(self, message: str, *, reason: str = "superseded") -> None:
        super().__init__(message)
        self.reason = reason


class TaskError(InferqError):
    """A task ended without a result."""

    status = 409

    def __init__(self, message: str, *, task_id: str) -> None:
        super().__init__(message)
        self.task_id = task_id


class TaskFailed(TaskError):
    """The task failed for good; `failure` is its code from the closed list, `attempts` how many were made."""

    code = "task_failed"

    def __init__(self, message: str, *, task_id: str, failure: str, attempts: int) -> None:
        super().__init__(message, task_id=task_id)
        self.failure = failure
        self.attempts = attempts


class TaskCancelled(TaskError):
    """The task was cancelled; `reason` is what the canceller gave."""

    code = "task_cancelled"

    def __init__(self, message: str, *, task_id: str, reason: str = "") -> None:
        super().__init__(message, task_id=task_id)
        self.reason = reason


class WaitTimeout(InferqError, TimeoutError):
    """The waiting ended, not the task: it goes on and can be collected later."""

    code = "wait_timeout"
    status = 408
    retryable = True


class ExecutorError(InferqError):
    """What an executor raises; `failure` is a code of the closed list."""

    failure: FailureCode

    def __init__(self, message: str, *, failure: FailureCode) -> None:
        super().__init__(message)
        self.failure = failure


class RetryLater(ExecutorError):
    """The backend cannot take the call now (429, 503 with a hint, overload): no attempt is burnt, only this lane's gate closes.

    `after` is the backend's own hint in seconds, None when it gave none.
    """

    retryable = True

    def __init__(self, message: str, *, after: float | None = None, failure: FailureCode = "rate_limited") -> None:
        super().__init__(message, failure=failure)
        self.after = after


class Unavailable(ExecutorError):
    """The call may succeed when made again (connect, 5xx, timeout, cut stream); it burns an attempt.

    `sent` is False only when the backend surely never saw the request.
    """

    retryable = True

    def __init__(self, message: str, *, failure: FailureCode = "connect", sent: bool = True) -> None:
        super().__init__(message, failure=failure)
        self.sent = sent


class Reject(ExecutorError):
    """Making the call again cannot help (bad request, missing model, context too long): the task fails now."""

    def __init__(self, message: str, *, failure: FailureCode = "bad_request") -> None:
        super().__init__(message, failure=failure)


class Untranslatable(Reject):
    """The task says something that this backend's dialect has no word for. A backend of the task's own executor may run it."""
