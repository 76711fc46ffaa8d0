"""From a refusal that came over HTTP back to the error that the queue itself would have raised. Pure.

Source: RFC 9457 (problem details); the members `code`, `errors`, `request_id` and `retry_after` are inferq's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from inferq.errors import (
    ApiError,
    ClaimLost,
    Forbidden,
    InferqError,
    InvalidTask,
    ProtocolError,
    RateLimited,
    Rejected,
    TaskCancelled,
    TaskFailed,
    Unauthenticated,
)


class Detail(msgspec.Struct):
    """One thing that was wrong: a JSON pointer into the body, or the name of a parameter."""

    detail: str = ""
    pointer: str = ""
    parameter: str = ""


class Problem(msgspec.Struct):
    """What a server says of a refusal."""

    title: str = ""
    status: int = 0
    detail: str = ""
    code: str = ""
    errors: list[Detail] = []
    request_id: str = ""
    retry_after: float | None = None
    task_id: str = ""
    reason: str = ""
    failure: str = ""
    attempts: int = 0


def error_of(status: int, headers: Mapping[str, str], body: bytes, origin: str) -> InferqError:
    """The error that an answer with a status from 400 on means."""
    problem = _problem(body)
    hint = _hint(problem, headers)
    if problem is None or not problem.code:
        made = _plain(status, body, origin, hint)
        made.request_id = headers.get("x-request-id", "")
        return made
    message = problem.detail or problem.title or f"{origin} refused the request with status {status}"
    kind = _BY_CODE.get(problem.code) or _BY_STATUS.get(status)
    made = _make(kind, message, problem, hint) if kind is not None else ApiError(message, status=status, code=problem.code)
    made.request_id = problem.request_id or headers.get("x-request-id", "")
    return made


def field_of(pointer: str) -> str:
    """`payload.messages[0].role` for the JSON pointer `/payload/messages/0/role` (RFC 6901); `submissions[1]` begins with `[1]`."""
    made = ""
    for part in pointer.removeprefix("#").split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        made += f"[{part}]" if part.isdigit() else f".{part}" if made else part
    return made


def retry_after_of(error: InferqError) -> float | None:
    """Seconds after which the server says that asking again makes sense."""
    hint = getattr(error, "retry_after", None)
    return hint if isinstance(hint, int | float) else None


def _problem(body: bytes) -> Problem | None:
    try:
        return msgspec.json.decode(body, type=Problem)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _hint(problem: Problem | None, headers: Mapping[str, str]) -> float | None:
    if problem is not None and problem.retry_after is not None:
        return problem.retry_after
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None  # a date: the clocks may differ, and our server never sends one


def _plain(status: int, body: bytes, origin: str, hint: float | None) -> InferqError:
    """Of an answer that is no problem document: a proxy's, or that of something else at this address."""
    said = re.sub(r"\s+", " ", body[:200].decode(errors="replace")).strip()
    message = f"{origin} refused the request with status {status}" + (f": {said}" if said else "")
    if status == 401:
        return Unauthenticated(message)
    if status == 403:
        return Forbidden(message)
    if status == 429:
        return RateLimited(message, retry_after=hint)
    if status in (502, 503, 504):
        made = Rejected(message, retry_after=hint)
        made.status = status
        return made
    if status == 404:
        return ProtocolError(f"{message}; is it an inferq server?")
    return ApiError(message, status=status)


def _make(kind: type[InferqError], message: str, problem: Problem, hint: float | None) -> InferqError:
    if issubclass(kind, InvalidTask):
        first = problem.errors[0] if problem.errors else Detail()
        field = field_of(first.pointer) or first.parameter
        # The server's text already begins with the field, as the error's own does.
        made = kind(message.removeprefix(f"{field}: "), field=field)
        made.args = (message,)
        return made
    if issubclass(kind, Rejected):
        return kind(message, retry_after=hint)
    if issubclass(kind, ClaimLost):
        return kind(message, reason=problem.reason or "superseded")
    if issubclass(kind, TaskFailed):
        return kind(message, task_id=problem.task_id, failure=problem.failure or "internal", attempts=problem.attempts)
    if issubclass(kind, TaskCancelled):
        return kind(message, task_id=problem.task_id, reason=problem.reason)
    if issubclass(kind, ApiError):
        return kind(message, code=problem.code)
    make: Callable[[str], InferqError] = kind
    return make(message)


def _tree(kind: type[InferqError]) -> Iterator[type[InferqError]]:
    for child in kind.__subclasses__():
        yield from _tree(child)
    yield kind


def _codes() -> dict[str, type[InferqError]]:
    from inferq.errors import ExecutorError, TransportError

    # Only errors that can have happened at the server; of several with one code the most general one that stands for it.
    return {
        kind.code: kind
        for kind in _tree(InferqError)
        if "code" in vars(kind) and not issubclass(kind, ExecutorError | TransportError) and kind.__module__ == "inferq.errors"
    }


_BY_CODE: Final[Mapping[str, Any]] = _codes() | {"bad_request": InvalidTask}
_BY_STATUS: Final[Mapping[int, Any]] = {400: InvalidTask, 401: Unauthenticated, 403: Forbidden, 413: InvalidTask, 429: RateLimited}
