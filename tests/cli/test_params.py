"""What people write becomes values, and what cannot is refused with what was expected."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from inferq.cli import params


@pytest.mark.parametrize(
    ("text", "role", "content"),
    [
        ("user:Hello, how are you?", "user", "Hello, how are you?"),
        ("system: Be brief, please", "system", "Be brief, please"),
        ("USER:shouting", "user", "shouting"),
        ("user:at 10:30, say: hi", "user", "at 10:30, say: hi"),
        ("assistant:", "assistant", ""),
        ("Note: this is no role", "user", "Note: this is no role"),
        ("https://example.com, please", "user", "https://example.com, please"),
        ("no colon, two commas, one text", "user", "no colon, two commas, one text"),
        ("user:\n  indented", "user", "\n  indented"),
    ],
)
def test_a_message_is_split_at_its_first_colon_and_only_after_a_known_role(text: str, role: str, content: str) -> None:
    assert params.message(text) == {"role": role, "content": content}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("temperature=0.2", ("temperature", 0.2)),
        ('stop=["a", "b"]', ("stop", ["a", "b"])),
        ("format=json", ("format", "json")),
        ("empty=", ("empty", "")),
        ("a=b=c", ("a", "b=c")),
        ("odd=NaN", ("odd", "NaN")),
        ("on=true", ("on", True)),
    ],
)
def test_a_pair_is_json_where_it_can_be_and_text_elsewhere(text: str, value: object) -> None:
    assert params.pair(text) == value


@pytest.mark.parametrize("text", ["no-equals", "=5", "  =5"])
def test_a_pair_without_a_name_or_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected NAME=VALUE"):
        params.pair(text)


def test_an_instant_needs_its_zone() -> None:
    assert params.instant("2027-01-31T10:00:00Z") == datetime(2027, 1, 31, 10, tzinfo=UTC)
    assert params.instant("2027-01-31T10:00:00+01:00") == datetime(2027, 1, 31, 9, tzinfo=UTC)
    for text in ("2027-01-31T10:00:00", "2027-01-31", "tomorrow 9:00", ""):
        with pytest.raises(ValueError, match="expected a time with its zone"):
            params.instant(text)


def test_until_is_a_duration_or_an_instant() -> None:
    assert params.duration_or_instant("1h30m") == 5400
    assert params.duration_or_instant("2027-01-31T10:00:00Z") == datetime(2027, 1, 31, 10, tzinfo=UTC)
    with pytest.raises(ValueError, match="a duration such as 10m or a time"):
        params.duration_or_instant("soon")


def test_since_looks_back_from_now_or_from_a_day() -> None:
    now = datetime.now(UTC).timestamp() * 1000
    assert abs(params.since("2h") - (now - 7_200_000)) < 5_000
    assert params.since("2027-01-31T00:00:00Z") == 1_801_353_600_000
    assert params.since("2027-01-31") == int(datetime(2027, 1, 31).astimezone().timestamp() * 1000)
    with pytest.raises(ValueError, match="expected a duration such as 2h"):
        params.since("long ago")


def test_a_place_is_an_attempt_and_an_index() -> None:
    assert params.place("2-15") == (2, 15)
    for text in ("2", "a-b", "-5", "1-"):
        with pytest.raises(ValueError, match="ATTEMPT-INDEX"):
            params.place(text)


def test_comma_lists_are_for_filters() -> None:
    assert params.comma_list(" a, b ,,c") == ("a", "b", "c")
    assert params.priorities("low,7,-2") == (1, 7, -2)
    assert [str(state) for state in params.states("failed,Running")] == ["failed", "running"]
    with pytest.raises(ValueError, match="expected one of scheduled, pending"):
        params.states("failed,done")
