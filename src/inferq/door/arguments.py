"""What callers give to the methods of a queue, checked and brought into one form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from inferq.clock import Clock
from inferq.errors import InvalidTask, TaskNotFound
from inferq.given import checked_instant, checked_seconds, is_text
from inferq.handle import Duration
from inferq.store import Position

Given = TypeVar("Given")
Made = TypeVar("Made")

_LARGEST_POSITION: Final = 2**53
_LARGEST_PLACE: Final = (10**9, 10**12)
"""Of attempt and index; the wire says the same."""
Moment = datetime | Duration
"""An aware datetime, or a duration from now."""


def instant_of(moment: Moment | None, field: str, clock: Clock) -> int | None:
    """Unix milliseconds of a moment. Raises InvalidTask naming the field."""
    if moment is None or isinstance(moment, datetime):
        return checked_instant(moment, field)
    return clock.read().wall + round(checked_seconds(moment, field) * 1000)


def prepared(given: Iterable[Given], make: Callable[[Given], Made]) -> list[Made]:
    """Each of the submissions made ready to be kept. Raises InvalidTask, which names the wrong one: `submissions[3].payload...`."""
    whole: Any = given
    if not isinstance(whole, Iterable) or isinstance(whole, str | bytes | Mapping):
        raise InvalidTask(f"expected a list of submissions, got {type(whole).__name__}", field="submissions")
    made = []
    for index, one in enumerate(given):
        try:
            made.append(make(one))
        except InvalidTask as error:
            raise error.within(f"submissions[{index}]") from None
    return made


def checked_place(after: Position) -> Position:
    """A place in a task's stream. Raises InvalidTask."""
    numbers = (after.attempt, after.index) if type(after) is Position else (-1, -1)
    if not all(type(number) is int and 0 <= number < limit for number, limit in zip(numbers, _LARGEST_PLACE, strict=True)):
        raise InvalidTask(f"expected a place in a stream such as Position(1, 42), got {after!r}", field="after")
    return after


def checked_ids(ids: Sequence[str]) -> Sequence[str]:
    """Raises TaskNotFound for what cannot be an id."""
    for id in ids:
        if not is_text(id):
            raise TaskNotFound(f"expected the id of a task, got {id!r}")
    return ids


def checked_position(after: int | None) -> int | None:
    """A place in the event log. Raises InvalidTask."""
    if after is not None and (type(after) is not int or not 0 <= after < _LARGEST_POSITION):
        raise InvalidTask(
            f"expected the position of an event (0 is the beginning of the log) or None for from now on, got {after!r}", field="after"
        )
    return after
