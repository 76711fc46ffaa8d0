"""Cron expressions: five fields to the next time they fire, in any zone, over clock changes. Pure: no clock, no I/O.

Day rule as in Vixie cron: where day of month and day of week are both restricted (neither begins with `*`), either may match, else
both must. Where minute or hour begins with `*` the expression is an *interval*: it fires at each real minute whose local time
matches, so twice in an hour that the clocks repeat and not in one that they leave out. All others name *fixed times*: one that does
not exist fires at the next minute that does, and one that is repeated fires once, the first time.
"""

from __future__ import annotations

import calendar
import difflib
import itertools
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

_MONTHS: Final = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
_DAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
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
    _Kind("month", 1, 12, tuple(name[:3].lower() for name in _MONTHS), 1),
    _Kind("day of week", 0, 7, tuple(name[:3].lower() for name in _DAYS), 0),
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
        return day.month in self.months and self._matches(day.day, day.isoweekday() % 7)

    def matches(self, local: datetime) -> bool:
        """Whether the fields fit this local time, to the minute. Says nothing about clock changes."""
        return local.minute in self.minutes and local.hour in self.hours and self.on(local.date())

    def _matches(self, day: int, weekday: int) -> bool:
        if self.either_day:
            return day in self.days or weekday in self.weekdays
        return day in self.days and weekday in self.weekdays


# ── reading an expression ───────────────────────────────────────────────────────────────────────────────────────────


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
        named = " or ".join(_MONTHS[month - 1] for month in months)
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


# ── zones ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=512)
def zone(name: str) -> ZoneInfo:
    """The time zone of that IANA name, such as `Europe/Berlin` or `UTC`. Raises CronError with the nearest name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError):
        near = difflib.get_close_matches(str(name), available_timezones(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise CronError(f"expected a time zone such as Europe/Berlin or UTC, got {name!r}{hint}") from None


# ── when it fires ───────────────────────────────────────────────────────────────────────────────────────────────────

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - local times are counted without a zone
_MINUTE: Final = timedelta(minutes=1)
_LAST_YEAR: Final = 9990
_SEARCHED_MONTHS: Final = 12 * 50
"""A 29 February on a given day of the week comes at most 40 years after the last one."""
_NEAR: Final = 26 * 3600
"""Seconds: no zone's clock ever moved by more."""
_PROBE: Final = 12 * 3600
"""Seconds between two looks for a change of a zone's offset; changes that undo one another lie further apart."""


def next_fire(cron: Cron, after: int, tz: ZoneInfo) -> int | None:
    """The first fire strictly later than `after`, both in Unix milliseconds; None beyond the year 9990.

    The cost is that of a few dates, however far away the fire is.
    """
    start = after // 1000 + 1
    if start > _seconds(datetime(_LAST_YEAR, 1, 1)):  # noqa: DTZ001
        return None
    found = _next_real_minute(cron, start, tz) if cron.interval else _next_fixed_time(cron, start, tz)
    return None if found is None else found * 1000


def fires(cron: Cron, after: int, tz: ZoneInfo) -> Iterator[int]:
    """Every fire strictly later than `after`, in order."""
    found = next_fire(cron, after, tz)
    while found is not None:
        yield found
        found = next_fire(cron, found, tz)


def _next_fixed_time(cron: Cron, start: int, tz: ZoneInfo) -> int | None:
    local = _next_local(cron, _local(start, tz))
    while local is not None:
        found = _first_instant(local, tz)
        if found >= start:
            return found
        # It came already: in the first pass of a repeated hour, or at the end of one that was left out.
        local = _next_local(cron, local + _MINUTE)
    return None


def _next_real_minute(cron: Cron, start: int, tz: ZoneInfo) -> int | None:
    while True:
        offset = _offset(start, tz)
        local = _next_local(cron, _EPOCH + timedelta(seconds=start + offset))
        if local is None:
            return None
        found = _seconds(local) - offset
        # Only a change of the clocks that is close to either end can bring another match in between.
        far = found - start > 2 * _NEAR
        change = _next_change(start, start + _NEAR if far else found, tz)
        if change is not None:
            start = change
        elif far:
            start = found - _NEAR
        else:
            return found


def _next_local(cron: Cron, local: datetime) -> datetime | None:
    """The first local time at or after this one that fits the fields."""
    if local.second or local.microsecond:
        local = local.replace(second=0, microsecond=0) + _MINUTE
    day = local.date()
    if cron.on(day):
        found = _next_in_day(cron, local.hour, local.minute)
        if found is not None:
            return datetime.combine(day, found)
    later = _next_day(cron, day)
    return None if later is None else datetime.combine(later, time(cron.hours[0], cron.minutes[0]))


def _next_in_day(cron: Cron, hour: int, minute: int) -> time | None:
    at = bisect_left(cron.hours, hour)
    if at < len(cron.hours) and cron.hours[at] == hour:
        index = bisect_left(cron.minutes, minute)
        if index < len(cron.minutes):
            return time(hour, cron.minutes[index])
        at += 1
    return time(cron.hours[at], cron.minutes[0]) if at < len(cron.hours) else None


