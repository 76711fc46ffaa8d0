"""The exit codes, as one table that the program, the help and the documentation share, and which error ends with which."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a command ended; stable."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    PERMISSION = 4
    NOT_FOUND = 5
    CONFLICT = 6
    UNREACHABLE = 7
    TIMEOUT = 8
    REJECTED = 9
    INTERRUPTED = 130


MEANING: dict[Exit, str] = {
    Exit.OK: "success",
    Exit.FAILED: "a task failed or was cancelled, a check found something, or an unexpected error",
    Exit.USAGE: "usage: wrong option, wrong setting, refused task",
    Exit.PARTIAL: "some of several succeeded, others did not",
    Exit.PERMISSION: "permission: a file or the store may not be written or read, or the server refused the key",
    Exit.NOT_FOUND: "not found: no such task, model or file",
    Exit.CONFLICT: "conflict: wrong state, key used with another body",
    Exit.UNREACHABLE: "the store or server cannot be used (locked, damaged, full, newer, down)",
    Exit.TIMEOUT: "timed out waiting; the task goes on",
    Exit.REJECTED: "rejected: the queue is full or a limit is reached",
    Exit.INTERRUPTED: "interrupted with Ctrl-C",
}

# By code of the error class, so that deciding needs no import of what was not used.
_BY_CODE: dict[str, Exit] = {
    "config": Exit.USAGE,
    "bad_request": Exit.USAGE,
    "bad_query": Exit.USAGE,
    "unknown_executor": Exit.USAGE,
    "unknown_action": Exit.USAGE,
    "payload_too_large": Exit.USAGE,
    "ambiguous_id": Exit.USAGE,
    "not_found": Exit.NOT_FOUND,
    "record_not_found": Exit.NOT_FOUND,
    "batch_not_found": Exit.NOT_FOUND,
    "batch_exists": Exit.CONFLICT,
    "batch_invalid": Exit.USAGE,
    "conflict": Exit.CONFLICT,
    "duplicate_key": Exit.CONFLICT,
    "wrong_state": Exit.CONFLICT,
    "rejected": Exit.REJECTED,
    "queue_full": Exit.REJECTED,
    "store": Exit.UNREACHABLE,
    "store_locked": Exit.UNREACHABLE,
    "store_full": Exit.UNREACHABLE,
    "store_read_only": Exit.PERMISSION,
    "store_damaged": Exit.UNREACHABLE,
    "schema_too_new": Exit.UNREACHABLE,
    "store_closed": Exit.UNREACHABLE,
    "wait_timeout": Exit.TIMEOUT,
    "rate_limited": Exit.REJECTED,
    "unauthenticated": Exit.PERMISSION,
    "forbidden": Exit.PERMISSION,
    "transport": Exit.UNREACHABLE,
    "connect_failed": Exit.UNREACHABLE,
    "connection_lost": Exit.UNREACHABLE,
    "request_timeout": Exit.UNREACHABLE,
    "protocol": Exit.UNREACHABLE,
}


# An executor's own errors, where a command calls it without the queue.
_BY_FAILURE: dict[str, Exit] = {
    "auth": Exit.PERMISSION,
    "permission": Exit.PERMISSION,
    "not_found": Exit.NOT_FOUND,
    "model_not_found": Exit.NOT_FOUND,
    "connect": Exit.UNREACHABLE,
    "overloaded": Exit.UNREACHABLE,
    "server_error": Exit.UNREACHABLE,
    "timeout": Exit.UNREACHABLE,
    "rate_limited": Exit.REJECTED,
    "quota_exhausted": Exit.REJECTED,
}


_BY_STATUS: dict[int, Exit] = {
    400: Exit.USAGE,
    401: Exit.PERMISSION,
    403: Exit.PERMISSION,
    404: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
    412: Exit.CONFLICT,
    413: Exit.USAGE,
    422: Exit.USAGE,
    429: Exit.REJECTED,
    502: Exit.UNREACHABLE,
    503: Exit.REJECTED,
    504: Exit.UNREACHABLE,
}


def exit_of(error: BaseException) -> Exit:
    """The exit code that an error ends a command with."""
    if type(error).__name__ in ("Reject", "Unavailable", "RetryLater"):
        return _BY_FAILURE.get(getattr(error, "failure", ""), Exit.FAILED)
    if isinstance(getattr(error, "code", None), str):
        return _of_code(error)
    if isinstance(error, FileNotFoundError):
        return Exit.NOT_FOUND
    if isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError):
        return Exit.USAGE
    if isinstance(error, PermissionError):
        return Exit.PERMISSION
    if isinstance(error, KeyboardInterrupt):
        return Exit.INTERRUPTED
    return Exit.FAILED


def _of_code(error: BaseException) -> Exit:
    """By the error's own code, else by its kind's, else by its HTTP status: a newer server may say more than this program knows."""
    codes = [getattr(error, "code", ""), *(str(vars(cls).get("code", "")) for cls in type(error).__mro__)]
    found = next((_BY_CODE[code] for code in codes if code in _BY_CODE), None)
    if found is None and not any(cls.__name__ in ("TaskError", "ClaimLost") for cls in type(error).__mro__):
        found = _BY_STATUS.get(getattr(error, "status", 0))
    return Exit.FAILED if found is None else found


def together(ends: list[Exit]) -> Exit:
    """The exit code of a command on several things: their common one, else `PARTIAL`."""
    kinds = set(ends)
    return ends[0] if len(kinds) == 1 else Exit.PARTIAL if kinds else Exit.OK
