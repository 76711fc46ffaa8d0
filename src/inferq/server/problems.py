"""From an exception to an RFC 9457 problem: status, code and hints stand on the error class, never in a handler."""

from __future__ import annotations

import logging
import math
import re
from http import HTTPStatus
from typing import Final

import msgspec

from inferq.errors import BatchInvalid, ConfigError, InferqError, TaskCancelled, TaskFailed, Unauthenticated, WrongMethod
from inferq.wire.native import Fault, Problem

log: Final = logging.getLogger("inferq.server")

TYPES: Final = "urn:inferq:problem:"
"""Prefix of problem types; the rest is the code. A name, not an address: nothing can be fetched there."""
_STEP: Final = re.compile(r"\[(\d+)\]|\.?([^.\[]+)")
_LIST: Final = re.compile(r"^submissions(?=\[)")


def problem_of(error: BaseException, request_id: str) -> Problem:
    """The problem that a client sees. What is not ours says nothing about our insides: it is logged with its traceback instead."""
    if not isinstance(error, InferqError):
        log.error("server.failed", exc_info=error, extra={"request_id": request_id})
        return Problem(
            type=f"{TYPES}internal",
            title="Internal error",
            status=500,
            code="internal",
            detail=f"an error of the server's own, not of the request; its log has it under request {request_id}",
            request_id=request_id,
        )
    status = error.status if error.status != type(error).status else status_of(type(error))
    found = Problem(
        type=f"{TYPES}{error.code}",
        title=title_of(type(error)),
        status=status,
        code=error.code,
        detail=str(error),
        request_id=request_id,
        retryable=error.retryable,
        retry_after=getattr(error, "retry_after", None),
        errors=faults_of(error),
    )
    if isinstance(error, TaskFailed):
        found.task_id, found.failure, found.attempts = error.task_id, error.failure, error.attempts
    elif isinstance(error, TaskCancelled):
        found.task_id, found.reason = error.task_id, error.reason
    elif isinstance(error, BatchInvalid):
        found.count = error.count
    if status >= 500 and not error.retryable:
        log.error("server.refused", exc_info=error, extra={"request_id": request_id, "code": error.code})
    return found


def status_of(error: type[InferqError]) -> int:
    """The HTTP status of an error class. A wrong setting of the server is not the request's fault, and may be mended."""
    return 503 if issubclass(error, ConfigError) else error.status


def title_of(error: type[InferqError]) -> str:
    """The class's name as words: `Task not found`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", error.__name__).capitalize()


def faults_of(error: InferqError) -> list[Fault]:
    """Where it is wrong, for errors that know."""
    if isinstance(error, BatchInvalid):
        return [Fault(line.reason, pointer=f"/{line.number}{pointer_of(line.field)}") for line in error.errors]
    if parameter := getattr(error, "parameter", ""):
        return [Fault(str(error).removeprefix(f"{parameter}: "), parameter=parameter)]
    if field := getattr(error, "field", ""):
        return [Fault(str(error).removeprefix(f"{field}: "), pointer=pointer_of(field))]
    return []


def pointer_of(field: str) -> str:
    """The RFC 6901 pointer of a field path: `payload.messages[0].role` is `/payload/messages/0/role`."""
    steps = [index or name for index, name in _STEP.findall(_LIST.sub("", field))]
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def headers_of(problem: Problem, error: BaseException) -> dict[str, str]:
    """What HTTP wants beside the body."""
    headers: dict[str, str] = {}
    if problem.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(problem.retry_after)))
    elif problem.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS) and problem.retryable:
        headers["retry-after"] = "1"
    if isinstance(error, WrongMethod):
        headers["allow"] = ", ".join(error.allowed)
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = 'Bearer realm="inferq"'
    return headers


encode: Final = msgspec.json.Encoder().encode