def _next_day(cron: Cron, day: date) -> date | None:
    year, month, first = day.year, day.month, day.day + 1
    for _ in range(_SEARCHED_MONTHS + 1):
        if month in cron.months:
            begins, length = calendar.monthrange(year, month)
            for number in range(first, length + 1):
                if cron._matches(number, (begins + number) % 7):
                    return date(year, month, number)
        first, month = 1, month + 1
        if month > 12:
            year, month = year + 1, 1
            if year > _LAST_YEAR:
                return None
    return None


def _first_instant(local: datetime, tz: ZoneInfo) -> int:
    """Unix seconds of a local time: its first pass if it is repeated, the next whole minute that exists if it is left out."""
    before, after = (round(local.replace(tzinfo=tz, fold=fold).utcoffset().total_seconds()) for fold in (0, 1))  # type: ignore[union-attr]
    found = _seconds(local) - before
    if before >= after:
        return found
    change = _next_change(_seconds(local) - after, found, tz)
    if change is None:
        return found
    return change + -_local(change, tz).second % 60


def _next_change(start: int, end: int, tz: ZoneInfo) -> int | None:
    """The first second in (start, end] at which the zone's offset is not what it is at `start`."""
    offset = _offset(start, tz)
    while start < end:
        probe = min(start + _PROBE, end)
        if _offset(probe, tz) != offset:
            while probe - start > 1:
                middle = (start + probe) // 2
                if _offset(middle, tz) == offset:
                    start = middle
                else:
                    probe = middle
            return probe
        start = probe
    return None


def _local(seconds: int, tz: ZoneInfo) -> datetime:
    return _EPOCH + timedelta(seconds=seconds + _offset(seconds, tz))


def _offset(seconds: int, tz: ZoneInfo) -> int:
    return round((datetime.fromtimestamp(seconds, UTC).astimezone(tz).utcoffset() or timedelta()).total_seconds())


def _seconds(local: datetime) -> int:
    return (local - _EPOCH) // timedelta(seconds=1)


# ── in words ────────────────────────────────────────────────────────────────────────────────────────────────────────


def describe(cron: Cron) -> str:
    """The expression in one line of words, such as `at 09:00 on Monday to Friday`."""
    return " ".join(part for part in (_time_words(cron), _day_words(cron), _month_words(cron)) if part)


def _time_words(cron: Cron) -> str:
    every_minute = len(cron.minutes) == 60
    if not every_minute and not cron.stars[1] and len(cron.minutes) * len(cron.hours) <= 6:
        return "at " + _listed([f"{hour:02}:{minute:02}" for hour in cron.hours for minute in cron.minutes])
    step = _stride(cron.minutes, 60)
    if every_minute:
        words = "every minute"
    elif step is not None:
        words = f"every {step} minutes"
    else:
        words = f"at minute {_spans(cron.minutes)}"
    if len(cron.hours) == 24:
        return words if every_minute or step is not None else f"{words} of every hour"
    return f"{words} of hour {_spans(cron.hours)}"


def _day_words(cron: Cron) -> str:
    any_day, any_weekday = len(cron.days) == 31, len(cron.weekdays) == 7
    days = f"on day {_spans(cron.days)} of the month" if not cron.stars[2] else ""
    weekdays = f"on {_weekday_spans(cron.weekdays)}" if not cron.stars[4] else ""
    if cron.either_day:
        return "every day" if any_day or any_weekday else f"{days} or {weekdays}"
    if any_day and any_weekday:
        return "every day" if not cron.interval else ""
    if any_day or any_weekday:
        return weekdays if any_day else days
    return f"{days} if it is {weekdays.removeprefix('on ')}"


def _month_words(cron: Cron) -> str:
    return "" if len(cron.months) == 12 else f"in {_spans(cron.months, [*_MONTHS], 1)}"


def _stride(values: tuple[int, ...], whole: int) -> int | None:
    """n where the values are those of `*/n` and n divides the whole; else None."""
    if len(values) < 2 or values[0] != 0:
        return None
    step = values[1]
    return step if step > 1 and whole % step == 0 and values == tuple(range(0, whole, step)) else None


def _weekday_spans(values: tuple[int, ...]) -> str:
    # Weeks are read from Monday on, so that Friday to Sunday is one span.
    return _spans(tuple(sorted((day - 1) % 7 for day in values)), [*_DAYS[1:], _DAYS[0]], 0)


def _spans(values: tuple[int, ...], names: list[str] | None = None, first: int = 0) -> str:
    named = (lambda value: names[value - first]) if names else str
    steps = {later - value for value, later in itertools.pairwise(values)}
    if len(values) > 3 and len(steps) == 1 and 1 not in steps:
        return f"{named(values[0])} to {named(values[-1])} in steps of {steps.pop()}"
    spans: list[list[int]] = []
    for value in values:
        if spans and value == spans[-1][1] + 1:
            spans[-1][1] = value
        else:
            spans.append([value, value])
    return _listed([word for low, high in spans for word in _span_words(named(low), named(high), high - low)])


def _span_words(low: str, high: str, length: int) -> list[str]:
    return [low] if length == 0 else [low, high] if length == 1 else [f"{low} to {high}"]


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
