"""The words of a task: its states and the ways between them, priorities, lanes, ids, and what it looks like as JSON."""

from __future__ import annotations

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.executor import Answer, Usage
from inferq.task import (
    FINAL,
    PRIORITIES,
    TRANSITIONS,
    WAITING,
    FlowKey,
    Outcome,
    OutcomeKind,
    State,
    Submission,
    Task,
    TaskResult,
    Verb,
    lane_of,
    lane_parts,
    new_id,
    priority_name,
    priority_number,
)

PAGE = Path(__file__).parents[2] / "docs" / "states.md"
INT64 = st.integers(-(2**63), 2**63 - 1)


# ── states ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_verb_is_used_by_the_table() -> None:
    assert {verb for _, verb in TRANSITIONS} == set(get_args(Verb))


def test_every_state_can_be_reached_from_a_submission() -> None:
    reached: set[State | None] = {None}
    while more := {after for (before, _), after in TRANSITIONS.items() if before in reached} - reached:
        reached |= more
    assert reached == {None, *State}


def test_a_final_state_has_no_exit_but_a_retry_and_a_completed_task_has_none() -> None:
    exits = {(before, verb) for before, verb in TRANSITIONS if before in FINAL}
    assert exits == {(State.FAILED, "retry"), (State.CANCELLED, "retry")}


def test_every_state_that_is_not_final_can_be_cancelled() -> None:
    assert {before for before, verb in TRANSITIONS if verb == "cancel"} == set(State) - FINAL


def test_only_a_claim_starts_an_attempt_and_only_from_pending() -> None:
    starts = [(before, verb) for (before, verb), after in TRANSITIONS.items() if after is State.RUNNING]
    assert starts == [(State.PENDING, "claim")]


def test_only_a_running_task_completes() -> None:
    ways = [(before, verb) for (before, verb), after in TRANSITIONS.items() if after is State.COMPLETED]
    assert ways == [(State.RUNNING, "complete")]


def test_waiting_running_and_final_are_all_states_and_share_none() -> None:
    assert WAITING | {State.RUNNING} | FINAL == set(State)
    assert not WAITING & FINAL
    assert [state for state in State if state.is_final] == [state for state in State if state in FINAL]


@given(st.lists(st.sampled_from(get_args(Verb)), max_size=30))
def test_a_walk_by_legal_verbs_ends_at_most_once_between_two_retries(verbs: list[Verb]) -> None:
    state: State | None = None
    ends = 0
    for verb in verbs:
        after = TRANSITIONS.get((state, verb))
        if after is None:
            continue
        ends = 0 if verb == "retry" else ends
        ends += after.is_final
        assert ends <= 1
        state = after


def states_page() -> str:
    """The documentation of the table, made from the table. Run this file to write it."""
    lines = [
        "# States",
        "",
        "Made from `inferq.task.TRANSITIONS` by `python tests/unit/test_task.py`; a test keeps it equal.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        *(f"    {before or '[*]'} --> {after}: {verb}" for (before, verb), after in TRANSITIONS.items()),
        "```",
        "",
        "| from | " + " | ".join(State) + " |",
        "|---|" + "---|" * len(State),
    ]
    for before in (None, *State):
        ways = [", ".join(verb for (b, verb), after in TRANSITIONS.items() if (b, after) == (before, state)) for state in State]
        lines.append(f"| {before or '(new)'} | " + " | ".join(ways) + " |")
    lines += ["", f"Final: {', '.join(sorted(FINAL))}. What is not in the table cannot happen.", ""]
    return "\n".join(lines)


def test_the_page_about_states_says_what_the_table_says() -> None:
    assert PAGE.read_text("utf-8") == states_page(), "run: python tests/unit/test_task.py"


# ── priorities ──────────────────────────────────────────────────────────────────────────────────────────────────────


@given(INT64)
def test_any_integer_of_64_bits_is_a_priority_and_survives_its_name(value: int) -> None:
    assert priority_number(value) == value
    assert priority_number(str(value)) == value
    assert priority_number(priority_name(value)) == value


@pytest.mark.parametrize(("name", "number"), [("low", 1), ("normal", 5), ("high", 10), ("critical", 15)])
def test_the_named_priorities_are_these(name: str, number: int) -> None:
    assert PRIORITIES[name] == number
    assert priority_number(name) == priority_number(f" {name.upper()} ") == number
    assert priority_name(number) == name


@pytest.mark.parametrize("value", ["urgent", "", "1.5", 1.5, True, None, 2**63, -(2**63) - 1, str(2**63)])
def test_what_is_no_priority_is_refused_with_what_was_expected(value: object) -> None:
    with pytest.raises(ValueError, match="expected an integer"):
        priority_number(value)  # type: ignore[arg-type] # wrong on purpose


# ── lanes ───────────────────────────────────────────────────────────────────────────────────────────────────────────

