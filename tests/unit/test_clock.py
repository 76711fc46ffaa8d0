"""Time as a value: durations in every accepted form, the machine's clocks, and the tools by which tests own time."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.clock import Now, SystemClock, seconds
from inferq.testing import FakeClock, wait_until


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (30, 30.0),
        (0, 0.0),
        (1.5, 1.5),
        ("1.5", 1.5),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("250ms", 0.25),
        ("1m250ms", 60.25),
        ("2d", 172_800.0),
        ("1d2h3m4s5ms", 93_784.005),
        (" 10s ", 10.0),
        ("0.5h", 1800.0),
        ("0s", 0.0),
        (timedelta(minutes=2), 120.0),
    ],
)
def test_a_duration_is_read_in_seconds(value: float | str | timedelta, expected: float) -> None:
    assert seconds(value) == pytest.approx(expected)


@pytest.mark.parametrize(
    "value", ["", " ", "ten", "10x", "10 m", "1m1h", "-5s", "-5", -1, True, float("nan"), float("inf"), "nan", "inf", timedelta(seconds=-1)]
)
def test_what_is_no_duration_is_refused_with_what_was_expected(value: float | str | timedelta) -> None:
    with pytest.raises(ValueError, match="expected a"):
        seconds(value)


@given(st.floats(0, 1e12))
def test_a_number_of_seconds_is_itself_as_text_too(value: float) -> None:
    assert seconds(value) == seconds(str(value)) == value


@given(st.integers(0, 30), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_parts_of_a_duration_add_up(days: int, hours: int, minutes: int, secs: int, ms: int) -> None:
    expected = timedelta(days=days, hours=hours, minutes=minutes, seconds=secs, milliseconds=ms)
    assert seconds(f"{days}d{hours}h{minutes}m{secs}s{ms}ms") == pytest.approx(expected.total_seconds())


def test_the_systems_clock_reads_both_clocks_in_milliseconds() -> None:
    wall, mono = time.time(), time.monotonic()
    now = SystemClock().read()
    assert abs(now.wall / 1000 - wall) < 5
    assert abs(now.mono / 1000 - mono) < 5


def test_time_that_passes_moves_both_clocks() -> None:
    clock = FakeClock(wall=1000, mono=10)
    assert clock.advance(1.5) == clock.read() == Now(2500, 1510)


def test_a_step_moves_the_wall_clock_alone() -> None:
    clock = FakeClock(wall=5_000_000, mono=10)
    assert clock.step(-3600) == Now(5_000_000 - 3_600_000, 10)


def test_time_does_not_pass_backwards() -> None:
    with pytest.raises(ValueError, match="step"):
        FakeClock().advance(-1)


async def test_waiting_ends_with_what_the_condition_gave() -> None:
    seen: list[int] = []

    def third() -> int:
        seen.append(len(seen))
        return seen[-1] if len(seen) == 3 else 0

    assert await wait_until(third) == 2


async def test_a_condition_may_be_asynchronous() -> None:
    async def now() -> str:
        return "yes"

    assert await wait_until(now) == "yes"


async def test_a_condition_that_never_comes_true_fails_with_what_was_waited_for() -> None:
    with pytest.raises(AssertionError, match="the moon within 0 s; last seen: None"):
        await wait_until(lambda: None, timeout=0, what="the moon")
