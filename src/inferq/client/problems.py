"""From a refusal that came over HTTP back to the error that the queue itself would have raised. Pure.

Source: RFC 9457 (problem details); the members `code`, `errors`, `request_id` and `retry_after` are inferq's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from inferq.errors import (
    ApiError,
    BatchInvalid,
    ExecutorError,
    Forbidden,
    InferqError,
    InvalidTask,
    PayloadTooLarge,
    ProtocolError,
    RateLimited,
    Rejected,
    TransportError,
    Unauthenticated,
)
from inferq.wire.native import Fault, Problem

if TYPE_CHECKING:
    from inferq.batch import LineError


def error_of(status: int, headers: Mapping[str, str], body: bytes, origin: str) -> InferqError:
    """The error that an answer with a status from 400 on means."""
    problem = _problem(body)
    hint = _hint(problem, headers)
    if problem is None:
        made = _plain(status, body, origin, hint)
        made.request_id = headers.get("x-request-id", "")
        return made
    message = problem.detail or problem.title or f"{origin} refused the request with status {status}"
    kind = _BY_CODE.get(problem.code) or _BY_STATUS.get(status)
    made = _make(kind, message, problem, hint) if kind is not None else ApiError(message, status=status, code=problem.code)
    made.request_id = problem.request_id or headers.get("x-request-id", "")
    return made


def field_of(pointer: str) -> str:
    """`payload.messages[0].role` for the JSON pointer `/payload/messages/0/role` (RFC 6901).

    What begins with a number stands in a list of submissions.
    """
    made = ""
    for part in pointer.removeprefix("#").split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        made += f"[{part}]" if part.isdigit() else f".{part}" if made else part
    return f"submissions{made}" if made.startswith("[") else made


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
    """The error with all that its class takes and the problem tells."""
    import inspect

    first = problem.errors[0] if problem.errors else None
    field = "" if first is None else field_of(first.pointer or "") or first.parameter or ""
    told = {
        "field": field,
        "retry_after": hint,
        "code": problem.code,
        "reason": problem.reason or "",
        "task_id": problem.task_id or "",
        "failure": problem.failure or "internal",
        "attempts": problem.attempts or 0,
    }
    taken = inspect.signature(kind.__init__).parameters
    make: Callable[..., InferqError] = kind
    made = make(message, **{name: value for name, value in told.items() if name in taken})
    made.args = (message,)  # as the server wrote it: it names the field already
    if isinstance(made, BatchInvalid):
        made.errors = [_line(fault) for fault in problem.errors]
        made.count, made.field = problem.count or len(made.errors), ""
    return made


def _line(fault: Fault) -> LineError:
    """A wrong line of a batch, from a pointer such as `/12/payload/messages`."""
    from inferq.batch import LineError

    number, _, rest = (fault.pointer or "/0").removeprefix("/").partition("/")
    return LineError(int(number) if number.isdecimal() else 0, fault.detail, field_of(f"/{rest}") if rest else "")


def _tree(kind: type[InferqError]) -> Iterator[type[InferqError]]:
    for child in kind.__subclasses__():
        yield from _tree(child)
    yield kind


def _codes() -> dict[str, type[InferqError]]:
    """The class of each code, of errors that can have happened at a server; of several with one code what a queue itself raises."""
    known = [kind for kind in _tree(InferqError) if "code" in vars(kind) and not issubclass(kind, ExecutorError | TransportError)]
    found = {kind.code: kind for kind in known}
    return found | {kind.code: kind for kind in (InvalidTask, PayloadTooLarge)}


_BY_CODE: Final[Mapping[str, type[InferqError]]] = _codes()
_BY_STATUS: Final[Mapping[int, type[InferqError]]] = {401: Unauthenticated, 403: Forbidden, 429: RateLimited}
