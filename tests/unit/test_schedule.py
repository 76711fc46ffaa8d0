"""What a schedule asks for: misfires, overlaps, clocks that step, and the task that a fire makes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.cron import fires, parse, zone
from inferq.schedule import GRACE, Schedule, Step, decoded, encoded, next_step, rendered, task_of, timed
from inferq.task import Submission

HOUR = 3_600_000
START = round(datetime.fromisoformat("2026-11-22T09:00:00Z").timestamp() * 1000)


def schedule(expression: str = "0 * * * *", *, at: int = START, **fields: Any) -> Schedule:
    task = fields.pop("task", Submission("echo", "chat", "m", {"messages": []}))
    return timed(Schedule(id="s1", name="hourly", expression=expression, task=task, **fields), at)


def steps(given: Schedule, now: int, active: list[str] | None = None) -> tuple[list[Step], Schedule]:
    """Every step that it asks for now; the tasks it makes do not run on."""
    made: list[Step] = []
    while (step := next_step(given, now, active or [])) is not None and step.schedule is not given:
        made.append(step)
        given = step.schedule
    return made, given


def fired(made: list[Step]) -> list[int]:
    return [step.fire for step in made if step.task is not None]


# when ----------------------------------------------------------------------------------------------------------------


def test_a_new_schedule_waits_for_its_first_time() -> None:
    new = schedule()
    assert (new.next_fire, new.due) == (START + HOUR, START + HOUR)
    assert next_step(new, START + HOUR - 1, []) is None
    made, after = steps(new, START + HOUR)
    assert fired(made) == [START + HOUR]
    assert (after.mark, after.last_fire, after.fire_count, after.next_fire) == (START + HOUR, START + HOUR, 1, START + 2 * HOUR)
    assert after.last_task == made[0].task.id  # type: ignore[union-attr]
    assert next_step(after, START + HOUR, []) is None


def test_a_disabled_schedule_does_nothing_and_has_no_due_time() -> None:
    off = timed(msgspec.structs.replace(schedule(), enabled=False), START)
    assert next_step(off, START + 5 * HOUR, []) is None
    assert off.due is None


def test_counting_from_now_on_leaves_no_burst_behind() -> None:
    again = timed(schedule(), START + 100 * HOUR)
    assert next_step(again, START + 100 * HOUR, []) is None
    assert again.next_fire == START + 101 * HOUR


def test_jitter_is_a_part_of_its_bound_and_always_the_same() -> None:
    late = schedule(jitter=600.0)
    assert 0 < late.offset < 600_000
    assert msgspec.structs.replace(late, id="s2").offset != late.offset
    assert msgspec.structs.replace(late, fire_count=9).offset == late.offset
    assert next_step(late, START + HOUR + late.offset - 1, []) is None
    made, _ = steps(late, START + HOUR + late.offset)
    assert fired(made) == [START + HOUR]


# misfires ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("misfire", "window", "expected"),
    [
        ("skip", 3 * 3600.0, []),
        ("once", 3 * 3600.0, [10]),
        ("once", 60.0, []),
        ("all", 3 * 3600.0, [8, 9, 10]),
        ("all", 7 * 86_400.0, list(range(1, 11))),
    ],
)
def test_after_downtime_the_policy_decides_what_is_made_up_for(misfire: str, window: float, expected: list[int]) -> None:
    now = START + 10 * HOUR + HOUR // 2
    made, after = steps(schedule(misfire=misfire, window=window), now)
    assert [(fire - START) // HOUR for fire in fired(made)] == expected
    assert sum(skip.count for step in made for skip in step.skipped) == 10 - len(expected)
    assert next_step(after, now, []) is None
    assert after.next_fire == START + 11 * HOUR
    if len(expected) < 10:
        assert after.last_skip is not None
        assert after.last_skip.reason.startswith("misfire")


@pytest.mark.parametrize("misfire", ["skip", "once", "all"])
def test_a_fire_that_is_a_little_late_is_made_whatever_the_policy(misfire: str) -> None:
    made, _ = steps(schedule(misfire=misfire, window=0.0), START + HOUR + GRACE)
    assert fired(made) == [START + HOUR]


def test_years_of_downtime_are_judged_at_once() -> None:
    made, after = steps(schedule("* * * * *"), START + 20 * 366 * 24 * HOUR)
    assert len(fired(made)) == 1
    assert after.last_skip is not None


# overlap -------------------------------------------------------------------------------------------------------------


def test_overlap_allow_runs_beside_the_last_task() -> None:
    made, _ = steps(schedule(overlap="allow"), START + HOUR, ["t1"])
    assert fired(made) == [START + HOUR]


def test_overlap_skip_makes_no_task_and_says_so() -> None:
    made, after = steps(schedule(overlap="skip"), START + HOUR, ["t1"])
    assert fired(made) == []
    assert after.mark == START + HOUR
    assert after.last_skip is not None
    assert (after.last_skip.fire, after.last_skip.reason) == (START + HOUR, "overlap: task t1 has not ended")


def test_overlap_queue_holds_one_fire_until_the_last_task_has_ended() -> None:
    made, held = steps(schedule(overlap="queue"), START + HOUR, ["t1"])
    assert (fired(made), held.held) == ([], START + HOUR)
    made, after = steps(held, START + 2 * HOUR, ["t1"])
    assert (fired(made), after.held) == ([], START + HOUR)
    assert after.last_skip is not None
    assert after.last_skip.reason == "overlap: another fire waits already"
    made, done = steps(after, START + 2 * HOUR + 1, [])
    assert (fired(made), done.held) == ([START + HOUR], None)


def test_overlap_cancel_ends_the_last_task_before_the_next_one_is_made() -> None:
    made, held = steps(schedule(overlap="cancel"), START + HOUR, ["t1"])
    assert (fired(made), made[0].cancel, held.held, held.cancelling) == ([], ("t1",), START + HOUR, ("t1",))
    repeated = next_step(held, START + HOUR, ["t1"])
    assert repeated is not None
    assert (repeated.schedule is held, repeated.cancel) == (True, ("t1",)), "who died before it cancelled is made up for"
    made, done = steps(held, START + HOUR, [])
    assert (fired(made), done.held, done.cancelling) == ([START + HOUR], None, ())


def test_overlap_cancel_names_every_task_in_the_schedule_before_it_ends_it() -> None:
    _, held = steps(schedule(overlap="cancel"), START + HOUR, ["t1"])
    other = next_step(held, START + HOUR, ["t1", "t2"])
    assert other is not None
    assert other.schedule.cancelling == other.cancel == ("t1", "t2")


# clocks --------------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(["* * * * *", "*/7 * * * *", "0,30 2 * * *", "30 1 * * *"]),
    st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
    st.sampled_from(["skip", "once", "all"]),
    st.lists(st.integers(-3 * HOUR, 5 * HOUR), min_size=1, max_size=30),
)
def test_no_fire_is_made_twice_or_out_of_order_whatever_the_clock_does(expression: str, tz: str, misfire: str, moves: list[int]) -> None:
    begin = round(datetime.fromisoformat("2026-10-24T22:00:00Z").timestamp() * 1000)
    now, current, all_fires = begin, schedule(expression, at=begin, tz=tz, misfire=misfire, overlap="allow"), []
    for move in moves:
        now += move
        made, after = steps(current, now)
        assert after.mark >= current.mark
        all_fires += fired(made)
        current = after
        assert all(fire <= now for fire in fired(made))
    assert all_fires == sorted(set(all_fires))
    nominal = set()
    for at in fires(parse(expression), begin, zone(tz)):
        if at > max([*all_fires, begin]):
            break
        nominal.add(at)
    assert set(all_fires) <= nominal


def test_all_within_a_window_makes_every_fire_exactly_once() -> None:
    current, made_all, now = schedule("*/10 * * * *", misfire="all", window=86_400.0), list[int](), START
    for move in (25, 3, 180, 1, 9, 11, 400):
        now += move * 60_000
        made, current = steps(current, now)
        made_all += fired(made)
    assert made_all == list(range(START + 600_000, now + 1, 600_000))


# the task ------------------------------------------------------------------------------------------------------------


def test_places_in_the_payload_are_filled_and_other_braces_stay() -> None:
    at = datetime.fromisoformat("2026-11-22T09:00:00+01:00")

    def filled(text: str) -> Any:
        return rendered({"a": [{"b": text}]}, "daily", at, 3)["a"][0]["b"]

    assert filled("of {scheduled_at:%Y-%m-%d}") == "of 2026-11-22"
    assert filled("{scheduled_at} {schedule} #{fire_count}") == "2026-11-22T09:00:00+01:00 daily #3"
    assert filled('{"json": {}} {other} {{scheduled_at:%H}}') == '{"json": {}} {other} {scheduled_at:%H}'
    assert rendered({"n": 1, "x": None, "l": [True]}, "daily", at, 3) == {"n": 1, "x": None, "l": [True]}


def test_a_task_carries_its_schedule_its_time_and_the_deadlines_counted_from_now() -> None:
    template = Submission("echo", "chat", "m", {"messages": ["{scheduled_at:%H:%M}"]}, {"seed": 1}, 10, tags=["x"], metadata={"team": "a"})
    given = schedule(task=template, tz="Europe/Berlin", start_within=60.0, end_within=600.0, estimate=77, size="medium")
    task = task_of(given, START, START + 5)
    spec = msgspec.json.decode(task.spec, type=Submission)
    assert spec.payload == {"messages": ["10:00"]}
    assert (spec.schedule, spec.scheduled_at, spec.start_deadline, spec.deadline) == ("hourly", START, START + 60_005, START + 600_005)
    assert spec.metadata["team"] == "a"
    assert spec.metadata["cron_name"] == "hourly"
    assert spec.metadata["cron_run_count"] == 1
    assert spec.metadata["cron_fire"] == "2026-11-22T10:00:00+01:00"
    assert (task.expires, task.due, task.estimate, task.flow.size, task.flow.priority) == (START + 60_005, None, 77, "medium", 10)
    assert set(task.labels) == {("tag", "x"), ("schedule", "hourly")}
    assert template.metadata == {"team": "a"}, "the template itself stays as it was given"


def test_a_schedule_survives_its_record() -> None:
    given = steps(schedule(overlap="queue", metadata={"owner": "me"}), START + HOUR, ["t1"])[1]
    assert decoded(encoded(given)) == given
    assert given.to_dict()["description"] == "at minute 0 of every hour"
