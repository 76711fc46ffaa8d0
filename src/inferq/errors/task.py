"""A task or an attempt has ended otherwise than its waiter hoped, or not yet."""

from __future__ import annotations

from inferq.errors.base import InferqError


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