names = st.text(st.characters(exclude_characters="@/", exclude_categories=["Cs"]), min_size=1, max_size=12)
model_names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(names, model_names, st.none() | names)
def test_a_lane_is_read_back_as_its_parts(executor: str, model: str, backend: str | None) -> None:
    assert lane_parts(lane_of(executor, model, backend)) == (executor, model, backend)


@given(names, model_names, st.none() | names, names, model_names, st.none() | names)
def test_different_needs_are_different_lanes(e1: str, m1: str, b1: str | None, e2: str, m2: str, b2: str | None) -> None:
    assert (lane_of(e1, m1, b1) == lane_of(e2, m2, b2)) is ((e1, m1, b1) == (e2, m2, b2))


def test_a_lane_keeps_slashes_and_colons_of_model_names() -> None:
    assert lane_parts("openai@local/hf.co/org/model:Q4@x") == ("openai", "hf.co/org/model:Q4@x", "local")


# ── ids ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ids_are_valid_uuids_of_version_7_that_carry_their_time() -> None:
    before = time.time_ns() // 1_000_000
    ids = [uuid.UUID(new_id()) for _ in range(100)]
    after = time.time_ns() // 1_000_000
    assert {(id.version, id.variant) for id in ids} == {(7, uuid.RFC_4122)}
    # Ids of one moment run ahead of the clock by a 4096th of a millisecond each, and other tests may have made many.
    assert all(before - 1 <= id.int >> 80 <= after + 1000 for id in ids)


def test_ids_rise_and_are_unique_over_all_threads() -> None:
    def make(_: int) -> list[str]:
        return [new_id() for _ in range(5_000)]

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(make, range(4)))
    assert all(ids == sorted(ids) for ids in made)
    assert len({id for ids in made for id in ids}) == 20_000


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def a_task(**fields: object) -> Task:
    spec = Submission("ollama", "chat", "m", {"messages": []}, priority=5, tags=["a"], estimate=9, size="low")
    task = Task("id", 7, State.PENDING, FlowKey("ollama/m", 10, "medium", "acme"), spec, estimate=20_000)
    return msgspec.structs.replace(task, **fields)


def test_a_task_as_json_shows_where_it_stands_now_and_not_where_it_was_submitted() -> None:
    shown = json.loads(json.dumps(a_task(failures=2).to_dict()))
    assert (shown["priority"], shown["size"], shown["estimate"], shown["tenant"]) == (10, "medium", 20_000, "acme")
    assert (shown["state"], shown["executor"], shown["action"], shown["model"], shown["tags"]) == ("pending", "ollama", "chat", "m", ["a"])
    assert a_task(failures=2).retry_count == shown["failures"] == 2


def test_a_submission_with_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(msgspec.ValidationError, match="prioritty"):
        msgspec.json.decode(b'{"executor": "echo", "action": "chat", "prioritty": 3}', type=Submission)


submissions = st.builds(
    Submission,
    executor=names,
    action=names,
    model=model_names,
    payload=st.dictionaries(names, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | model_names, max_size=4),
    priority=INT64,
    key=st.none() | names,
    tags=st.lists(names, max_size=3),
    scheduled_at=st.none() | st.integers(0, 2**50),
    timeout=st.none() | st.floats(0, 1e6),
    at_most_once=st.booleans(),
)


@given(submissions)
def test_a_submission_survives_its_encoding(submission: Submission) -> None:
    assert msgspec.json.decode(msgspec.json.encode(submission), type=Submission) == submission


def test_each_outcome_is_made_by_its_own_constructor() -> None:
    usage = Usage(input_tokens=1, output_tokens=2)
    made = [
        Outcome.completed(Answer(text="x", usage=usage), backend="b"),
        Outcome.retry(5, code="timeout", error="slow"),
        Outcome.failed("auth", "no key"),
        Outcome.cancelled("why"),
        Outcome.released(at=9, code="rate_limited"),
    ]
    assert [outcome.kind for outcome in made] == list(get_args(OutcomeKind))
    assert (made[0].usage, made[0].backend, made[0].code) == (usage, "b", None)
    assert [(outcome.answer, outcome.at) for outcome in made[1:]] == [(None, 5), (None, None), (None, None), (None, 9)]


def test_a_result_of_one_embedded_input_has_one_vector() -> None:
    assert TaskResult("id", embeddings=[[1.0, 2.0]]).embedding == [1.0, 2.0]
    assert TaskResult("id", text="x").embedding is None
    assert json.loads(TaskResult("id", text="x").to_json())["text"] == TaskResult("id", text="x").to_dict()["text"] == "x"


def test_tokens_are_summed_where_any_are_known() -> None:
    assert Usage(3, 4).total_tokens == 7
    assert Usage(output_tokens=4).total_tokens == 4
    assert Usage().total_tokens is None


if __name__ == "__main__":
    PAGE.write_text(states_page(), "utf-8")
