"""What callers give comes into one form, and a wrong value names its field."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from inferq.errors import InvalidTask
from inferq.given import LONGEST, checked_instant, checked_priority, checked_seconds, checked_text


@pytest.mark.parametrize(
    ("read", "value", "found"),
    [
        (checked_priority, "high", 10),
        (checked_priority, -3, -3),
        (checked_seconds, "1h30m", 5400.0),
        (checked_seconds, timedelta(minutes=1), 60.0),
        (checked_seconds, LONGEST, LONGEST),
        (checked_seconds, None, None),
        (checked_instant, datetime(1970, 1, 2, tzinfo=UTC), 86_400_000),
        (checked_instant, "1970-01-02T01:00:00+01:00", 86_400_000),
        (checked_instant, 7, 7),
        (checked_instant, None, None),
        (checked_text, "ä", "ä"),
    ],
)
def test_a_value_comes_into_one_form(read: Callable[[Any, str], Any], value: object, found: object) -> None:
    assert read(value, "f") == found


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (checked_priority, "urgent"),
        (checked_priority, True),
        (checked_seconds, -1),
        (checked_seconds, [1]),
        (checked_seconds, 10**400),
        (checked_seconds, LONGEST + 1),
        (checked_seconds, float("inf")),
        (checked_instant, datetime(2027, 1, 1)),  # noqa: DTZ001 - the mistake under test
        (checked_instant, "tomorrow"),
        (checked_text, ""),
        (checked_text, "\ud800"),
        (checked_text, "a\x00"),
    ],
)
def test_a_wrong_value_names_its_field(read: Callable[[Any, str], Any], value: object) -> None:
    with pytest.raises(InvalidTask, match=r"^limits\.f: expected ") as caught:
        read(value, "limits.f")
    assert caught.value.field == "limits.f"
