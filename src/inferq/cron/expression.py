"""Reading a cron expression: text to the numbers of its five fields, or an error that names the field and what is right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Final

MONTHS: Final = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
DAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_LONGEST_MONTH: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

MACROS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class CronError(ValueError):
    """An expression or a time zone that cannot be used; says which field, what was expected and what came."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """One of the five places of an expression."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    first: int = 0
    """The number of the first name."""

    def expected(self) -> str:
        also = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        return f"{self.low} to {self.high}{also}, `*`, a range such as {self.low}-{self.low + 3}, a step such as */2, or a list of these"


_KINDS: Final = (
    _Kind("minute", 0, 59),
    _Kind("hour", 0, 23),
    _Kind("day of month", 1, 31),
    _Kind("month", 1, 12, tuple(name[:3].lower() for name in MONTHS), 1),
    _Kind("day of week", 0, 7, tuple(name[:3].lower() for name in DAYS), 0),
)
_TERM: Final = re.compile(r"(?P<low>\*|\w+)(?:-(?P<high>\w+))?(?:/(?P<step>\w+))?")


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed expression; made by `parse`. Days of the week are 0 (Sunday) to 6."""

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either_day: bool
    """Day of month or day of week suffices."""
    interval: bool
    """It counts real minutes; else it names fixed local times."""
    stars: tuple[bool, bool, bool, bool, bool]
    """Which fields are just `*`."""

    def on(self, day: date) -> bool:
        """Whether it fires on this day at all."""
        return day.month in self.months and self.fits(day.day, day.isoweekday() % 7)

    def matches(self, local: datetime) -> bool:
        """Whether the fields fit this local time, to the minute. Says nothing about clock changes."""
        return local.minute in self.minutes and local.hour in self.hours and self.on(local.date())

    def fits(self, day: int, weekday: int) -> bool:
        """Whether the two day fields fit a day of the month and of the week (0 is Sunday)."""
        if self.either_day:
            return day in self.days or weekday in self.weekdays
        return day in self.days and weekday in self.weekdays


@lru_cache(maxsize=4096)
def parse(text: str) -> Cron:
    """Read five fields (minute, hour, day of month, month, day of week) or a macro such as `@daily`. Raises CronError.

    Fields take `*`, numbers, names of months and days, ranges, steps (`*/n`, `a-b/n`; `a/n` is `a` to the end) and lists. A step that
    is larger than its field, a falling range and a date that never comes (31 February) are refused instead of guessed at.
    """
    fields = _fields(text)
    values = [_values(field, kind) for field, kind in zip(fields, _KINDS, strict=True)]
    minutes, hours, days, months, weekdays = values
    restricted = [not field.startswith("*") for field in fields]
    cron = Cron(
        text=text.strip(),
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=tuple(sorted({day % 7 for day in weekdays})),
        either_day=restricted[2] and restricted[4],
        interval=not (restricted[0] and restricted[1]),
        stars=(fields[0] == "*", fields[1] == "*", fields[2] == "*", fields[3] == "*", fields[4] == "*"),
    )
    if not cron.either_day and days[0] > max(_LONGEST_MONTH[month - 1] for month in months):
        named = " or ".join(MONTHS[month - 1] for month in months)
        raise CronError(f"day of month: expected a day that {named} has, got {fields[2]!r}: this date never comes")
    return cron


def _fields(text: str) -> list[str]:
    if not isinstance(text, str):
        raise CronError(f"expected a cron expression such as '0 9 * * 1-5', got {text!r}")
    given = text.strip().lower()
    if given.startswith("@"):
        if given not in MACROS:
            raise CronError(f"expected a macro ({', '.join(MACROS)}) or five fields, got {text!r}")
        given = MACROS[given]
    fields = given.split()
    if len(fields) != 5:
        hint = "; there is no field for seconds" if len(fields) == 6 else ""
        names = ", ".join(kind.name for kind in _KINDS)
        raise CronError(f"expected five fields ({names}) such as '0 9 * * 1-5', got {len(fields)} in {text!r}{hint}")
    return fields


def _values(field: str, kind: _Kind) -> tuple[int, ...]:
    found: set[int] = set()
    for term in field.split(","):
        match = _TERM.fullmatch(term)
        if match is None or (match["low"] == "*" and match["high"] is not None):
            raise CronError(f"{kind.name}: expected {kind.expected()}, got {term!r}")
        low, high = _bounds(match, kind, term)
        found.update(range(low, high + 1, _step(match["step"], kind, term)))
    return tuple(sorted(found))


def _bounds(match: re.Match[str], kind: _Kind, term: str) -> tuple[int, int]:
    # Sunday is both 0 and 7: a star counts it once, and a range may end with it.
    last = 6 if kind.high == 7 else kind.high
    if match["low"] == "*":
        return kind.low, last
    low = _number(match["low"], kind, term)
    if match["high"] is None:
        return low, low if match["step"] is None else max(low, last)
    high = _number(match["high"], kind, term)
    if match["high"] == "sun" and low > 0:
        high = 7
    if high < low:
        raise CronError(f"{kind.name}: expected a range that rises, got {term!r}; write its two parts as a list")
    return low, high


def _number(text: str, kind: _Kind, term: str) -> int:
    if text in kind.names:
        return kind.names.index(text) + kind.first
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else -1
    if not kind.low <= number <= kind.high:
        raise CronError(f"{kind.name}: expected {kind.expected()}, got {term!r}")
    return number


def _step(text: str | None, kind: _Kind, term: str) -> int:
    if text is None:
        return 1
    count = (6 if kind.high == 7 else kind.high) - kind.low + 1
    step = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
    if not 0 < step <= count:
        raise CronError(f"{kind.name}: expected a step from 1 to {count}, got {term!r}")
    return step
