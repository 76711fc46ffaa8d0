"""What an exception of a call says, in the words of an executor: whether asking again can help, here or at another backend."""

from __future__ import annotations

from typing import Final

from inferq.engine.handed import readable
from inferq.errors import (
    FAILURE_CODES,
    ExecutorError,
    FailureCode,
    InvalidTask,
    PluginError,
    Reject,
    RetryLater,
    Unavailable,
    Untranslatable,
)

LONGEST_ERROR: Final = 2000
"""Characters of a backend's error that are kept."""

_ABOUT_THE_BACKEND: Final = frozenset({"model_not_found", "quota_exhausted", "auth"})
"""Refusals that say nothing of the task: another backend may have the model, the money or the right key."""


def verdict_on(error: Exception) -> ExecutorError:
    """The error itself where an executor has judged already; else `internal` for what nobody expected."""
    if isinstance(error, ExecutorError):
        return error
    if isinstance(error, InvalidTask):
        return Reject(str(error))
    if isinstance(error, PluginError):
        return Reject(str(error), failure="internal")
    if isinstance(error, TimeoutError):
        return Unavailable(str(error) or "the executor timed out", failure="timeout")
    if isinstance(error, OSError):
        return Unavailable(str(error) or type(error).__name__, failure="connect")
    return Unavailable(f"{type(error).__name__}: {error}", failure="internal")


def may_pass_on(error: ExecutorError, *, at_most_once: bool) -> bool:
    """Whether a task that got no chunk may be tried elsewhere at once. What may have been carried out is not sent twice if that matters."""
    match error:
        case RetryLater():
            return True
        case Unavailable():
            return error.failure != "internal" and not (at_most_once and error.sent)
        case Untranslatable():
            return True
        case _:
            return error.failure in _ABOUT_THE_BACKEND


def code_of(error: ExecutorError) -> FailureCode:
    """Its code of the closed list; `internal` for one that a plugin made up."""
    return error.failure if error.failure in FAILURE_CODES else "internal"


def text_of(error: object) -> str:
    """As much of it as is kept, as UTF-8 can hold it."""
    return readable(str(error))[:LONGEST_ERROR]
