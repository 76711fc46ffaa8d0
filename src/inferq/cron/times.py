"""When an expression fires next in a zone: found by dates, never by walking minutes, whatever the clocks of the zone do."""

from __future__ import annotations

import calendar
import difflib
from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from inferq.cron.expression import Cron, CronError

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - local times are counted without a zone
_MINUTE: Final = timedelta(minutes=1)
_LAST_YEAR: Final = 9990
_SEARCHED_MONTHS: Final = 12 * 50
"""A 29 February on a given day of the week comes at most 40 years after the last one."""
_NEAR: Final = 26 * 3600
"""Seconds: no zone's clock ever moved by more."""
_PROBE: Final = 12 * 3600
"""Seconds between two looks for a change of a zone's offset; changes that undo one another lie further apart."""


@lru_cache(maxsize=512)
def zone(name: str) -> ZoneInfo:
    """The time zone of that IANA name, such as `Europe/Berlin` or `UTC`. Raises CronError with the nearest name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError):
        near = difflib.get_close_matches(str(name), available_timezones(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise CronError(f"expected a time zone such as Europe/Berlin or UTC, got {name!r}{hint}") from None


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
                if cron.fits(number, (begins + number) % 7):
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
