"""Events: a closed union that survives its encoding, and filters that refuse a typing error instead of waiting for ever."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from inferq.events import EVENT_TYPES, TERMINAL, Event, QueuePaused, TaskCompleted, TaskRetrying, TaskSubmitted, type_filter


def chosen(*wanted: str) -> set[str]:
    fits = type_filter(wanted)
    return {name for name in EVENT_TYPES if fits(name)}


def test_every_event_survives_its_encoding_under_its_own_type() -> None:
    for cls in get_args(Event):
        event = cls(position=7, at=1)
        encoded = msgspec.json.encode(event)
        assert msgspec.json.decode(encoded)["type"] == event.type
        assert msgspec.json.decode(encoded, type=Event) == event


def test_event_types_are_unique() -> None:
    assert len(set(EVENT_TYPES)) == len(get_args(Event)) == len(EVENT_TYPES)


def test_an_event_shows_what_happened() -> None:
    event = TaskRetrying(3, 5, "id", 2, "timeout", "slow", 99)
    shown = msgspec.to_builtins(event)
    assert shown == {
        "type": "task.retrying", "position": 3, "at": 5, "task_id": "id", "attempt": 2, "code": "timeout", "error": "slow", "due": 99
    }  # fmt: skip


def test_three_events_end_a_task() -> None:
    assert {cls().type for cls in TERMINAL} == {"task.completed", "task.failed", "task.cancelled"}


def test_nothing_wanted_means_everything() -> None:
    assert chosen() == set(EVENT_TYPES)


def test_a_pattern_chooses_a_family_and_a_name_itself() -> None:
    assert chosen("task.*") == {name for name in EVENT_TYPES if name.startswith("task.")}
    assert chosen("queue.*", "task.completed") == {"queue.paused", "queue.resumed", "queue.pruned", "task.completed"}
    assert chosen("*") == set(EVENT_TYPES)


@pytest.mark.parametrize(
    ("old", "new"), [("task_completed", "task.completed"), ("task_submitted", "task.submitted"), ("priority_updated", "task.priority")]
)
def test_the_forerunners_names_are_understood(old: str, new: str) -> None:
    assert chosen(old) == {new}


@pytest.mark.parametrize("wrong", ["task.complete", "tasks.*", "", "task_", "TASK.COMPLETED"])
def test_a_name_that_fits_no_event_is_refused_with_the_list(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"task\.submitted"):
        type_filter(["task.failed", wrong])


def test_a_filter_knows_no_other_types() -> None:
    assert not type_filter(["task.*"])("task.unheard_of")


def test_types_come_from_the_classes() -> None:
    assert [TaskSubmitted().type, TaskCompleted().type, QueuePaused().type] == ["task.submitted", "task.completed", "queue.paused"]
