"""A cron expression in one line of words."""

from __future__ import annotations

import itertools

from inferq.cron.expression import DAYS, MONTHS, Cron


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
    return "" if len(cron.months) == 12 else f"in {_spans(cron.months, [*MONTHS], 1)}"


def _stride(values: tuple[int, ...], whole: int) -> int | None:
    """n where the values are those of `*/n` and n divides the whole; else None."""
    if len(values) < 2 or values[0] != 0:
        return None
    step = values[1]
    return step if step > 1 and whole % step == 0 and values == tuple(range(0, whole, step)) else None


def _weekday_spans(values: tuple[int, ...]) -> str:
    # Weeks are read from Monday on, so that Friday to Sunday is one span.
    return _spans(tuple(sorted((day - 1) % 7 for day in values)), [*DAYS[1:], DAYS[0]], 0)


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
