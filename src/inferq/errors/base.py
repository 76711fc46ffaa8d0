"""The root of all errors, the closed list of failure codes, and what is wrong before anything runs."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

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
