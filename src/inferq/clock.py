"""Time as a value: one reading of the wall and of the monotonic clock, taken at the edge and passed in everywhere else."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Now:
    """One reading of both clocks, in integer milliseconds.

    `wall` is Unix time: it dates what people see and what they schedule, and may step.
    `mono` is the machine's monotonic clock (the same for all processes since boot): leases and durations are judged by it alone,
    so that a stepping wall clock can neither end a lease nor keep a dead one.
    """

    wall: int
    mono: int


class Clock(Protocol):
    """Where the edge reads time; `inferq.testing.FakeClock` is the one that tests own."""

    def read(self) -> Now:
        """Both clocks, as they stand now."""
        ...


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    def read(self) -> Now:
        return Now(time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000)


_DURATION = re.compile(
    r"(?:(?P<d>\d+(?:\.\d+)?)d)?(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m(?!s))?"
    r"(?:(?P<s>\d+(?:\.\d+)?)s)?(?:(?P<ms>\d+(?:\.\d+)?)ms)?"
)
_LARGEST = 2**63
_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def seconds(value: float | str | timedelta) -> float:
    """A duration in seconds from a number of seconds, a timedelta or a text such as `10m`, `1h30m`, `250ms` or `1.5`.

    Raises ValueError when it is negative, not finite or not a duration.
    """
    if isinstance(value, timedelta):
        amount = value.total_seconds()
    elif isinstance(value, str):
        amount = _parse(value.strip())
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a duration such as 30, '10m' or timedelta(minutes=10), got {value!r}")
    else:
        amount = float(value) if -_LARGEST < value < _LARGEST else math.inf
    if not math.isfinite(amount) or amount < 0:
        raise ValueError(f"expected a finite duration of at least 0, got {value!r}")
    return amount


def _parse(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    match = _DURATION.fullmatch(text)
    if not text or match is None or not any(match.groupdict().values()):
        raise ValueError(f"expected a duration such as 30, '10m', '1h30m' or '250ms', got {text!r}")
    return sum(float(amount) * _UNITS[unit] for unit, amount in match.groupdict().items() if amount)


def instant(value: datetime | str) -> int:
    """Unix milliseconds of a time with its zone: a datetime, or RFC 3339 text such as `2027-01-31T10:00:00Z`.

    Raises ValueError for one without a zone or a time of day, and for one before 1970.
    """
    try:
        made = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except ValueError:
        made = None
    if made is None or made.tzinfo is None or (isinstance(value, str) and "T" not in value.upper().replace(" ", "T")):
        raise ValueError(f"expected a time with its zone such as 2027-01-31T10:00:00Z, got {str(value)!r}")
    try:
        found = round(made.timestamp() * 1000)
    except (OverflowError, ValueError):
        raise ValueError(f"expected a time that a computer can hold, got {str(value)!r}") from None
    if found < 0:
        raise ValueError(f"expected a time after 1970, got {str(value)!r}")
    return found
