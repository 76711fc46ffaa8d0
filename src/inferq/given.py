"""What callers give, brought into one form: priorities as numbers, durations as seconds, instants as Unix milliseconds, text that a
store can hold. Every face says the same of the same mistake: InvalidTask, which names the field."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, overload

from inferq import clock
from inferq.errors import InvalidTask
from inferq.task import priority_number

LONGEST: Final = 31_557_600_000
"""Seconds of the longest duration: 1,000 years."""


def checked_priority(value: int | str, field: str = "priority") -> int:
    """The number of a priority from its name or number; higher goes first. Raises InvalidTask."""
    try:
        return priority_number(value)
    except ValueError as error:
        raise InvalidTask(str(error), field=field) from None


@overload
def checked_seconds(value: float | str | timedelta, field: str) -> float: ...
@overload
def checked_seconds(value: float | str | timedelta | None, field: str) -> float | None: ...
def checked_seconds(value: float | str | timedelta | None, field: str) -> float | None:
    """Seconds of a duration: a number of them, a timedelta, or a text such as `10m`. None stays None. Raises InvalidTask."""
    if value is None:
        return None
    try:
        found = clock.seconds(value)
    except ValueError as error:
        raise InvalidTask(str(error), field=field) from None
    if found > LONGEST:
        raise InvalidTask(f"expected at most {LONGEST} s (1,000 years), got {value!r}", field=field)
    return found


@overload
def checked_instant(value: datetime | str | int, field: str) -> int: ...
@overload
def checked_instant(value: datetime | str | int | None, field: str) -> int | None: ...
def checked_instant(value: datetime | str | int | None, field: str) -> int | None:
    """Unix milliseconds of a time with its zone: a datetime, or RFC 3339 text; a number is that already. None stays None.
    Raises InvalidTask."""
    if value is None or isinstance(value, int):
        return value
    try:
        return clock.instant(value)
    except ValueError as error:
        raise InvalidTask(str(error), field=field) from None


def is_text(value: object) -> bool:
    """Whether it is text that UTF-8 can hold."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_text(value: str, field: str, *, empty: bool = False) -> str:
    """Text that a store can hold. Raises InvalidTask."""
    if not is_text(value) or "\x00" in value or not (value or empty):
        raise InvalidTask(f"expected a text, got {value!r}", field=field)
    return value
