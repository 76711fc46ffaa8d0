"""What an executor raises when a call goes wrong: the class says whether asking again can help."""

from __future__ import annotations

from inferq.errors.base import FailureCode, InferqError


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
