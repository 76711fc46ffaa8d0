"""Cron expressions: what is read, what is refused and how, and when they fire, against a walk over every minute."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferq.cron import CronError, describe, fires, next_fire, parse, zone

MINUTE = 60_000


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def local_fires(expression: str, tz: str, after: str, count: int) -> list[str]:
    found = itertools.islice(fires(parse(expression), ms(after), zone(tz)), count)
    return [datetime.fromtimestamp(at / 1000, zone(tz)).isoformat(timespec="minutes") for at in found]


# reading -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "field", "values"),
    [
        ("5 * * * *", "minutes", (5,)),
        ("*/20 * * * *", "minutes", (0, 20, 40)),
        ("10-30/10 * * * *", "minutes", (10, 20, 30)),
        ("50/5 * * * *", "minutes", (50, 55)),
        ("1,7-9,58/1 * * * *", "minutes", (1, 7, 8, 9, 58, 59)),
        ("0 22-23,0-2 * * *", "hours", (0, 1, 2, 22, 23)),
        ("0 0 1 JAN,apr-Jun *", "months", (1, 4, 5, 6)),
        ("0 0 * * mon-fri", "weekdays", (1, 2, 3, 4, 5)),
        ("0 0 * * fri-sun", "weekdays", (0, 5, 6)),
        ("0 0 * * sun-tue", "weekdays", (0, 1, 2)),
        ("0 0 * * 5-7", "weekdays", (0, 5, 6)),
        ("0 0 * * 0,7", "weekdays", (0,)),
        ("0 0 * * */2", "weekdays", (0, 2, 4, 6)),
        ("@weekly", "weekdays", (0,)),
        ("  @Hourly ", "minutes", (0,)),
    ],
)
def test_fields_take_lists_ranges_steps_names_and_seven_for_sunday(expression: str, field: str, values: tuple[int, ...]) -> None:
    assert getattr(parse(expression), field) == values


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "expected five fields"),
        ("* * * *", "got 4"),
        ("0 * * * * *", "no field for seconds"),
        ("60 * * * *", "minute: expected 0 to 59"),
        ("* 24 * * *", "hour: expected 0 to 23"),
        ("* * 0 * *", "day of month: expected 1 to 31"),
        ("* * * 13 *", "month: expected 1 to 12 or jan to dec"),
        ("* * * * 8", "day of week: expected 0 to 7 or sun to sat"),
        ("* * * * moon", "got 'moon'"),
        ("*/0 * * * *", "minute: expected a step from 1 to 60, got '*/0'"),
        ("*/90 * * * *", "minute: expected a step from 1 to 60"),
        ("22-2 * * * *", "minute: expected a range that rises"),
        ("1--2 * * * *", "minute: expected"),
        ("*-5 * * * *", "minute: expected"),
        ("1, * * * *", "minute: expected"),
        ("-1 * * * *", "minute: expected"),
        ("1.5 * * * *", "minute: expected"),
        ("٣ * * * *", "minute: expected"),
        ("0 0 L * *", "day of month: expected"),
        ("@often", "expected a macro (@hourly"),
        ("@reboot", "expected a macro (@hourly"),
        ("0 0 31 2 *", "February has, got '31': this date never comes"),
        ("0 0 31 apr,jun *", "April or June has"),
    ],
)
def test_a_mistake_names_the_field_and_what_is_right(expression: str, said: str) -> None:
    with pytest.raises(CronError) as caught:
        parse(expression)
    assert said in str(caught.value)


@given(st.text(max_size=20) | st.lists(st.text("0123456789*/-,amonju", min_size=1, max_size=5), min_size=5, max_size=5).map(" ".join))
def test_any_text_is_read_or_refused_with_our_error(text: str) -> None:
    try:
        cron = parse(text)
    except CronError:
        return
    assert describe(cron)
    assert next_fire(cron, ms("2026-01-01T00:00:00Z"), zone("UTC")) is not None


def test_an_unknown_zone_is_refused_with_the_nearest_name() -> None:
    for wrong in ("Europe/Berln", "", "../etc/passwd", "Mars/Olympus"):
        with pytest.raises(CronError, match="expected a time zone"):
            zone(wrong)
    with pytest.raises(CronError, match="did you mean Europe/Berlin"):
        zone("Europe/Berln")


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("* * * * *", "every minute"),
        ("*/5 * * * *", "every 5 minutes"),
        ("@hourly", "at minute 0 of every hour"),
        ("@daily", "at 00:00 every day"),
        ("0 9 * * 1-5", "at 09:00 on Monday to Friday"),
        ("30 2 1 * *", "at 02:30 on day 1 of the month"),
        ("0 9 13 * 5", "at 09:00 on day 13 of the month or on Friday"),
        ("0 9,17 * * sat,sun", "at 09:00 and 17:00 on Saturday and Sunday"),
        ("*/10 9-17 * * mon-fri", "every 10 minutes of hour 9 to 17 on Monday to Friday"),
        ("0 */2 * * *", "at minute 0 of hour 0 to 22 in steps of 2"),
        ("0 0 1 1,3-5 *", "at 00:00 on day 1 of the month in January and March to May"),
    ],
)
def test_an_expression_is_told_in_words(expression: str, words: str) -> None:
    assert describe(parse(expression)) == words


# firing --------------------------------------------------------------------------------------------------------------


def test_restricted_days_of_month_and_week_are_alternatives_and_a_star_is_not() -> None:
    either = local_fires("0 0 13 * 5", "UTC", "2026-02-01T00:00:00Z", 5)
    assert [text[:10] for text in either] == ["2026-02-06", "2026-02-13", "2026-02-20", "2026-02-27", "2026-03-06"]
    both = local_fires("0 0 */2 * 1", "UTC", "2026-02-01T00:00:00Z", 2)
    assert [text[:10] for text in both] == ["2026-02-09", "2026-02-23"]


def test_rare_dates_come_when_they_come() -> None:
    assert local_fires("0 12 29 2 *", "UTC", "2026-01-01T00:00:00Z", 2) == ["2028-02-29T12:00+00:00", "2032-02-29T12:00+00:00"]
    assert local_fires("0 0 29 2 */7", "Europe/Berlin", "2089-01-01T00:00:00Z", 1) == ["2128-02-29T00:00+01:00"]


def test_a_left_out_time_fires_at_the_next_minute_that_exists_and_once() -> None:
    after = "2026-03-28T12:00:00Z"
    assert local_fires("30 2 * * *", "Europe/Berlin", after, 2) == ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]
    found = local_fires("0,30 2,3 * * *", "Europe/Berlin", after, 3)
    assert found == ["2026-03-29T03:00+02:00", "2026-03-29T03:30+02:00", "2026-03-30T02:00+02:00"]
    assert local_fires("0 0 * * *", "America/Havana", "2026-03-07T12:00:00Z", 1) == ["2026-03-08T01:00-04:00"]


def test_a_repeated_time_fires_once_the_first_time() -> None:
    found = local_fires("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2)
    assert found == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]
    between = local_fires("30 2 * * *", "Europe/Berlin", "2026-10-25T01:15:00Z", 1)  # 02:15, the second time
    assert between == ["2026-10-26T02:30+01:00"]


def test_intervals_count_real_minutes_through_a_repeated_hour() -> None:
    found = local_fires("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z", 6)
    assert found[:5] == [
        "2026-10-25T02:00+02:00",
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:00+01:00",
        "2026-10-25T02:30+01:00",
        "2026-10-25T03:00+01:00",
    ]
    assert local_fires("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 1) == ["2026-03-30T02:00+02:00"]


def test_nothing_fires_beyond_the_end_of_time() -> None:
    assert next_fire(parse("* * * * *"), ms("9990-01-01T00:00:00Z"), zone("UTC")) is None
    assert next_fire(parse("* * * * *"), 2**53, zone("Europe/Berlin")) is None
    assert next_fire(parse("0 0 29 2 *"), ms("9988-03-01T00:00:00Z"), zone("UTC")) is None


# against every minute --------------------------------------------------------------------------------------------------

CHANGES = (
    ("UTC", "2026-06-01T00:00:00Z"),
    ("Europe/Berlin", "2026-03-29T01:00:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00:00Z"),
    ("America/New_York", "2026-03-08T07:00:00Z"),
    ("America/New_York", "2026-11-01T06:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),  # half an hour back
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("America/Havana", "2026-03-08T05:00:00Z"),  # at midnight
    ("America/Havana", "2026-11-01T05:00:00Z"),
    ("Africa/Cairo", "2026-04-23T22:00:00Z"),
    ("Antarctica/Troll", "2026-03-29T01:00:00Z"),  # two hours
    ("Antarctica/Troll", "2026-10-25T01:00:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),  # a whole day left out
    ("America/St_Johns", "2010-11-07T02:31:00Z"),  # at one minute past midnight, half an hour off UTC
    ("Asia/Kathmandu", "2026-01-01T00:00:00Z"),
)

numbers = st.one_of(st.just("*"), st.builds("*/{}".format, st.integers(1, 12)))


def field(low: int, high: int) -> st.SearchStrategy[str]:
    value = st.integers(low, high)
    span = st.tuples(value, value).map(lambda pair: f"{min(pair)}-{max(pair)}")
    stepped = st.builds("{}/{}".format, span, st.integers(1, 7))
    listed = st.lists(st.one_of(value.map(str), span, stepped), min_size=1, max_size=3).map(",".join)
    return st.one_of(st.just("*"), st.integers(1, high).map("*/{}".format) if high < 32 else st.integers(1, 59).map("*/{}".format), listed)


expressions = st.builds(
    "{} {} {} {} {}".format,
    field(0, 59),
    field(0, 23),
    st.one_of(st.just("*"), field(1, 28)),
    st.one_of(st.just("*"), field(1, 12)),
    st.one_of(st.just("*"), field(0, 6)),
)


def walk(expression: str, tz: str, start: int, end: int) -> list[int]:
    """Every fire in (start, end], by looking at each minute; times that are left out count for the minute after them."""
    cron, place, found = parse(expression), zone(tz), []
    before = datetime.fromtimestamp(start / 1000, place)
    for at in range(start // MINUTE * MINUTE + MINUTE, end + 1, MINUTE):
        local = datetime.fromtimestamp(at / 1000, place)
        if cron.interval:
            hit = cron.matches(local)
        else:
            left_out = before.replace(tzinfo=None) + timedelta(minutes=1)
            hit = cron.matches(local) and not local.fold
            while left_out < local.replace(tzinfo=None):
                hit = hit or cron.matches(left_out)
                left_out += timedelta(minutes=1)
        if hit:
            found.append(at)
        before = local
    return found


@settings(max_examples=150, deadline=None)
@given(expressions, st.sampled_from(CHANGES), st.integers(-2 * 1440, 1440))
def test_fires_are_those_of_a_walk_over_every_minute_around_clock_changes(expression: str, change: tuple[str, str], shift: int) -> None:
    tz, at = change
    start = ms(at) + shift * MINUTE
    end = start + 2 * 1440 * MINUTE
    found = list(itertools.takewhile(lambda fire: fire <= end, fires(parse(expression), start, zone(tz))))
    assert found == walk(expression, tz, start, end)


@settings(max_examples=300, deadline=None)
@given(expressions, st.sampled_from(CHANGES), st.integers(0, 2**41))
def test_the_next_fire_is_strictly_later_on_a_day_that_fits_and_none_comes_before_it(
    expression: str, change: tuple[str, str], after: int
) -> None:
    cron, place = parse(expression), zone(change[0])
    fire = next_fire(cron, after, place)
    assert fire is not None
    assert fire > after
    assert fire % 1000 == 0
    assert next_fire(cron, fire - 1, place) == fire
    # From anywhere in between it is the same one: asking is walking, whatever the step.
    assert next_fire(cron, (after + fire - 1) // 2, place) == fire
    local = datetime.fromtimestamp(fire / 1000, UTC).astimezone(place)
    if cron.interval:
        assert cron.matches(local)
